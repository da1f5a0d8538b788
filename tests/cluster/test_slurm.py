"""Training through Slurm: the results of one machine, whatever becomes of jobs and nodes.

One file, since the machine has one Slurm: tests of a file never run side by side.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster import slurm
from tests.cluster.conftest import (
    PROFILE,
    assert_same_bits,
    for_this_cluster,
    in_a_job,
    on_slurm,
    trained_here,
    training,
    until,
)
from tests.commands import FORKED, ROOT, torchrun
from tests.conftest import more
from tests.workflows import TINY, edit

LAPTOP = (ROOT / "experiments" / "laptop.yaml").read_text().replace("  grouped: true\n", "")
GROUPED = TINY.replace("device: cpu", "device: cpu, grouped: true")
# Two runs, from random initialisation
SHORT = """
execution: {processes: 1, threads: 1, device: cpu}
experiments:
  fig2a:
    title: tiny
    seeds: [1]
    settings: {dataset: digits, model: mlp, batch_size: 8, total_batch_size: 32, train_subset: 100}
    phase2: {epochs: 4, momentum: 0.9, start_lr: 0.0005}
    runs:
      - {step1: 1, eval_freq1: 1500}
      - {step1: 6, eval_freq1: 250}
"""
LONG = SHORT.replace("epochs: 4", "epochs: 4000")  # 5 s and more
FIG2A = "results/laptop/tables/fig2a.csv"
LAUNCH = (sys.executable, "-m", "trainer.launch", "--nnodes", 2)
WORDS = (
    "--total-batch-size", 256, "--train-subset", 512, "--epochs", 20, "--step1", 3,
    "--momentum", 0.9, "--clients", "serial", "--eval-freq1", 4,
)  # fmt: skip

pytestmark = pytest.mark.slow  # it begins early


@pytest.fixture(scope="module")
def undisturbed(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_here(tmp_path_factory.mktemp("undisturbed") / "project", LONG, FIG2A)


@pytest.fixture
def there(tmp_path: Path, undisturbed: Path) -> Path:
    return for_this_cluster(tmp_path / "there", LONG)


@pytest.mark.parametrize(
    "experiments", [more(TINY), GROUPED, more(LAPTOP)], ids=["jobs", "groups", "laptop"]
)
def test_tables_are_those_of_one_machine(cluster: None, tmp_path: Path, experiments: str) -> None:
    here = trained_here(tmp_path / "here", experiments, "fig1a")
    there = for_this_cluster(tmp_path / "there", experiments)
    done = on_slurm(there, "fig1a")
    assert done.returncode == 0, done.stderr
    assert "has been submitted with SLURM jobid" in done.stderr
    assert re.search(r"\] (\d+) of \1 runs done: ", done.stderr)
    table = "results/laptop/tables/fig1a.csv"
    assert (there / table).read_bytes() == (here / table).read_bytes()
    assert (there / "results/laptop/figures/fig1a.png").exists()


@pytest.mark.exhaustive
def test_a_job_that_is_cancelled_goes_on_in_the_next(there: Path, undisturbed: Path) -> None:
    with training(there, FIG2A, "checkpoint_every=100") as run:
        subprocess.run(["scancel", run.job], check=True)
        run.finish()
    assert run.starts == 2
    assert_same_bits(undisturbed, there, "runs")


@pytest.mark.exhaustive
def test_ctrl_c_cancels_jobs_and_the_next_call_goes_on(there: Path, undisturbed: Path) -> None:
    with training(there, FIG2A, "checkpoint_every=100") as run:
        run.snakemake.send_signal(signal.SIGINT)
        assert run.snakemake.wait(60) != 0
    jobs = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True)
    assert not jobs.stdout or "CG" in jobs.stdout
    done = on_slurm(there, "--config", "checkpoint_every=100", "--", FIG2A)
    assert done.returncode == 0, done.stderr
    assert run.starts == 2
    assert_same_bits(undisturbed, there, "runs")


def test_a_job_whose_node_goes_down_goes_on_on_the_other(there: Path, undisturbed: Path) -> None:
    with training(there, FIG2A, "checkpoint_every=0.01") as run:
        words = ["squeue", "--noheader", f"--jobs={run.job}", "--format=%N"]
        node = subprocess.run(words, capture_output=True, text=True).stdout.strip()
        with slurm.down(node):
            run.finish()
    assert "NODE_FAIL" in run.said
    assert run.starts == 2
    assert_same_bits(undisturbed, there, "runs")


@pytest.mark.exhaustive
def test_a_job_stops_before_its_time_is_up_and_goes_on(cluster: None, tmp_path: Path) -> None:
    """A minute, Slurm's least, for runs that take more."""
    experiments = SHORT.replace("epochs: 4", "epochs: 60000")
    here = trained_here(tmp_path / "here", experiments, FIG2A)
    there = for_this_cluster(tmp_path / "there", experiments)
    edit(there / PROFILE, "runtime: 240\n    mem_mb: 500", "runtime: 1\n    mem_mb: 500")
    with training(there, FIG2A, "checkpoint_every=100") as run:
        log = there / "results" / "laptop" / "logs" / f"{run.progress.name}.log"
        words = "stopped: the Slurm job ends soon; saved at step"
        until(lambda: words in log.read_text(), run.snakemake)
        run.finish(400)
    assert run.starts >= 2
    assert_same_bits(here, there, "runs")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("nodes", "per_node"), [(1, 2), (2, 1)])
