# Make `trainer` and `workflow`, which rules and jobs import, importable. They lie beside this file, unless the
# workflow is a module out of a git repository: then Snakemake reads the Snakefiles from a bare clone in its
# cache, while Python and torchrun need files. So the commit is checked out below the working directory, where
# jobs on other nodes find it, too. A clone, not an archive: a run's provenance names its folder's commit.
import sys
import tempfile
from pathlib import Path

from snakemake.sourcecache import HostingProviderFile, LocalGitFile, LocalSourceFile


def refuse(error):
    """Print the error in one line and exit, as the project's other commands do."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def project_folder():
    """Locate this project's files."""
    here = workflow.current_basedir.join("../..")
    if isinstance(here, LocalSourceFile):
        return Path(here.path).resolve()
    if isinstance(here, HostingProviderFile):
        return checkout(here.hosted_repo.repo_clone, here.ref)
    if isinstance(here, LocalGitFile):
        return checkout(here.repo_path, here.ref)
    refuse("the workflow can be a module by path, github(), gitlab() or gitfile(), not by URL")


def checkout(repository, ref):
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


FOLDER = project_folder()
# Snakemake takes braces in the paths of envs for wildcards; a colon separates entries of search paths.
if found := [character for character in "{}:" if character in str(FOLDER)]:
    refuse(
        f"{str(FOLDER)!r}: Snakemake cannot work in a folder with {found[0]} in its path; rename it"
    )
sys.path.insert(0, str(FOLDER))

try:
    from trainer.errors import UserError
    from trainer.settings.yaml import read_yaml
    from workflow.config import load_config
    from workflow.earlier import drop, keep
    from workflow.paths import ROOT, source
except ModuleNotFoundError as error:
    refuse(f"Snakemake's own Python lacks {error.name}; install it there, as config/README.md says")
if ROOT != FOLDER:
    refuse(
        f"two versions of this workflow in one: {ROOT} and {FOLDER}; import both modules from one commit"
    )
# Prefix of the project's files as inputs of rules
SOURCE = source()
