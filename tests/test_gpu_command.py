"""What `make gpu` does around its stages: time, resuming, what it leaves out, its page."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu import call, checks, figure1a, machine, throughput
from bench.gpu.cases import DRY_RUN, ON_GPU
from bench.gpu.stages import Outcome, Site, read_outcome
from bench.measure import Record, Spread
from trainer.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("out", "state"):
        (tmp_path / name).mkdir()
    return make_site(tmp_path)


def make_site(folder: Path, *, seconds: float = 600.0, **more: Any) -> Site:
    places = {"data": folder / "data", "checkpoints": folder / "checkpoints"}
    own = {"out": folder / "out", "state": folder / "state", "dry_run": True}
    return Site(**places, **own | more, end=time.monotonic() + seconds)


def called(monkeypatch: pytest.MonkeyPatch, out: Path, **stages: Outcome) -> tuple[int, list[str]]:
    """Call the command with made-up stages; return its status and the stages that ran."""
    ran: list[str] = []

    def stage(name: str, outcome: Outcome) -> Any:
        return (lambda _: (ran.append(name), outcome)[1], 0.5)

    monkeypatch.setattr(call, "STAGES", {n: stage(n, outcome) for n, outcome in stages.items()})
    monkeypatch.setattr("sys.argv", ["bench.gpu", "--out", str(out)])
    return call.main(), ran


def test_what_is_done_is_not_repeated_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, stopped = (
        Outcome(state=state, summary=f"was {state}", left_out=["x: needs y"])
        for state in ("done", "stopped")
    )
    out = tmp_path / "out"
    assert called(monkeypatch, out, tests=done, fig1a=stopped) == (0, ["tests", "fig1a"])
    assert called(monkeypatch, out, tests=done, fig1a=done) == (0, ["fig1a"])
    page = (out / "README.md").read_text()
    assert "| tests | done | was done |" in page and "- x: needs y" in page
    assert "no GPU has run any of this" in page or torch.cuda.is_available()
    failed = Outcome(state="failed", summary="1 failed", failed=["test_a::one: 1 is not 2"])
    assert called(monkeypatch, out, tests=done, more=failed) == (1, ["more"])
    assert "- test_a::one: 1 is not 2" in (out / "README.md").read_text()


def test_an_unexpected_error_of_a_stage_fails_it_and_not_those_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Outcome(state="done", summary="was done")

    def broken(_: Site) -> Outcome:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(call, "STAGES", {"first": (broken, 0.5), "then": (lambda _: done, 0.5)})
    monkeypatch.setattr("sys.argv", ["bench.gpu", "--out", str(tmp_path / "out")])
    assert call.main() == 1
    said = capsys.readouterr()
    assert "ZeroDivisionError: a bug" in said.out and "Traceback" in said.err
    assert "then: done" in said.out and "FAILED: a stage has failed" in said.out


def test_again_removes_results_of_this_command_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done = tmp_path / "out", Outcome(state="done", summary="was done")
    called(monkeypatch, out, tests=done)
    monkeypatch.setattr("sys.argv", ["bench.gpu", "--again", "--out", str(out)])
    assert call.main() == 0
    (tmp_path / "thesis.tex").touch()
    monkeypatch.setattr("sys.argv", ["bench.gpu", "--again", "--out", str(tmp_path)])
    with pytest.raises(UserError, match="holds no results of this command"):
        call.main()
    assert (tmp_path / "thesis.tex").exists()


def test_results_of_another_torch_are_not_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    called(monkeypatch, out)
    about = json.loads((out / "machine.json").read_text())
    about["versions"]["torch"] = "1.12.1"
    (out / "machine.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="another torch"):
        called(monkeypatch, out)


def test_packages_that_are_not_there_are_named_with_what_they_cost(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "installed", lambda name: name != "ffcv")
    assert machine.describe()["missing"] == {"ffcv": machine.OPTIONAL["ffcv"]}
    monkeypatch.setattr(checks, "installed", lambda _: False)
    assert checks.run_tests(site).left_out == ["tests/gpu: needs pytest"]
    monkeypatch.setattr(figure1a, "installed", lambda name: name != "ffcv")
    [reason] = figure1a.run_figure(site).left_out
    assert "needs ffcv" in reason


def test_figure_1a_says_which_of_its_files_is_missing(site: Site, tmp_path: Path) -> None:
    on_gpu = make_site(tmp_path, dry_run=False)
    [reason] = figure1a.run_figure(on_gpu).left_out
    assert f"CIFAR-10 prepared in {site.data}" in reason
    site.data.mkdir()
    for split in ("train", "test"):
        (site.data / f"{split}.beton").touch()
    [reason] = figure1a.run_figure(on_gpu).left_out
    assert f"phase1_common.pt in {site.checkpoints}" in reason
    site.checkpoints.mkdir()
    (site.checkpoints / "phase1_common.pt").write_bytes(b"another model")
    [reason] = figure1a.run_figure(on_gpu).left_out
    assert "phase1_common.pt" in reason


def test_figure_1a_is_the_authors_two_runs_of_one_seed() -> None:
    runs = figure1a._figure()
    assert list(runs) == ["fig1a-H1", "fig1a-H600"]
    assert {run.settings.num_clients for run in runs.values()} == {32}


def test_skipped_and_failed_tests_are_counted_and_named() -> None:
    xml = """<testsuites><testsuite>
    <testcase classname="tests.gpu.test_a" name="one"/>
    <testcase classname="tests.gpu.test_a" name="two"><skipped message="needs a GPU"/></testcase>
    <testcase classname="tests.gpu.test_b" name="three"><failure message="a&#10;b"/></testcase>
    </testsuite></testsuites>"""
    assert checks._cases(xml) == [
        ("test_a::one", "passed", ""),
        ("test_a::two", "skipped", "needs a GPU"),
        ("test_b::three", "failure", "a"),
    ]


def test_tests_that_time_has_ended_are_counted_as_far_as_they_came() -> None:
    log = """
