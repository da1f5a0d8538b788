# Copy runs to Weights & Biases; no figure needs the copies.


# Upload finished runs that were offline; trains nothing.
rule wandb_sync:
    log:
        f"{RESULTS}/logs/wandb_sync.log",
    localrule: True
    conda:
        TRAIN_ENV
    params:
        folder=f"{RESULTS}/checkpoints",
    shell:
        "python -m trainer wandb_sync --log-pth {params.folder:q} 2> {log:q} || say_why {log:q}"
