"""The commands of docs/by-hand.md run as they are printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import ModuleType

from tests.commands import BIN, ROOT, command, trainer
from tests.docs.pages import FENCE
from trainer.local_sgd.h_rules import RoundStart

BLOCKS = FENCE.findall((ROOT / "docs/by-hand.md").read_text("utf-8"))


def test_one_run_by_hand(tmp_path: Path) -> None:
    """With 2 epochs of the 100."""
    lines = BLOCKS[0].replace("\\\n", " ").splitlines()
    prepare, beton, train = (shlex.split(line) for line in lines)
    for words in (prepare, beton):
        assert words[:3] == ["python", "-m", "trainer"]
        done = trainer(*words[3:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    train[train.index("--epochs") + 1] = "2"
    done = command(BIN / train[0], *train[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/by-hand/metrics.jsonl").exists()


def test_the_rule_for_h() -> None:
    [source] = [block for block in BLOCKS if "def slow" in block]
    assert re.match(r"# my_rules\.py\n", source)
    rules = ModuleType("my_rules")
    exec(source, rules.__dict__)  # noqa: S102
    early, late = (RoundStart(step=at, steps=2000, lr=0.1, local_steps=8) for at in (0, 1000))
    assert (rules.slow(early), rules.slow(late)) == (1, 8)
