# Define what the rules share: the checked settings, and the cores and GPUs of each run.
import os
import re
import shlex

from trainer.data.preparation.source_state import state_to_compare
from trainer.data.specs import DATASETS
from trainer.settings.cli import options
from workflow.allocation import Allocation, usable_gpus
from workflow.analysis.figures.catalogue import FIGURES
from workflow.analysis.tables.names import THEORY
from workflow.campaign import make_campaign
from workflow.experiments import RunSpec
from workflow.forks.start import ForkServers

# True where jobs run elsewhere, and inside such a job. Snakemake does not tell the executor while it reads
# rules, but every executor that runs jobs here needs cores.
CLUSTER = workflow.resource_settings.cores is None or workflow.remote_exec

try:
    CAMPAIGN = make_campaign(config)
    # `--resources gpu=N` sets how many GPUs to share; the default is all of this machine's. A cluster's
    # scheduler knows its own. Leases keep jobs that start together on different GPUs.
    GPUS = workflow.global_resources.get("gpu").value
    if GPUS is None and not CLUSTER and (GPUS := usable_gpus(CAMPAIGN)) is not None:
        workflow.register_resource("gpu", GPUS)
    ALLOCATION = Allocation(CAMPAIGN, None if CLUSTER else workflow.cores, GPUS)
    ALLOCATION.check(can_use_nodes=workflow.resource_settings.nodes is not None)
except UserError as error:
    refuse(error)

# Jobs on this machine are forks of servers with their imports done. CUDA does not survive a fork.
FORKS = ForkServers(
    ["workflow.analysis", *(["trainer.launch"] if CAMPAIGN.execution.device == "cpu" else [])]
)
JOB_ENVIRONMENT = {
    "PYTHONSAFEPATH": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
}

# A failed job repeats the one line of its long log that gives the reason. A job that was stopped, and is to
# be retried, ends with status 75. Snakemake deletes the log before the next try, so a copy is kept.
shell.prefix(
    f"export PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(ROOT))}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; "
    'set -euo pipefail; say_why() {{ cat "$1" >> "${{1%.log}}.earlier.log" || true;'
    " if grep -a '^error:' \"$1\" | sort -u >&2; then return 1; fi;"
    " if grep -a '^stopped:' \"$1\" | sort -u >&2; then return 75; fi;"
    ' echo "error: unexpected, $1 ends with: $(tail -n 1 "$1")" >&2; return 1; }}; '
)

CONFIG = CAMPAIGN.config
EXPERIMENTS_FILE = str(CAMPAIGN.experiments_file)
RESULTS = str(CONFIG.results)
ALL_RUNS = CAMPAIGN.all_runs
EXPERIMENTS = [*CAMPAIGN.runs_by_experiment]
AVAILABLE_FIGURES = CAMPAIGN.available_figures
# A change of this code remakes tables, figures and verdicts, and trains nothing.
ANALYSIS_SOURCES = sorted(map(str, SOURCE.glob("workflow/analysis/**/*.py")))


wildcard_constraints:
    dataset="|".join(DATASETS),
    experiment="|".join(EXPERIMENTS),
    figure="|".join([*FIGURES, THEORY]),
    run=r"[\w.-]+",
    checkpoint="|".join(map(re.escape, CAMPAIGN.downloads)) or "none",


def run_inputs(wildcards):
    run = CAMPAIGN.runs[wildcards.run]
    if isinstance(run.start, RunSpec):
        return CAMPAIGN.betons(run) | {"start": CAMPAIGN.model_file(run.start)}
    # The SHA-256 of a published start point is a parameter, so a merely newer file repeats nothing.
    start = {} if run.start is None else {"start": ancient(str(run.start.path))}
    return CAMPAIGN.betons(run) | start


def figure_files(figure):
    """Name a figure's files; where the scale has no experiment for it, refuse to make them."""
    if figure in AVAILABLE_FIGURES:
        return multiext(f"{RESULTS}/figures/{figure}", ".png", ".pdf", ".csv")
    return lambda wildcards: refuse(CAMPAIGN.why_unavailable(figure))
