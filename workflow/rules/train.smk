# Train with one torchrun job per configuration and seed. Parameters hold what decides a run's numbers. How a
# run is executed (device, threads) and where it is copied to are resources, so that changing them repeats
# nothing.


rule train:
    # Train the runs of the figures, from a start point or from random initialisation.
    input:
        unpack(lambda wildcards: CAMPAIGN.inputs(CAMPAIGN.runs[wildcards.run], ancient)),
    output:
        metrics=f"{RESULTS}/runs/{{run}}/metrics.jsonl",
        model=f"{RESULTS}/runs/{{run}}/model.pt",
    log:
        f"{RESULTS}/logs/{{run}}.log",
    retries: ALLOCATION.retries
    group:
        ALLOCATION.group
    conda:
        TRAIN_ENV
    threads: lambda wildcards: ALLOCATION.threads(CAMPAIGN.runs, wildcards.run)
    resources:
        processes=lambda wildcards: CAMPAIGN.processes(ALL_RUNS[wildcards.run]),
        processes_per_node=lambda wildcards: CAMPAIGN.processes_per_node(ALL_RUNS[wildcards.run]),
        nnodes=lambda wildcards: CAMPAIGN.nodes(ALL_RUNS[wildcards.run]),
        # Read by Snakemake's Slurm plugin. With mpi, the launcher starts a task on each node. For a group of
        # runs on one node the plugin would add these up, hence None.
        mpi=lambda wildcards: "srun" if ALLOCATION.several_nodes(ALL_RUNS[wildcards.run]) else None,
        nodes=lambda wildcards: ALLOCATION.several_nodes(ALL_RUNS[wildcards.run]),
        tasks=lambda wildcards: ALLOCATION.several_nodes(ALL_RUNS[wildcards.run]),
        tasks_per_gpu=0,
        # Bounds a group of runs in one job.
        runs_at_once=1,
        slurm_extra=lambda wildcards: ALLOCATION.slurm_extra(ALL_RUNS[wildcards.run]),
        gpu=lambda wildcards: ALLOCATION.gpus_of(ALL_RUNS[wildcards.run]),
        gpu_model=lambda wildcards: ALLOCATION.gpu_model(ALL_RUNS[wildcards.run]),
        device=DEVICE,
        trainer=entry_point(DEVICE),
        # The processes of a job share its cores.
        threads_per_process=lambda wildcards, threads: ALLOCATION.divide_threads(
            ALL_RUNS[wildcards.run], threads
        )[0],
        nw=lambda wildcards, threads: ALLOCATION.divide_threads(ALL_RUNS[wildcards.run], threads)[1],
        wandb=CAMPAIGN.execution.wandb,
        wandb_group=lambda wildcards: CAMPAIGN.wandb_groups[wildcards.run],
        checkpoint_every=str(CONFIG.checkpoint_every),
        time_limit=str(CONFIG.time_limit),
        allow_divergence=lambda wildcards: int(wildcards.run in CAMPAIGN.may_diverge),
    params:
        options=lambda wildcards: ALL_RUNS[wildcards.run].options(),
        start=lambda wildcards, input: (
            f"--resume-pth {shlex.quote(input.start)}" if "start" in input.keys() else ""
        ),
        data=subpath(input.train, parent=True),
        folder=subpath(output.metrics, parent=True),
        progress=f"{RESULTS}/checkpoints/{{run}}",
    shell:
        # Snakemake exports the job's threads, all of which each process would use. --wait 1 waits for a run
        # that a killed snakemake has left behind.
        "export OMP_NUM_THREADS={resources.threads_per_process} MKL_NUM_THREADS={resources.threads_per_process};"
        " python -m workflow.forks trainer.launch --nnodes {resources.nnodes:q} --nproc-per-node {resources.processes_per_node:q}"
        " {resources.trainer} train {params.options} {params.start} --processes {resources.processes:q}"
        " --data-pth {params.data:q} --log-pth {params.progress:q} --out {params.folder:q} --wait 1"
        " --device {resources.device:q} --nw {resources.nw:q}"
        " --wandb {resources.wandb:q} --wandb-group {resources.wandb_group:q}"
        " --checkpoint-every {resources.checkpoint_every:q} --time-limit {resources.time_limit:q}"
        " --allow-divergence {resources.allow_divergence:q} > {log:q} 2>&1 || say_why {log:q}"


use rule train as start_point with:
    # Train phase 1 of post-local SGD, H = 1 until the switch.
    input:
        unpack(lambda wildcards: CAMPAIGN.betons(CAMPAIGN.start_points[wildcards.run])),
    output:
        metrics=f"{RESULTS}/start_points/{{run}}/metrics.jsonl",
        model=f"{RESULTS}/start_points/{{run}}/model.pt",
    threads: lambda wildcards: ALLOCATION.threads(CAMPAIGN.start_points, wildcards.run)


# Train all runs, without figures. With `--touch`, stale runs count as up to date, and nothing else does.
rule trained:
    input:
        CAMPAIGN.requested_metrics(CAMPAIGN.runs_by_experiment),
    localrule: True
