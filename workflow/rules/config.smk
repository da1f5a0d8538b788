# config.yaml before Snakemake reads it, which takes the last of doubled keys, names no line, and runs the
# Python in a file that asks for it by __use_yte__: a key that is unknown here. A module's importer has read
# its own.
try:
    if not workflow.modifier.skip_configfile:
        load_config(read_yaml(Path("config.yaml")))
    elif not isinstance(config, dict):
        raise UserError(f"the module's config must be a mapping of settings, got {config!r}")
except UserError as error:
    refuse(error)

# Checkpoints and logs are no outputs of rules, so that Snakemake would leave them where they are.
if any(
    workflow.modifier.path_modifier.replace_prefix(folder) != folder
    for folder in ("results/", "resources/")
):
    refuse(
        "a module's prefix or replace_prefix would part runs from their checkpoints; leave it out"
    )
