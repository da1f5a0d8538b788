# config.yaml before Snakemake reads it, which takes the last of doubled keys, names no line, and runs the
# Python in a file that asks for it by __use_yte__: a key that is unknown here.
import sys
from pathlib import Path

sys.path.insert(0, workflow.current_basedir.join("../..").get_path_or_uri(secret_free=True))

from trainer.errors import UserError
from trainer.yaml_files import read_yaml
from workflow.config import load_config


def refuse(error):
    """As the project's other commands do."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


try:
    load_config(read_yaml(Path("config.yaml")))
except UserError as error:
    refuse(error)
