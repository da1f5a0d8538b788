"""config.yaml and the experiments: what is refused and how, schemas."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.commands import ROOT, command
from tests.workflows import TINY, copy_project, edit, planned, refused
from trainer.run.build import make_schedule
from workflow.experiments import RunSpec, expand, load_experiments, start_points
from workflow.json_schemas import schemas

PAPER = ROOT / "experiments" / "paper.yaml"
SCALES = ("laptop", "extensions", "photos", "workstation", "paper", "authors")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the project, with a tiny experiment and no results."""
    folder = copy_project(tmp_path / "copy")
    (folder / "experiments" / "laptop.yaml").write_text(TINY)
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("config.yaml", "processes:", "procesess:", ["procesess", "did you mean processes"]),
        (
            "config.yaml",
            "scale: laptop",
            "scale: desk",
            ["'desk'", "extensions, laptop, paper, photos, workstation"],
        ),
        ("config.yaml", "processes: null", "processes: 3", ["3 processes", "K = 4"]),
        ("config.yaml", "threads: null", "threads: 0", ["threads", "greater than"]),
        ("config.yaml", "device: null", "device: gpu", ["device", "'cuda'", "'gpu'"]),
        ("config.yaml", "  width: 5.5", "  widht: 5.5", ["plot.widht"]),
        ("config.yaml", "wandb: null", "wandb: ofline", ["wandb", "'offline'", "'ofline'"]),
        ("experiments/laptop.yaml", "step1: 6", "stp1: 6", ["fig1a.runs[1]", "did you mean step1"]),
        ("experiments/laptop.yaml", "model: mlp", "model: mpl", ["fig1a", "'mpl'", "mlp"]),
        ("experiments/laptop.yaml", "dataset: digits", "dataset: mnist", ["'mnist'", "digits"]),
        ("experiments/laptop.yaml", "batch_size: 8", "batch_size: 7", ["not a multiple"]),
        ("experiments/laptop.yaml", "seeds: [1, 2]", "seeds: [1, 1]", ["a seed twice"]),
        ("experiments/laptop.yaml", "epochs: 2", "seed: 2", ["fig1a.phase1", "seed cannot be set"]),
        ("config.yaml", "viridis_r", "virids", ["plot", "colormap 'virids'"]),
        ("config.yaml", "sgd_color: black", "sgd_color: blak", ["plot", "sgd_color 'blak'"]),
        ("experiments/laptop.yaml", "{step1: 6}", "{step1: 1, eval_freq1: 6}", ["same run"]),
        ("experiments/laptop.yaml", "{step1: 6}", "{step1: 1, wd: 0}", ["claim 1a", "step1 > 1"]),
        ("experiments/laptop.yaml", "{step1: 1, eval_freq1: 6}", "{step1: 3}", ["step1 1 (SGD)"]),
        ("experiments/laptop.yaml", "{step1: 6}", "{h_rule: qsr, alpha: 1}",
         ["claim 1a", "step1 > 1"]),
        ("experiments/laptop.yaml", "train_subset: 100", "train_subset: 798", ["fig1a", "the 797"]),
        ("experiments/laptop.yaml", "train_subset: 100", "steps_per_epoch: 25",
         ["fig1a", "total_batch_size 32 × steps_per_epoch 25 exceeds the 797 training samples"]),
        ("experiments/laptop.yaml", "fig1a:", "fig9z:", ["fig9z"]),
        ("experiments/laptop.yaml", "title: tiny", "titel: tiny", ["fig1a.titel", "mean title?"]),
    ],
)  # fmt: skip
def test_bad_settings_are_named_before_any_job(
    checkout: Path, file: str, old: str, new: str, expected: list[str]
) -> None:
    edit(checkout / file, old, new)
    message = refused(checkout)
    assert file in message or "processes: 3" in new
    for part in expected:
        assert part in message


@pytest.mark.parametrize("name", ["{a}", "a }", "{{a}}", "a:b"])
def test_a_folder_that_snakemake_cannot_work_in_is_one_line(
    name: str, checkout: Path, tmp_path: Path
) -> None:
    folder = checkout.rename(tmp_path / name)
    message = refused(folder)
    assert repr(str(folder)) in message
    assert message.endswith("in its path; rename it")


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read_or_named(mark: str, checkout: Path) -> None:
    """Editors of other systems begin a file with one, and may write UTF-16."""
    for file in ("config.yaml", "experiments/laptop.yaml"):
        path = checkout / file
        text = path.read_text("utf-8")
        path.write_text(text, mark)
        if mark == "utf-16":
            assert f"{file}: is not UTF-8 text; check the path or save it as UTF-8" in refused(
                checkout
            )
            path.write_text(text, "utf-8")
    if mark == "utf-8-sig":
        assert planned(checkout, "fig1a")["train"] == 4


