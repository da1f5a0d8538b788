"""What a campaign derives from its two files, and what its jobs get, without Snakemake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT
from tests.workflow.campaigns import PHOTOS, SHARED, campaign_folder, write
from tests.workflows import TINY
from trainer.errors import UserError
from workflow.allocation import Allocation, allocate_here
from workflow.campaign import load_campaign, make_campaign
from workflow.experiments import RunSpec
from workflow.machine import DECODERS
from workflow.paths import scales


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return campaign_folder(tmp_path, monkeypatch, TINY)


def first(runs: Mapping[str, RunSpec]) -> RunSpec:
    return next(iter(runs.values()))


def test_config_yaml_wins_over_what_a_scale_suggests(project: Path) -> None:
    write(project, TINY.replace("threads: 1", "threads: 3, retries: 2, grouped: true"))
    suggested = load_campaign([]).execution
    assert (suggested.processes, suggested.threads, suggested.retries) == (1, 3, 2)
    assert (suggested.device, suggested.wandb, suggested.nodes) == ("cpu", "disabled", 1)
    words = ["processes=4", "threads=2", "retries=0", "device=auto", "wandb=offline", "nodes=2"]
    chosen = load_campaign(words).execution
    assert (chosen.processes, chosen.threads, chosen.retries) == (4, 2, 0)
    assert (chosen.device, chosen.wandb, chosen.nodes) == ("auto", "offline", 2)
    assert chosen.grouped


def test_runs_that_figures_share_are_one_and_belong_to_the_first(project: Path) -> None:
    write(project, SHARED)
    campaign = load_campaign([])
    assert list(campaign.runs_by_experiment) == ["fig1a", "fig2e"]
    assert (len(campaign.runs), len(campaign.start_points)) == (2 * 3, 2)
    assert len(campaign.jobs) == len(campaign.all_runs) == 8
    assert [len(jobs) for jobs in campaign.jobs_by_experiment.values()] == [6, 6]
    groups = list(campaign.wandb_groups.values())
    assert (groups.count("laptop/fig1a"), groups.count("laptop/fig2e")) == (6, 2)
    assert len(campaign.metrics_files(["fig1a", "fig2e"])) == 8
    assert len(set(campaign.metrics_files(["fig2e"]))) == 6


def test_every_job_lies_where_the_metrics_are_looked_for(project: Path) -> None:
    campaign = load_campaign([])
    files = campaign.metrics_files(["fig1a"])
    assert [str(job.folder / "metrics.jsonl") for job in campaign.jobs] == files
    job = campaign.jobs[0]
    assert campaign.model_file(job.run) == str(job.folder / "model.pt")
    job.folder.mkdir(parents=True)
    (job.folder / "metrics.jsonl").touch()
    assert load_campaign(["only_finished=true"]).metrics_files(["fig1a"]) == files[:1]
    assert [job.finished for job in campaign.jobs] == [True, *[False] * 5]


def test_figures_are_available_where_the_scale_has_an_experiment_for_them(project: Path) -> None:
    campaign = load_campaign([])
    assert campaign.available_figures == ["fig1a", "slowtime", "communication", "theory"]
    assert campaign.figure_tables("fig1a") == ["results/laptop/tables/fig1a.csv"]
    assert campaign.figure_tables("theory") == ["results/laptop/tables/theory.csv"]
    assert "experiments/laptop.yaml lacks" in campaign.why_unavailable("fig7")


def test_divergence_is_a_result_where_the_experiment_says_so(project: Path) -> None:
    assert load_campaign([]).may_diverge == set()
    write(project, TINY.replace("title: tiny", "title: tiny\n    allow_divergence: true"))
    campaign = load_campaign([])
    assert campaign.may_diverge == set(campaign.runs)


def test_a_published_start_point_is_downloaded_if_it_has_an_address(project: Path) -> None:
    begin = f"checkpoint: {{path: a/b.pt, sha256: {'a' * 64}, epoch: 1}}"
    write(project, TINY.replace("phase1: {epochs: 2}", begin))
    assert load_campaign([]).downloads == {}
    begin = begin.replace("epoch: 1}", "epoch: 1, url: 'https://example.org/b.pt'}")
    write(project, TINY.replace("phase1: {epochs: 2}", begin))
    assert list(load_campaign([]).downloads) == ["a/b.pt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["scale"], "must be KEY=VALUE"), (["plot=]"], "is not valid YAML"), (["scale=x"], "unknown")],
)
def test_overrides_that_make_no_sense_are_refused(
    project: Path, words: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_campaign(words)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fig2b", "claim 2b, rate compares learning rates; add another start_lr"),
        ("fig3a", "claim 5 compares numbers of clients; add another K"),
    ],
)
def test_an_experiment_has_what_the_papers_claims_compare(
    project: Path, name: str, message: str
) -> None:
    said = TINY.replace("fig1a", name)
    write(project, said)
    with pytest.raises(UserError, match=message):
        load_campaign([])
    write(project, f"{said}      - {{step1: 6, start_lr: 0.7}}\n")
    if name == "fig2b":
        assert len(load_campaign([]).runs) == 6


@pytest.mark.parametrize(
    "scale", ["laptop", "extensions", "workstation", "paper", "photos", "authors"]
)
def test_every_figure_of_the_scales_is_complete(
    scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert scale in scales()
    campaign = make_campaign({"scale": scale})
    shown = {name for figure in campaign.figures for name in campaign.experiments_of(figure)}
    assert shown == set(campaign.runs_by_experiment)
    allocate_here(campaign).check(can_use_nodes=True)


def allocation(cores: int | None, gpus: int | None = None, **config: Any) -> Allocation:
    return Allocation(make_campaign(config), cores, gpus)


def test_cores_are_shared_by_all_runs_at_once(project: Path) -> None:
    write(project, TINY.replace("threads: 1, ", ""))
    for cores, expected in [(1, 1), (8, 2), (64, 16)]:
        found = allocation(cores)
        assert found.threads(found.campaign.runs, next(iter(found.campaign.runs))) == expected
    two = allocation(8, processes=2)
    assert two.threads(two.campaign.runs, next(iter(two.campaign.runs))) == 2 * 1
    assert (two.at_once(4), allocation(64).at_once(4)) == (4, 4)


def test_gpus_bound_runs_at_once_unless_the_cpu_trains(project: Path) -> None:
    assert allocation(8, 2, device="auto", threads=1).at_once(6) == 2
    assert allocation(8, 2, device="cpu", threads=1).at_once(6) == 6


def test_a_start_point_of_few_clients_takes_fewer_processes_and_nodes(project: Path) -> None:
    write(project, TINY.replace("phase1: {epochs: 2}", "phase1: {epochs: 2, total_batch_size: 8}"))
    campaign = make_campaign({"processes": 4, "nodes": 2})
    start, run = first(campaign.start_points), first(campaign.runs)
    assert (campaign.processes(start), campaign.nodes(start)) == (1, 1)
    assert (campaign.processes(run), campaign.nodes(run)) == (4, 2)
    assert campaign.processes_per_node(run) == 2


def test_a_cluster_gives_each_process_the_authors_decoders_where_images_are_files(
    project: Path,
) -> None:
    write(project, PHOTOS)
    found = allocation(None, device="cuda", processes=2)
    name, run = next(iter(found.campaign.runs.items()))
    assert found.threads(found.campaign.runs, name) == 2 * (1 + DECODERS)
    assert found.divide_threads(run, 2 * (1 + DECODERS)) == (1, DECODERS)
    on_cpu = allocation(None, device="cpu", processes=2)
    assert on_cpu.threads(on_cpu.campaign.runs, name) == 2
    assert on_cpu.divide_threads(run, 2) == (1, 0)


def test_a_cluster_s_profile_decides_what_the_settings_leave_open(project: Path) -> None:
    write(project, TINY.replace("threads: 1", "grouped: true, retries: 3"))
    here, cluster = allocation(4), allocation(None)
    assert (here.retries, here.group, here.all_cores) == (3, None, 4)
    assert (cluster.retries, cluster.group, cluster.all_cores) == (None, "runs", 1)
    assert allocation(None, retries=0).retries == 0
    assert allocation(None, device="cuda").group is None


def test_slurm_is_told_how_to_divide_a_run_among_nodes(project: Path) -> None:
    one = allocation(None, device="cuda", processes=4, gpu_model="a100")
    run = first(one.campaign.runs)
    assert (one.gpus_of(run), one.gpu_model(run)) == (4, "a100")
    assert (one.several_nodes(run), one.slurm_extra(run)) == (None, None)
    two = allocation(None, device="cuda", processes=4, nodes=2, gpu_model="a100")
    assert (two.gpus_of(run), two.gpu_model(run), two.several_nodes(run)) == (None, None, 2)
    assert two.slurm_extra(run) == "--ntasks-per-node=1 --gpus-per-node=a100:2"
    cpu = allocation(None, processes=4, nodes=2)
    assert cpu.slurm_extra(run) == "--ntasks-per-node=1"


@pytest.mark.parametrize(
    ("cores", "gpus", "config", "message"),
    [
        (8, None, {"processes": 4, "nodes": 3}, "cannot be spread evenly over 3 nodes"),
        (8, None, {"processes": 4, "nodes": 2}, "2 nodes need a cluster"),
        (8, 1, {"processes": 2, "device": "auto"}, "2 processes need a GPU each and 1 can be used"),
        (8, None, {"processes": 3}, "3 processes cannot share K = 4 clients"),
    ],
)
def test_processes_that_do_not_fit_are_refused(
    project: Path, cores: int, gpus: int | None, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        allocation(cores, gpus, **config).check(can_use_nodes=False)


@pytest.mark.parametrize(
    ("cores", "can_use_nodes", "allowed"),
    [(None, False, True), (8, True, True), (8, False, False)],
)
def test_nodes_are_for_a_cluster_or_a_profile_that_has_them(
    project: Path, cores: int | None, can_use_nodes: bool, allowed: bool
) -> None:
    refusals = []
    try:
        allocation(cores, processes=4, nodes=2).check(can_use_nodes=can_use_nodes)
    except UserError as error:
        refusals.append(str(error))
    assert len(refusals) == (not allowed)
    assert all("2 nodes need a cluster" in refusal for refusal in refusals)
