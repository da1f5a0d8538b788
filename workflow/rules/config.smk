# Check config.yaml before Snakemake reads it, which takes the last of doubled keys, names no line, and runs
# Python in a file with the key __use_yte__, which is unknown here. A module's importer has read its own.
try:
    if not workflow.modifier.skip_configfile:
        load_config(read_yaml(Path("config.yaml")))
    elif not isinstance(config, dict):
        raise UserError(f"the module's config must be a mapping of settings, got {config!r}")
except UserError as error:
    refuse(error)

# Checkpoints and logs are not outputs of rules, so a prefix would not move them.
if any(
    workflow.modifier.path_modifier.replace_prefix(folder) != folder
    for folder in ("results/", "resources/")
):
    refuse(
        "a module's prefix or replace_prefix would separate runs from their checkpoints; remove it"
    )
