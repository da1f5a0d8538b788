# Make `trainer` and `workflow`, which rules and jobs import, importable: by a file that Snakemake fetches from
# where it found this one, be that a repository.
from pathlib import Path
from runpy import run_path

run_path(workflow.source_path("../project.py"))["make_importable"](workflow.current_basedir)

from workflow.project import refuse, refusing
