# Check config.yaml before Snakemake reads it, which takes the last of doubled keys, names no line, and runs
# Python in a file with the key __use_yte__, which is unknown here. A module's importer has read its own.
from trainer.settings.yaml import read_yaml
from workflow.config import load_config

if not workflow.modifier.skip_configfile:
    with refusing():
        load_config(read_yaml(Path("config.yaml")))

# Checkpoints and logs are not outputs of rules, so a prefix would not move them.
moved = workflow.modifier.path_modifier.replace_prefix
if any(moved(folder) != folder for folder in ("results/", "resources/")):
    refuse(
        "a module's prefix or replace_prefix would separate runs from their checkpoints; remove it"
    )
