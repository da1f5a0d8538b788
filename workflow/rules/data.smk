# Convert raw data to one layout, then to FFCV's .beton files. Small images of one size become arrays; image
# files are listed and stay where they are.

from trainer.data.preparation.source_state import state_to_compare
from trainer.settings.cli import options

OF_FILES = "|".join(name for name, spec in DATASETS.items() if spec.of_files)
OF_ARRAYS = "|".join(name for name, spec in DATASETS.items() if not spec.of_files)


# Local rules download or take seconds: the nodes of a cluster may have no network.


rule data:
    # Make all that needs the network or the raw images, for training without either.
    input:
        sorted({file for run in ALL_RUNS.values() for file in CAMPAIGN.betons(run).values()}),
        list(CAMPAIGN.downloads),
    localrule: True


rule prepare:
    output:
        train="resources/{dataset}/train.npz",
        test="resources/{dataset}/test.npz",
    log:
        "resources/{dataset}/prepare.log",
    wildcard_constraints:
        dataset=OF_ARRAYS,
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        source=lambda wildcards: CONFIG.source(wildcards.dataset),
        # Snakemake cannot compare a Path; other images, or another folder, are other data.
        state=lambda wildcards: state_to_compare(
            CONFIG.source(wildcards.dataset), Path("resources", wildcards.dataset)
        ),
        folder=subpath(output.train, parent=True),
    shell:
        "python -m trainer prepare --dataset {wildcards.dataset:q} --source {params.source:q}"
        " --out {params.folder:q} > {log:q} 2>&1 || say_why {log:q}"


rule beton:
    input:
        train="resources/{dataset}/train.npz",
        test="resources/{dataset}/test.npz",
    output:
        train="resources/{dataset}/train.beton",
        test="resources/{dataset}/test.beton",
        train_sidecar="resources/{dataset}/train.beton.json",
        test_sidecar="resources/{dataset}/test.beton.json",
    log:
        "resources/{dataset}/beton.log",
    wildcard_constraints:
        dataset=OF_ARRAYS,
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        folder=subpath(input.train, parent=True),
    shell:
        "python -m trainer beton --data-pth {params.folder:q} > {log:q} 2>&1 || say_why {log:q}"


use rule prepare as list_files with:
    output:
        train="resources/{dataset}/train.json",
        test="resources/{dataset}/test.json",
    wildcard_constraints:
        dataset=OF_FILES,


rule beton_of_files:
    # Write each split in a job of its own, so that a writer stopped after hours repeats only one.
    input:
        "resources/{dataset}/{split}.json",
    output:
        beton="resources/{dataset}/{split}.beton",
        sidecar="resources/{dataset}/{split}.beton.json",
    log:
        "resources/{dataset}/beton-{split}.log",
    wildcard_constraints:
        dataset=OF_FILES,
        split="train|test",
    conda:
        "../../envs/data.yaml"
    threads: ALLOCATION.all_cores
    params:
        folder=subpath(input[0], parent=True),
        options=options(CONFIG.image_files, type(CONFIG.image_files).model_fields),
    shell:
        "python -m trainer beton --data-pth {params.folder:q} --split {wildcards.split:q} {params.options}"
        " --num-workers {threads} > {log:q} 2>&1 || say_why {log:q}"


rule download:
    # Copy or download a published start point that is missing. Where from is a resource, not a parameter:
    # the same file from elsewhere repeats nothing.
    output:
        "{checkpoint}",
    log:
        "{checkpoint}.log",
    localrule: True
    conda:
        TRAIN_ENV
    resources:
        source=lambda wildcards: CAMPAIGN.downloads[wildcards.checkpoint].source_options(
            CONFIG.checkpoints_source
        ),
    params:
        checksum=lambda wildcards: CAMPAIGN.downloads[wildcards.checkpoint].checksum_options,
    shell:
        "python -m workflow.published --out {output:q} {params.checksum} {resources.source}"
        " > {log:q} 2>&1 || say_why {log:q}"