tests/gpu/test_a.py::test_one[torch.float64-serial, 1 a pass] PASSED     [ 25%]
tests/gpu/test_a.py::test_two SKIPPED (needs a GPU)                       [ 50%]
tests/gpu/test_a.py::test_three PASSED [ 75%]
tests/gpu/test_a.py::test_four """
    outcome = checks._so_far(log)
    assert outcome.state == "stopped"
    assert "after 2 passed, 0 failed, 1 skipped" in outcome.summary
    assert checks._so_far(log + "FAILED [100%]").state == "failed"


def test_a_damaged_outcome_is_none(site: Site) -> None:
    (site.out / "tests.json").write_text("{")
    assert read_outcome(site, "tests") is None


def test_no_measurement_begins_late_none_is_repeated_and_none_ends_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measured(case: Any, *what: Any) -> Record:
        name = throughput._name(case, f"limit, {what[0]}")
        return Record(
            benchmark=name, unit="", variants={}, figure_is="", figure=Spread(1.0, 1.0, 1.0, 1)
        )

    def unable(case: Any, clients: int, local_steps: int, *_: Any) -> Record:
        if local_steps == 1:
            raise torch.OutOfMemoryError("no memory for it\nand more")
        raise RuntimeError("a bug\nand more")

    monkeypatch.setattr(throughput, "_limit", measured)
    monkeypatch.setattr(throughput, "_clients", unable)
    case = DRY_RUN[0]
    done = {throughput._name(case, "limit, fp32")}
    found, *lines = throughput.records([case], CPU, done, 60.0)
    assert isinstance(found, Record)
    assert found.benchmark == throughput._name(case, "limit, bf16")
    assert lines == [
        "failed: resnet20, K = 1, H = 2: a bug",
        "left out: resnet20, K = 1, H = 1: no memory for it",
        "failed: resnet20, K = 2, H = 2: a bug",
        "left out: resnet20, K = 2, H = 1: no memory for it",
    ]
    late = list(throughput.records([case], CPU, set(), -1.0))
    assert late[0] == "left out, as time is up: resnet20, limit, fp32" and len(late) == 6


def test_what_is_not_measured_is_told_from_what_failed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(self: Site, words: Any, log: str, seconds: float) -> int:
        (self.out / log).write_text(
            "resnet56, K = 1 (x86_64)\nleft out: resnet56, K = 64: memory\n"
            "left out, as time is up: resnet50, K = 1\nfailed: resnet50, K = 8: a bug\n"
        )
        return 1

    monkeypatch.setattr(Site, "run", said)
    outcome = checks.run_benchmark(site)
    assert outcome.state == "failed" and outcome.failed == ["resnet50, K = 8: a bug"]
    assert outcome.left_out == ["resnet56, K = 64: memory", "resnet50, K = 1: time was up"]


def test_a_line_whose_writer_was_killed_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    path.write_text('{"benchmark": "a"}\n{"benchm')
    assert throughput.whole_lines(path) == ['{"benchmark": "a"}']
    assert path.read_text() == '{"benchmark": "a"}\n'
    assert throughput.whole_lines(tmp_path / "none") == []


def test_the_cases_are_the_papers_networks_with_up_to_64_clients() -> None:
    assert [(case.model, case.batch_size) for case in ON_GPU] == [
        ("resnet56", 128),
        ("resnet50", 32),
    ]
    assert sorted(ON_GPU[0].clients) == [1, 2, 4, 8, 16, 32, 64]
    for case in (*ON_GPU, *DRY_RUN):
        settings = case.settings(2, 1)
        assert (settings.num_clients, settings.data.image_size) == (2, case.image_size)
