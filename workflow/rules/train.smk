# One torchrun job per configuration and seed. Parameters hold what decides a run's numbers; how it
# is executed (device, threads, resources) is none of them, so that changing it repeats nothing; nor is where
# it is copied to, which is therefore given as a resource.


rule start_point:
    # Phase 1 of post-local SGD, H = 1 until the switch.
    input:
        unpack(start_point_inputs),
    output:
        metrics=f"{RESULTS}/start_points/{{run}}/metrics.jsonl",
        model=f"{RESULTS}/start_points/{{run}}/model.pt",
    log:
        f"{RESULTS}/logs/{{run}}.log",
    conda:
        "../../envs/train.yaml"
    threads: lambda wildcards: threads_of(len(START_POINTS))
    resources:
        processes=lambda wildcards: processes_of(START_POINTS[wildcards.run]),
        gpu=lambda wildcards: 0 if DEVICE == "cpu" else processes_of(START_POINTS[wildcards.run]),
        device=DEVICE,
        trainer=TRAINER,
        # Rounded down: together the processes have the job's cores, no more.
        threads_per_process=lambda wildcards, threads: max(
            1, threads // processes_of(START_POINTS[wildcards.run])
        ),
        wandb=WANDB,
        wandb_group=lambda wildcards: WANDB_GROUPS[wildcards.run],
    params:
        options=lambda wildcards: START_POINTS[wildcards.run].options(),
        data=subpath(input.train, parent=True),
        folder=subpath(output.metrics, parent=True),
        progress=f"{RESULTS}/checkpoints/{{run}}",
    shell:
        "export OMP_NUM_THREADS={resources.threads_per_process} PYTHONPATH=$PWD;"
        " torchrun --standalone --nproc-per-node {resources.processes} {resources.trainer} train {params.options}"
        " --data-pth {params.data:q} --log-pth {params.progress:q} --out {params.folder:q}"
        " --device {resources.device} --wandb {resources.wandb} --wandb-group {resources.wandb_group:q}"
        " > {log:q} 2>&1 || say_why {log:q}"


rule train:
    # The runs of the figures, from a start point or from random initialisation.
    input:
        unpack(run_inputs),
    output:
        metrics=f"{RESULTS}/runs/{{run}}/metrics.jsonl",
        model=f"{RESULTS}/runs/{{run}}/model.pt",
    log:
        f"{RESULTS}/logs/{{run}}.log",
    conda:
        "../../envs/train.yaml"
    threads: lambda wildcards: threads_of(len(RUNS))
    resources:
        processes=lambda wildcards: processes_of(RUNS[wildcards.run]),
        gpu=lambda wildcards: 0 if DEVICE == "cpu" else processes_of(RUNS[wildcards.run]),
        device=DEVICE,
        trainer=TRAINER,
        # Rounded down: together the processes have the job's cores, no more.
        threads_per_process=lambda wildcards, threads: max(
            1, threads // processes_of(RUNS[wildcards.run])
        ),
        wandb=WANDB,
        wandb_group=lambda wildcards: WANDB_GROUPS[wildcards.run],
    params:
        options=lambda wildcards: RUNS[wildcards.run].options(),
        start=start_option,
        data=subpath(input.train, parent=True),
        folder=subpath(output.metrics, parent=True),
        progress=f"{RESULTS}/checkpoints/{{run}}",
    shell:
        "export OMP_NUM_THREADS={resources.threads_per_process} PYTHONPATH=$PWD;"
        " torchrun --standalone --nproc-per-node {resources.processes} {resources.trainer} train {params.options} {params.start}"
        " --data-pth {params.data:q} --log-pth {params.progress:q} --out {params.folder:q}"
        " --device {resources.device} --wandb {resources.wandb} --wandb-group {resources.wandb_group:q}"
        " > {log:q} 2>&1 || say_why {log:q}"
