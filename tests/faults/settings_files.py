"""Damaged files of settings: a run's own, config.yaml, and the experiments."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests import workflows
from tests.faults import betons
from tests.faults.cases import Command, Kind, snakemake, trainer

RUN_FILE, CONFIG = Path("run.yaml"), Path("config.yaml")
EXPERIMENTS = Path("experiments/laptop.yaml")
RUN = trainer(
    "train", "--config", RUN_FILE, "--data-pth", "data", "--log-pth", "log", "--out", "out"
)  # fmt: skip
PREPARE = snakemake("--cores", 1, "resources/digits/train.npz")
PLAN = snakemake("--dry-run", "fig1a")
SETTINGS = """\
clients: serial
batch_size: 8
total_batch_size: 32
train_subset: 160
epochs: 1
start_lr: 0.01
"""
BILLION = "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
# What no file of settings may hold, and what must be said of it beside the file's name
NOT_SETTINGS = {
    "empty": (b"", "`setting: value`"),
    "of comments alone": (b"# nothing\n", "`setting: value`"),
    "a list": (b"- scale\n- laptop\n", "`setting: value`"),
    "a word": (b"laptop", "`setting: value`"),
    "keys of numbers": (b"1: 2\n", "`setting: value`"),
    "not YAML": (b"scale: [laptop\n", "line 2"),
    "indented by tabs": (b"plot:\n\twidth: 3\n", "line 2"),
    "a doubled key": (b"epochs: 1\nepochs: 2\n", "epochs appears twice"),
    "a billion laughs": (BILLION.encode(), "aliases"),
    "an alias to itself": (b"a: &a [*a]\n", "itself"),
    "an alias to nothing": (b"a: *b\n", "line 1"),
    "binary": (bytes(range(256)), "UTF-8"),
    "control characters": (b"epochs: \x07\n", "YAML"),
    "in UTF-16": ("epochs: 1\n".encode("utf-16"), "UTF-8"),
    "huge": (b"epochs: 1 # " + b"x" * 2**24, "larger than"),
    "nested without end": (b"a: " + b"[" * 100_000, "nested"),
    "code": (b"a: !!python/object/apply:os.system ['touch ran']\n", "line 1"),
    "two documents": (b"epochs: 1\n---\nepochs: 2\n", "line 2"),
    "a date that is none": (b"epochs: 2023-13-45\n", "month"),
    "a tag that fits not": (b"epochs: !!int many\n", "many"),
    "an octal number": (b"epochs: 010\n", "ambiguous"),
    "a number of base 60": (b"epochs: 1:30\n", "ambiguous"),
    "a number of 5,000 digits": (b"epochs: " + b"9" * 5000, "5000 digits"),
}


def make_run(folder: Path) -> None:
    betons.make(folder)
    (folder / RUN_FILE).write_text(SETTINGS)


def make_project(folder: Path) -> None:
    folder.rmdir()
    workflows.copy_project(folder)
    (folder / EXPERIMENTS).write_text(workflows.TINY)


OF_A_RUN = Kind("--config", make_run)
OF_THE_WORKFLOW = Kind("workflow", make_project, "resources/*/*.npz")


def holding(content: bytes, file: Path, command: Command, folder: Path) -> Command:
    (folder / file).write_bytes(content)
    return command


for what, (content, said) in NOT_SETTINGS.items():
    OF_A_RUN.add(what, partial(holding, content, RUN_FILE, RUN), str(RUN_FILE), said)
for what in ("empty", "a list", "not YAML", "indented by tabs", "a doubled key",
             "a billion laughs", "binary", "huge"):  # fmt: skip
    content, said = NOT_SETTINGS[what]
    OF_THE_WORKFLOW.add(what, partial(holding, content, CONFIG, PLAN), str(CONFIG), said)


def edited(old: str, new: str, file: Path, command: Command, folder: Path) -> Command:
    workflows.edit(folder / file, old, new)
    return command


OLD = "epochs: 1\n"
for new, *says in (
    ("epoch: 1\n", "epoch", "did you mean --epochs?"),
    ("epochs: 0\n", "epochs", "greater than"),
    ("epochs: -3\n", "epochs", "greater than"),
    ("epochs: many\n", "epochs", "'many'"),
    ("epochs: yes\n", "epochs", "true"),
    ("epochs: no\n", "epochs", "false"),
    ("epochs: 1.5\n", "epochs", "1.5"),
    ("epochs: [1]\n", "epochs", "[1]"),
    ("epochs: {a: 1}\n", "epochs", "{'a': 1}"),
    ("epochs: .inf\n", "epochs", "finite"),
    ("epochs: 1.0e+30\n", "epochs", "exceeded maximum size"),
    (f"epochs: {2**63}\n", "epochs", "64 bits"),
    ("epochs: 1e0\n", "epochs", "'1e0'"),
    ("epochs: 2023-01-01\n", "epochs", "date"),
    ("epochs: null\n", "epochs", "None"),
    ("wd: .nan\n", "wd", "finite"),
    ("wd: .inf\n", "wd", "finite"),
    ("wd: no\n", "wd", "false"),
    ("model: no\n", "model", "false"),
    ('train_pth: "a\\0b"\n', "line 5", "not text"),
    ('model: "mlp\\n"\n', "model", "mlp"),
    ("schedule: 3\n", "schedule", "3"),
    ("schedule: [{epochs: yes}]\n", "schedule", "true"),
    ("? [1, 2]\n: 3\n", "run.yaml", "line 5"),
):
    name = f"it says {new.strip()!r}"
    OF_A_RUN.add(name, partial(edited, OLD, new, RUN_FILE, RUN), *says)
for new in ('epochs: "1"\n', "epochs: 1.0\n", "epochs: +1 # one\n",
            "aug: yes\nepochs: 1\n", "momentum: 0\nepochs: 1\n", "resume_pth: None\nepochs: 1\n",
            "schedule: [{epochs: 1}]\n"):  # fmt: skip
    OF_A_RUN.add(f"it says {new.strip()!r}", partial(edited, OLD, new, RUN_FILE, RUN))
OF_A_RUN.add("with a byte order mark",
             partial(holding, b"\xef\xbb\xbf" + SETTINGS.encode(), RUN_FILE, RUN))  # fmt: skip
OF_A_RUN.add("with line ends of Windows",
             partial(holding, SETTINGS.replace("\n", "\r\n").encode(), RUN_FILE, RUN))  # fmt: skip


@OF_A_RUN.refused(str(RUN_FILE), "no such file", "check the path")
def missing(folder: Path) -> Command:
    (folder / RUN_FILE).unlink()
    return RUN


@OF_A_RUN.refused(str(RUN_FILE), "is a directory", "check the path")
def a_directory(folder: Path) -> Command:
    (folder / RUN_FILE).unlink()
    (folder / RUN_FILE).mkdir()
    return RUN


@OF_A_RUN.refused("/dev/zero", "larger than")
def a_device_without_end(folder: Path) -> Command:
    return trainer("train", "--config", "/dev/zero")


@OF_A_RUN.refused("too long", "check the path")
def a_name_that_is_too_long(folder: Path) -> Command:
    return trainer("train", "--config", "x" * 300)


for old, new, *says in (
    ("processes: null", "processes: yes", "processes", "true"),
    ("processes: null", "processes: .nan", "processes"),
    ("device: null", "device: no", "device", "false"),
    ("  width: 5.5", "  width: -5.5", "plot.width", "greater than"),
    ("  width: 5.5", "  width: .inf", "plot.width", "finite"),
):
    damage = partial(edited, old, new, CONFIG, PLAN)
    OF_THE_WORKFLOW.add(f"it says {new.strip()!r}", damage, str(CONFIG), *says)
OF_THE_WORKFLOW.add(
    "with words for numbers", partial(edited, "processes: null", "processes: '1'", CONFIG, PREPARE)
)


@OF_THE_WORKFLOW.refused(str(CONFIG), "no such file", "check the path")
def config_missing(folder: Path) -> Command:
    (folder / CONFIG).unlink()
    return PLAN


OF_THE_WORKFLOW.add(
    "experiments that are not YAML",
    partial(holding, NOT_SETTINGS["not YAML"][0], EXPERIMENTS, PLAN),
    str(EXPERIMENTS),
    "line 2",
)
OF_THE_WORKFLOW.add(
    "experiments of a seed that is none",
    partial(edited, "seeds: [1, 2]", "seeds: [1, yes]", EXPERIMENTS, PLAN),
    str(EXPERIMENTS),
    "fig1a.seeds",
)
