# What the rules share: the checked settings, the runs by id, and functions of wildcards.
import math
import os
import re
import shlex

from trainer.checks import check_processes
from trainer.cli import options
from trainer.data.source_state import state_to_compare
from trainer.data.specs import DATASETS
from workflow.analysis.figures import FIGURES, THEORY
from workflow.experiments import Checkpoint, Run, expand, load_experiments, start_points
from workflow.machine import DECODERS, divided, threads_per_process, visible_gpus


def processes_of(run):
    """A run of fewer clients than processes, such as a start point of K = 1, takes one for each."""
    return min(PROCESSES, run.settings.num_clients)


def nodes_of(run):
    """As many as asked for, or as its processes fill evenly."""
    return math.gcd(NODES, processes_of(run))


# Jobs run elsewhere, or this is such a job. Which executor it will be Snakemake does not tell while it reads
# rules, but none that runs jobs here does without cores.
CLUSTER = workflow.resource_settings.cores is None or workflow.remote_exec
# Of jobs that take all cores of a machine; a cluster's profile says how many they get (set-threads).
CORES = 1 if CLUSTER else workflow.cores


try:
    CONFIG = load_config(config)
    SCALE = CONFIG.scale
    EXPERIMENTS_FILE = experiments_file(SCALE)
    EXPERIMENTS = load_experiments(EXPERIMENTS_FILE)
    PROCESSES = CONFIG.processes or EXPERIMENTS.execution.processes
    NODES = CONFIG.nodes or EXPERIMENTS.execution.nodes
    if PROCESSES % NODES:
        raise UserError(
            f"config.yaml: {PROCESSES} processes cannot be spread evenly over {NODES} nodes; "
            "change processes or nodes"
        )
    if NODES > 1 and workflow.resource_settings.nodes is None and not CLUSTER:
        raise UserError(
            f"config.yaml: {NODES} nodes need a cluster; set nodes to 1, or give "
            "--workflow-profile workflow/profiles/slurm"
        )
    DEVICE = CONFIG.device or EXPERIMENTS.execution.device
    # `--resources gpu=N` says how many GPUs there are to share; without it, all of this machine. A
    # cluster's scheduler knows its own. What the pool lets start together, the leases keep apart.
    GPUS = workflow.global_resources.get("gpu").value
    if GPUS is None and DEVICE != "cpu" and not CLUSTER:
        GPUS = visible_gpus() or None
        if GPUS is not None:
            workflow.register_resource("gpu", GPUS)
    if DEVICE != "cpu" and GPUS is not None and PROCESSES > GPUS:
        raise UserError(
            f"config.yaml: {PROCESSES} processes need a GPU each and {GPUS} can be used; "
            "lower processes or set device to cpu"
        )
    FIGURE_RUNS = {name: expand(experiment) for name, experiment in EXPERIMENTS.experiments.items()}
    RUNS = {run.id: run for runs in FIGURE_RUNS.values() for run in runs}
    START_POINTS = {run.id: run for run in start_points(list(RUNS.values()))}
    CHECKPOINTS = {
        str(run.start.path): run.start
        for run in RUNS.values()
        if isinstance(run.start, Checkpoint) and run.start.url
    }
    for run in [*RUNS.values(), *START_POINTS.values()]:
        check_processes(run.settings, processes_of(run))
except UserError as error:
    refuse(error)

# Logs are long, the reason is one line: a failed job repeats it where the person looks. A job that stopped,
# and is to be started again, ends with a status of its own. Snakemake deletes the log before the next try.
shell.prefix(
    f"export PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(ROOT))}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; "
    'set -euo pipefail; say_why() {{ cat "$1" >> "${{1%.log}}.earlier.log" || true;'
    " if grep -a '^error:' \"$1\" | sort -u >&2; then return 1; fi;"
    " if grep -a '^stopped:' \"$1\" | sort -u >&2; then return 75; fi;"
    ' echo "error: unexpected, $1 ends with: $(tail -n 1 "$1")" >&2; return 1; }}; '
)

# A forked process finds torch imported, 2 s of a start of 5 saved, and ends with torchrun even where that
# is killed. CUDA does not survive a fork.
MAIN = shlex.quote(str(ROOT / "trainer" / "__main__.py"))
TRAINER = f"--start-method fork --run-path {MAIN}" if DEVICE == "cpu" else "-m trainer"

RESULTS = str(CONFIG.results)
TABLES = f"{RESULTS}/tables" if CONFIG.tables is None else str(CONFIG.tables)
# What tables, figures and verdicts are made with: a change of it makes them anew, and trains nothing.
CODE = sorted(map(str, SOURCE.glob("workflow/analysis/*.py")))
# Figures that this scale has an experiment for
HERE = [name for name, figure in FIGURES.items() if set(figure.experiments) & set(FIGURE_RUNS)]
HERE.append(THEORY)
# A run that several figures share belongs to the first of them.
WANDB_GROUPS = {
    run.id: f"{SCALE}/{name}"
    for name, runs in reversed(FIGURE_RUNS.items())
    for run in [*start_points(runs), *runs]
}
WANDB = CONFIG.wandb or EXPERIMENTS.execution.wandb
RETRIES = CONFIG.retries
if RETRIES is None:
    # A cluster's profile says how often.
    RETRIES = None if CLUSTER else EXPERIMENTS.execution.retries
