# One torchrun job per configuration and seed. Parameters hold what decides a run's numbers; how it
# is executed (device, threads, resources) is none of them, so that changing it repeats nothing; nor is where
# it is copied to, which is therefore given as a resource.


rule train:
    # The runs of the figures, from a start point or from random initialisation.
    input:
        unpack(run_inputs),
    output:
        metrics=f"{RESULTS}/runs/{{run}}/metrics.jsonl",
        model=f"{RESULTS}/runs/{{run}}/model.pt",
    log:
        f"{RESULTS}/logs/{{run}}.log",
    retries: RETRIES
    conda:
        "../../envs/train.yaml"
    threads: lambda wildcards: threads_of(len(RUNS))
    resources:
        processes=lambda wildcards: processes_of(ALL_RUNS[wildcards.run]),
        gpu=lambda wildcards: 0 if DEVICE == "cpu" else processes_of(ALL_RUNS[wildcards.run]),
        device=DEVICE,
        trainer=TRAINER,
        # Rounded down: together the processes have the job's cores, no more.
        threads_per_process=lambda wildcards, threads: max(
            1, threads // processes_of(ALL_RUNS[wildcards.run])
        ),
        wandb=WANDB,
        wandb_group=lambda wildcards: WANDB_GROUPS[wildcards.run],
        checkpoint_every=str(CONFIG.checkpoint_every),
        time_limit=str(CONFIG.time_limit),
        allow_divergence=lambda wildcards: int(wildcards.run in MAY_DIVERGE),
    params:
        options=lambda wildcards: ALL_RUNS[wildcards.run].options(),
        start=start_option,
        data=subpath(input.train, parent=True),
        folder=subpath(output.metrics, parent=True),
        progress=f"{RESULTS}/checkpoints/{{run}}",
    shell:
        # Snakemake exports the job's threads, which each process would take. And it waits for a run that a
        # killed snakemake has left behind.
        "export OMP_NUM_THREADS={resources.threads_per_process} MKL_NUM_THREADS={resources.threads_per_process} PYTHONPATH=$PWD;"
        " python -m trainer.launch --nproc-per-node {resources.processes} {resources.trainer} train {params.options} {params.start}"
        " --data-pth {params.data:q} --log-pth {params.progress:q} --out {params.folder:q} --wait 1"
        " --device {resources.device:q} --wandb {resources.wandb:q} --wandb-group {resources.wandb_group:q}"
        " --checkpoint-every {resources.checkpoint_every:q} --time-limit {resources.time_limit:q}"
        " --allow-divergence {resources.allow_divergence:q} > {log:q} 2>&1 || say_why {log:q}"


use rule train as start_point with:
    # Phase 1 of post-local SGD, H = 1 until the switch.
    input:
        unpack(start_point_inputs),
    output:
        metrics=f"{RESULTS}/start_points/{{run}}/metrics.jsonl",
        model=f"{RESULTS}/start_points/{{run}}/model.pt",
    threads: lambda wildcards: threads_of(len(START_POINTS))