def test_a_job_gets_a_gpu_for_each_process(
    cluster: None, tmp_path: Path, nodes: int, per_node: int
) -> None:
    """As far as Slurm knows, there are GPUs; PyTorch finds none, and says so."""
    there = for_this_cluster(tmp_path / "there", SHORT)
    config = ("device=cuda", "gpu_model=fake", "processes=2", f"nodes={nodes}")
    done = on_slurm(there, "--retries", 0, "--config", *config, "--", FIG2A)
    assert done.returncode
    logs = [log.read_text() for log in there.glob("results/laptop/logs/*K4*.log")]
    assert len(logs) == 2
    assert all("error: device cuda: no CUDA device is available" in log for log in logs)
    words = ["squeue", "--states=all", "--noheader", "--format=%i"]
    jobs = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    for job in sorted(jobs, key=int)[-2:]:
        said = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
        assert f"=gres:gpu:fake:{per_node}\n" in said.stdout
        assert f"NumNodes={nodes} " in said.stdout


def test_a_run_knows_when_its_job_ends(cluster: None) -> None:
    """5 % before the 5 minutes are over."""
    asked = "import time, trainer.distributed.slurm as s; print(s.stop_time() - time.time())"
    status, said = in_a_job([sys.executable, "-c", asked], nodes=1)
    assert status == 0
    assert 270 < float(said) <= 0.95 * 300


@pytest.mark.parametrize("start", [more(("-m", "trainer")), FORKED], ids=["module", "forked"])
def test_two_nodes_compute_the_bits_of_two_processes(
    cluster: None, digits: Path, tmp_path: Path, start: Sequence[object]
) -> None:
    words = ("train", "--data-pth", digits, *WORDS, "--processes", 2, "--log-pth")
    launch = (*LAUNCH, "--nproc-per-node", 1, *start)
    status, said = in_a_job([*launch, *words, tmp_path / "nodes"])
    assert status == 0, said
    assert torchrun(2, *words, tmp_path / "here").returncode == 0
    for name in ("metrics.jsonl", "model.pt"):
        assert (tmp_path / "nodes" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_a_signal_to_the_launcher_stops_both_nodes_and_saves(
    cluster: None, digits: Path, tmp_path: Path
) -> None:
    words = ("train", "--data-pth", digits, *WORDS, "--epochs", 4000, "--log-pth", tmp_path / "run")
    launch = shlex.join(map(str, (*LAUNCH, "--nproc-per-node", 1, *FORKED, *words)))
    partial = shlex.quote(str(tmp_path / "run" / "metrics.partial.jsonl"))
    script = f"{launch} & until [ -s {partial} ]; do sleep 0.1; done; kill $!; wait $!"
    status, said = in_a_job(["bash", "-c", script])
    assert status != 0
    assert re.search(r"SIGTERM; saved at step \d+", said), said
    assert list((tmp_path / "run" / "state").glob("step=*"))


def test_an_error_is_said_and_ends_the_job_with_its_status(cluster: None, tmp_path: Path) -> None:
    words = ("train", "--data-pth", tmp_path / "nowhere", "--log-pth", tmp_path / "run", *WORDS)
    status, said = in_a_job([*LAUNCH, "--nproc-per-node", 1, *FORKED, *words])
    assert status == 2, said
    assert f"error: {tmp_path}/nowhere" in said


def test_a_run_on_fewer_nodes_than_expected_is_refused(
    cluster: None, digits: Path, tmp_path: Path
) -> None:
    """As where each node starts a torchrun of its own."""
    words = ("train", "--data-pth", digits, *WORDS, "--processes", 2, "--log-pth", tmp_path / "run")
    alone = (sys.executable, "-m", "trainer.launch", "--nproc-per-node", 1, *FORKED)
    status, said = in_a_job(["srun", "--ntasks-per-node=1", *alone, *words])
    assert status == 2, said
    assert "processes is 2, but 1 started" in said
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_job_with_too_few_nodes_is_refused(cluster: None) -> None:
    status, said = in_a_job([*LAUNCH, "-m", "trainer"], nodes=1)
    assert status == 2
    assert "error: --nnodes 2: the Slurm job has 1 node(s); ask for more (--nodes)" in said


@pytest.mark.exhaustive
def test_a_figure_on_two_nodes_has_the_table_of_one(cluster: None, tmp_path: Path) -> None:
    here = trained_here(tmp_path / "here", SHORT, "--config", "processes=2", "--", FIG2A)
    there = for_this_cluster(tmp_path / "there", SHORT)
    done = on_slurm(there, "--config", "processes=2", "nodes=2", "--", FIG2A)
    assert done.returncode == 0, done.stderr
    assert (there / FIG2A).read_bytes() == (here / FIG2A).read_bytes()
