# The copies on Weights & Biases; no figure needs them.


rule wandb_sync:
    log:
        f"{RESULTS}/logs/wandb_sync.log",
    # Of finished runs that were offline; trains nothing.
    localrule: True
    conda:
        "../../envs/train.yaml"
    params:
        folder=f"{RESULTS}/checkpoints",
    shell:
        "python -m trainer wandb_sync --log-pth {params.folder:q} 2> {log:q} || say_why {log:q}"