def test_the_schemas_are_those_of_the_models() -> None:
    for name, schema in schemas().items():
        text = (ROOT / "workflow" / "schemas" / name).read_text()
        assert yaml.safe_load(text) == schema, "run `make schemas`"


def test_the_shipped_files_fit_the_schemas_and_the_schemas_are_closed() -> None:
    closed = schemas()
    files = {"config.yaml": "config.schema.yaml"} | {
        f"experiments/{scale}.yaml": "experiments.schema.yaml" for scale in SCALES
    }
    for file, schema in files.items():
        content = yaml.safe_load((ROOT / file).read_text())
        jsonschema.validate(content, closed[schema])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content | {"unknown": 1}, closed[schema])
    content = yaml.safe_load((ROOT / "experiments/laptop.yaml").read_text())
    content["experiments"]["fig1a"]["phase2"]["stp1"] = 3
    with pytest.raises(jsonschema.ValidationError, match="stp1"):
        jsonschema.validate(content, closed["experiments.schema.yaml"])


def test_pilot_seeds_are_never_judged(checkout: Path) -> None:
    edit(checkout / "experiments" / "laptop.yaml", "seeds: [1, 2]",
         "seeds: [1, 2]\n    pilot_seeds: [2]")  # fmt: skip
    assert "seeds and pilot_seeds share [2]" in refused(checkout)


# Of the data sets themselves, whatever the code knows of them
TRAINING_SAMPLES = {"digits": 797, "cifar10": 50_000, "photos": 480, "imagenet": 1_281_167}


@pytest.mark.parametrize("scale", SCALES)
def test_an_epoch_has_its_samples_and_a_figure_compares_equal_numbers_of_steps(scale: str) -> None:
    loaded = load_experiments(ROOT / "experiments" / f"{scale}.yaml")
    for name, experiment in loaded.experiments.items():
        runs = expand(experiment)
        for run in [*start_points(runs), *runs]:
            s = run.settings
            there = s.train_subset or TRAINING_SAMPLES[s.dataset]
            assert s.steps_per_epoch is not None
            assert s.replacement or s.steps_per_epoch * s.num_clients * s.batch_size <= there, name
        lengths = {r.settings.total_epochs * (r.settings.steps_per_epoch or 0) for r in runs}
        assert len(lengths) == 1, name


def test_the_papers_imagenet_switch_is_its_second_decay() -> None:
    """One decay before it, and the η of the authors' script, 0.16, after it."""
    for run in expand(load_experiments(PAPER).experiments["fig1b"]):
        assert isinstance(run.start, RunSpec)
        before = make_schedule(run.start.settings, 156)
        assert before.steps == 100 * 156
        last, after = before.lr(before.steps - 1), make_schedule(run.settings, 156).lr(0)
        assert len(before.phases) == 2
        assert after == pytest.approx(0.16)
        assert after < last


def test_the_papers_scale_is_never_trained_on_a_cpu_unsaid() -> None:
    assert load_experiments(PAPER).execution.device == "cuda"


SPELLINGS = [
    "scale: my-set_2",
    'scale: "my-set_2"  # mine',
    "'scale' : 'my-set_2'",
    "? scale\n: >-\n  my-set_2",
    "{scale: my-set_2}",
    "scale: my-set_2\ntables: elsewhere",
]


def make_report(folder: Path, config: str) -> subprocess.CompletedProcess[str]:
    """``make report`` up to Snakemake, whose words it prints."""
    for file in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / file, folder / file)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "complete").touch()
    (folder / "config.yaml").write_text(config)
    return command("make", "--silent", "SNAKEMAKE=echo", "report", cwd=folder)


@pytest.mark.parametrize("target", ["status", "plan", "doctor", "costs"])
def test_make_asks_about_the_configured_scale_unless_another_is_named(target: str) -> None:
    for words, expected in (((), ""), (("SCALE=photos",), " --scale photos")):
        printed = command("make", "--just-print", "--directory", ROOT, target, *words).stdout
        asked = [line.strip() for line in printed.splitlines() if "-m workflow" in line]
        assert asked == [f"python -m workflow {target}{expected}"]


@pytest.mark.parametrize("text", SPELLINGS)
def test_make_report_asks_the_program_for_the_folder(checkout: Path, text: str) -> None:
    """config.yaml is YAML, however it is written."""
    (checkout / "experiments" / "laptop.yaml").rename(checkout / "experiments" / "my-set_2.yaml")
    done = make_report(checkout, text)
    expected = "my-set_2" + ("-from-tables" if "tables" in yaml.safe_load(text) else "")
    assert done.stdout == f"all --report results/{expected}/report.html\n", done.stderr


def test_make_report_without_such_a_scale_starts_nothing(checkout: Path) -> None:
    done = make_report(checkout, "scale: gone")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown scale 'gone'" in done.stderr
