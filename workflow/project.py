"""Make this project importable in Snakemake's own process, and refuse what a user can fix.

The rules load this file by its path, before `trainer` and `workflow` can be imported: its own
imports of them stand inside functions. The packages lie beside the rules, unless the workflow is a
module out of a git repository: then Snakemake reads the Snakefiles from a bare clone in its cache,
while Python and torchrun need files. So the commit is checked out below the working directory,
where jobs on other nodes find it, too. A clone, not an archive: a run's provenance names its
folder's commit.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn


def refuse(error: object) -> NoReturn:
    """Print the error in one line and exit, as the project's other commands do."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def refusing() -> Iterator[None]:
    """Within the context, refuse what a user can fix."""
    from trainer.errors import UserError

    try:
        yield
    except UserError as error:
        refuse(error)


def make_importable(rules: Any) -> None:
    """Let Snakemake import this project from where it found ``rules``, their SourceFile."""
    folder = project_folder(rules)
    # Snakemake takes braces in the paths of envs for wildcards; a colon separates search paths.
    if found := [character for character in "{}:" if character in str(folder)]:
        refuse(
            f"{str(folder)!r}: Snakemake cannot work in a folder with {found[0]} in its path; "
            "rename it"
        )
    sys.path.insert(0, str(folder))
    try:
        import_module("workflow.allocation")  # and with it all that the rules need
        from workflow.paths import ROOT
    except ModuleNotFoundError as error:
        refuse(
            f"Snakemake's own Python lacks {error.name}; install it there, as config/README.md says"
        )
    if folder != ROOT:
        refuse(
            f"two versions of this workflow in one: {ROOT} and {folder}; "
            "import both modules from one commit"
        )


def project_folder(rules: Any) -> Path:
    """Locate this project's files; those of a repository are checked out."""
    from snakemake.sourcecache import HostingProviderFile, LocalGitFile, LocalSourceFile

    here = rules.join("../..")
    if isinstance(here, LocalSourceFile):
        return Path(here.path).resolve()
    if isinstance(here, HostingProviderFile):
        return checkout(here.hosted_repo.repo_clone, here.ref)
    if isinstance(here, LocalGitFile):
        return checkout(here.repo_path, here.ref)
    refuse("the workflow can be a module by path, github(), gitlab() or gitfile(), not by URL")


def checkout(repository: Path | str, ref: str) -> Path:
    """Return the folder with ``ref``, named once it is complete; concurrent starts share one."""
    from git import Repo

    clone = Repo(repository)
    commit = clone.commit(ref).hexsha
    folder = Path(".snakemake", "local-sgd", commit).resolve()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            unfinished = Path(temporary, commit)
            clone.clone(unfinished, no_checkout=True).git.checkout(commit, detach=True)
            try:
                unfinished.rename(folder)
            except OSError:
                if not folder.exists():  # else another start was faster
                    raise
    return folder
