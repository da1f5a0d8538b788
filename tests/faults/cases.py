"""A fault: what is done to real inputs, the command that meets it, and how that must end.

Each case is a small function that damages the files of a folder and returns the command to run
there. It ends ``refused`` (status 2, one ``error:`` line with the words that the case names, no
traceback, no file changed outside ``log/``), or the ``same``: with the files of ``out/`` that the
undamaged inputs give.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.commands import BIN, command

NOBODY = 65534
LOG = "log"  # where commands write on their way, in each case's folder
# Beside the results: they say when and by which command they were made.
DESCRIPTIONS = ("provenance.json", "settings.json")


@dataclass(frozen=True)
class Ended:
    """A command's exit status and all that it printed."""

    status: int
    text: str

    @property
    def errors(self) -> list[str]:
        return re.findall("^error: .*", self.text, re.MULTILINE)

    @property
    def last_line(self) -> str:
        lines = [line for line in re.split("[\r\n]+", self.text) if line.strip()]
        return lines[-1] if lines else ""


@dataclass(frozen=True)
class Command:
    """``python -m <program> <words>`` in this process, or snakemake in one of its own.

    ``by_nobody``: by a user who is not root, where this process is.
    """

    program: str
    words: tuple[str, ...]
    by_nobody: bool = False

    def __call__(self, folder: Path) -> Ended:
        if self.program == "snakemake":
            done = command(BIN / "snakemake", *self.words, cwd=folder)
            return Ended(done.returncode, done.stdout + done.stderr)
        main = importlib.import_module(f"{self.program}.__main__").main
        text = io.StringIO()
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(text),
            contextlib.redirect_stderr(text),
            as_nobody() if self.by_nobody else contextlib.nullcontext(),
        ):
            try:
                status = main(self.words)
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
            except Exception:
                traceback.print_exc(file=text)
                status = 1
        return Ended(status, text.getvalue())


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def trainer(*words: object) -> Command:
    return Command("trainer", tuple(map(str, words)))


def analysis(*words: object) -> Command:
    return Command("workflow.analysis", tuple(map(str, words)))


def snakemake(*words: object) -> Command:
    return Command("snakemake", tuple(map(str, words)))


Damage = Callable[[Path], Command]


@dataclass(frozen=True)
class Case:
    """``says``: what the error line must contain; empty for a case that ends the same."""

    kind: Kind
    name: str
    damage: Damage
    says: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind.name}: {self.name}"


@dataclass
class Kind:
    """Cases of one kind of input; ``make`` writes undamaged ones to a folder.

    ``results``: which files must be the same where a case ends so. ``needs_root``: to be another.
    """

    name: str
    make: Callable[[Path], None]
    results: str = "out/**/*"
    needs_root: bool = False
    cases: list[Case] = field(default_factory=list)

    def refused(self, *says: str) -> Callable[[Damage], Damage]:
        """Register the decorated damage: it must cause one error line with all of ``says``."""
        assert says
        return lambda damage: self.add(damage.__name__.replace("_", " "), damage, *says)

    def same(self, damage: Damage) -> Damage:
        """Register the decorated damage: it must change no result."""
        return self.add(damage.__name__.replace("_", " "), damage)

    def add(self, name: str, damage: Damage, *says: str) -> Damage:
        self.cases.append(Case(self, name, damage, says))
        return damage


@dataclass(frozen=True)
class Verdict:
    """How a case ended; ``complaints`` are what it should not have done."""

    case: Case
    ended: Ended
    complaints: list[str]

    @property
    def line(self) -> str:
        """The last one that the command printed, or the one that says why it gave up."""
        return self.ended.errors[0] if self.ended.errors else self.ended.last_line


class Judge:
    """Runs cases below ``folder``; undamaged inputs are made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._originals: dict[Callable[[Path], None], Path] = {}

    def __call__(self, case: Case) -> Verdict:
        with self._fresh(case.kind) as place:
            run = case.damage(place)
            before = contents(place)
            ended = run(place)
            after, results = contents(place), contents(place, case.kind.results)
        if case.says:
            return Verdict(case, ended, [*refusal(ended, case.says), *unchanged(before, after)])
        with self._fresh(case.kind) as place:
            undamaged = replace(run, by_nobody=False)(place)
            wanted = contents(place, case.kind.results)
        complaints = [] if ended.status == undamaged.status == 0 else ["it was to succeed"]
        if results != wanted or not wanted:
            complaints.append("its results differ from those of undamaged inputs")
        return Verdict(case, ended, complaints)

    @contextlib.contextmanager
    def _fresh(self, kind: Kind) -> Iterator[Path]:
        if kind.make not in self._originals:
            original = self._folder / str(len(self._originals))
            original.mkdir()
            kind.make(original)
            self._originals[kind.make] = original
        original = self._originals[kind.make]
        place = Path(shutil.copytree(original, self._folder / "place", symlinks=True))
        try:
            yield place
        finally:
            shutil.rmtree(place)


def refusal(ended: Ended, says: tuple[str, ...]) -> list[str]:
    found = []
    if ended.status != 2:
        found.append(f"status {ended.status}")
    if "Traceback" in ended.text:
        found.append("a traceback")
    if len(ended.errors) != 1:
        return [*found, f"{len(ended.errors)} error lines"]
    return [*found, *(f"{part!r} is not said" for part in says if part not in ended.errors[0])]


def contents(folder: Path, which: str = "**/*") -> dict[str, str]:
    """By path, of what each file below ``folder`` holds; neither on the way nor descriptions."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(which))
        if path.is_file() and path.name not in DESCRIPTIONS and LOG not in path.parts
    }


def unchanged(before: dict[str, str], after: dict[str, str]) -> list[str]:
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    return [f"{name} was changed" for name in changed]


def write_table(verdicts: list[Verdict]) -> None:
    """One line per case: what it is, exit status, the line said; then what went wrong."""
    for verdict in verdicts:
        mark = "FAIL" if verdict.complaints else "ok"
        print(f"{mark:4}  {verdict.case}  |  {verdict.ended.status}  |  {verdict.line}")
        for complaint in verdict.complaints:
            print(f"      {complaint}")
            print(f"{verdict.ended.text[-3000:]}", file=sys.stderr)
    failed = sum(bool(verdict.complaints) for verdict in verdicts)
    print(f"{len(verdicts)} cases, {failed} not as they must be")
