"""Locate this project's files and those of the working directory."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def source() -> Path:
    """Return this project's folder, relative where it is the working directory, so may move."""
    return Path() if Path.cwd() == ROOT else ROOT


def analysis_sources() -> list[str]:
    """List the code whose change remakes tables, figures and verdicts, and trains nothing."""
    return sorted(map(str, source().glob("workflow/analysis/**/*.py")))


def stated_sources() -> list[str]:
    """List the files of the paper's figures and claims, and of the forms of all."""
    names = ("paper.yaml", "figures.py", "claims.py", "entries.py", "experiments.py", "stated.py")
    return [str(source() / "workflow" / name) for name in names]


def scales() -> list[str]:
    """List the scales of the working directory and of this project."""
    folders = {Path(), source()}
    return sorted({path.stem for folder in folders for path in folder.glob("experiments/*.yaml")})


def experiments_file(scale: str) -> Path:
    """Locate experiments/<scale>.yaml in the working directory, else in this project."""
    own = Path("experiments", f"{scale}.yaml")
    return own if own.exists() else source() / own