# Of runs that share a job of a cluster; how many is the profile's to say (group-components).
GROUP = "runs" if CLUSTER and EXPERIMENTS.execution.grouped and DEVICE == "cpu" else None
ALL_RUNS = START_POINTS | RUNS
MAY_DIVERGE = {
    run.id
    for name, runs in FIGURE_RUNS.items()
    if EXPERIMENTS.experiments[name].allow_divergence
    for run in runs
}


wildcard_constraints:
    dataset="|".join(DATASETS),
    experiment="|".join(FIGURE_RUNS),
    figure="|".join([*FIGURES, THEORY]),
    run=r"[\w.-]+",
    checkpoint="|".join(map(re.escape, CHECKPOINTS)) or "none",


def betons(run):
    folder = f"resources/{run.settings.dataset}"
    return {split: f"{folder}/{split}.beton" for split in ("train", "test")}


def start_point_inputs(wildcards):
    return betons(START_POINTS[wildcards.run])


def run_inputs(wildcards):
    run = RUNS[wildcards.run]
    if isinstance(run.start, Run):
        return betons(run) | {"start": f"{RESULTS}/start_points/{run.start.id}/model.pt"}
    if isinstance(run.start, Checkpoint):
        # Its SHA-256 is a parameter: a file that is only newer repeats nothing.
        return betons(run) | {"start": ancient(str(run.start.path))}
    return betons(run)


def threads_of(run, runs):
    """Threads of a job, on each of its nodes, that is one of ``runs`` runs which may be at once."""
    asked = CONFIG.threads or EXPERIMENTS.execution.threads
    if CLUSTER:
        return processes_per_node(run) * (asked or 1 + DECODERS * decodes_for_gpu(run))
    gpus = None if DEVICE == "cpu" else GPUS
    return PROCESSES * threads_per_process(workflow.cores, PROCESSES, runs, gpus, asked)


def processes_per_node(run):
    return processes_of(run) // nodes_of(run)


def decodes_for_gpu(run):
    """Whether a run waits for image files to be decoded rather than for its own computing."""
    return run.settings.streamed and DEVICE != "cpu" and bool(CLUSTER or GPUS)


def threads_of_process(wildcards, threads):
    """Of the job's threads a process's, rounded down: to compute, to decode."""
    run = ALL_RUNS[wildcards.run]
    # `--cores` may be more than there are, and the trainer refuses to decode by more threads than cores.
    most = None if CLUSTER else len(os.sched_getaffinity(0))
    share = max(1, threads // processes_per_node(run))
    return divided(share, decoding=decodes_for_gpu(run), cores=most)


def on_several_nodes(wildcards, value):
    return value if nodes_of(ALL_RUNS[wildcards.run]) > 1 else None


def gpus_of(run):
    """Those of a run on one node; of several, slurm_extra says how many each gives."""
    if nodes_of(run) > 1:
        return None
    return 0 if DEVICE == "cpu" else processes_of(run)


def slurm_extra(wildcards):
    """As many processes and GPUs on each of several nodes, where Slurm would divide them as it likes."""
    kind = "" if CONFIG.gpu_model is None else f"{CONFIG.gpu_model}:"
    per_node = processes_per_node(ALL_RUNS[wildcards.run])
    gpus = "" if DEVICE == "cpu" else f" --gpus-per-node={kind}{per_node}"
    return on_several_nodes(wildcards, f"--ntasks-per-node=1{gpus}")


def start_option(wildcards, input):
    return f"--resume-pth {shlex.quote(input.start)}" if "start" in input.keys() else ""


def metrics_of(wildcards):
    return metrics_files(FIGURE_RUNS[wildcards.experiment])


def metrics_files(runs):
    files = [f"{RESULTS}/start_points/{run.id}/metrics.jsonl" for run in start_points(runs)]
    files += list({run.id: f"{RESULTS}/runs/{run.id}/metrics.jsonl" for run in runs}.values())
    return [file for file in files if os.path.exists(file)] if CONFIG.only_finished else files


def experiments_of(figure):
    names = () if figure == THEORY else FIGURES[figure].experiments
    return [name for name in names if name in FIGURE_RUNS]


def metrics_for(experiments):
    """List the metrics of all runs of experiments, as inputs of a target. Snakemake makes a missing file only
    where a target, or a job that runs, asks for it itself: behind a table that is there it would stay missing.
    """
    if CONFIG.tables is not None:
        return []
    return metrics_files([run for name in experiments for run in FIGURE_RUNS[name]])


def tables_of(wildcards):
    names = experiments_of(wildcards.figure) or [THEORY]
    return [f"{TABLES}/{name}.csv" for name in names]


def figure_files(figure):
    """The files of a figure; asked for where the scale has none of its experiments, an error."""
    if figure in HERE:
        return multiext(f"{RESULTS}/figures/{figure}", ".png", ".pdf", ".csv")

    def refused(wildcards):
        needs = ", ".join(FIGURES[figure].experiments)
        refuse(f"{figure} needs {needs}, which experiments/{SCALE}.yaml lacks; add them there")

    return refused
