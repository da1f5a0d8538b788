# Define what the rules share: the checked settings, and the cores and GPUs of each run.
import re
import shlex

from trainer.data.specs import DATASETS
from workflow.allocation import allocate
from workflow.campaign import make_campaign
from workflow.claims import THEORY
from workflow.earlier import drop, keep
from workflow.forks.start import start_servers
from workflow.paths import analysis_sources, source, stated_sources
from workflow.progress import show_progress, show_verdicts
from workflow.report_request import require_pages
from workflow.shell import entry_point, find_own_python, prefix

# True where jobs run elsewhere, and inside such a job. Snakemake does not tell the executor while it reads
# rules, but every executor that runs jobs here needs cores.
CLUSTER = workflow.resource_settings.cores is None or workflow.remote_exec
# `--resources gpu=N` sets how many GPUs to share; the default is all of this machine's. A cluster's
# scheduler knows its own. Leases keep jobs that start together on different GPUs.
GPUS = workflow.global_resources.get("gpu").value

with refusing():
    CAMPAIGN = make_campaign(config)
    ALLOCATION = allocate(
        CAMPAIGN,
        cores=None if CLUSTER else workflow.cores,
        gpus=GPUS,
        can_use_nodes=workflow.resource_settings.nodes is not None,
    )

if GPUS is None and ALLOCATION.gpus is not None:
    workflow.register_resource("gpu", ALLOCATION.gpus)

find_own_python()
shell.prefix(prefix().replace("{", "{{").replace("}", "}}"))

CONFIG = CAMPAIGN.config
EXPERIMENTS_FILE = str(CAMPAIGN.experiments_file)
RESULTS = str(CONFIG.results)
ALL_RUNS = CAMPAIGN.all_runs
SOURCE = source()  # prefix of the project's files as inputs of rules


wildcard_constraints:
    dataset="|".join(DATASETS),
    experiment="|".join(CAMPAIGN.runs_by_experiment),
    figure="|".join([*CAMPAIGN.figures, THEORY]),
    run=r"[\w.-]+",
    checkpoint="|".join(map(re.escape, CAMPAIGN.downloads)) or "none",


def figure_files(figure):
    """Name a figure's files; where the scale has no experiment for it, refuse to make them."""
    if figure in CAMPAIGN.available_figures:
        return multiext(f"{RESULTS}/figures/{figure}", ".png", ".pdf", ".csv")
    return lambda wildcards: refuse(CAMPAIGN.why_unavailable(figure))
