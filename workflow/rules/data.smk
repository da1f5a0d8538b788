# Raw data to arrays to FFCV's .beton files.


rule prepare:
    output:
        train="resources/{dataset}/train.npz",
        test="resources/{dataset}/test.npz",
    log:
        "resources/{dataset}/prepare.log",
    conda:
        "../../envs/data.yaml"
    params:
        source=lambda wildcards: (CONFIG.cifar10_source if wildcards.dataset == "cifar10" else None),
        folder=subpath(output.train, parent=True),
    shell:
        "python -m trainer prepare --dataset {wildcards.dataset} --source {params.source:q}"
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
    conda:
        "../../envs/data.yaml"
    params:
        folder=subpath(input.train, parent=True),
    shell:
        "python -m trainer beton --data-pth {params.folder:q} > {log:q} 2>&1 || say_why {log:q}"


rule download:
    # A published start point, unless it is there already. Its address is a resource, not a
    # parameter: the same file from elsewhere repeats nothing.
    output:
        "{checkpoint}",
    log:
        "{checkpoint}.log",
    conda:
        "../../envs/train.yaml"
    resources:
        url=lambda wildcards: CHECKPOINTS[wildcards.checkpoint].url,
    params:
        sha256=lambda wildcards: CHECKPOINTS[wildcards.checkpoint].sha256,
    shell:
        "python -m trainer download --url {resources.url:q} --sha256 {params.sha256}"
        " --out {output:q} > {log:q} 2>&1 || say_why {log:q}"
