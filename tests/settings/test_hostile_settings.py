"""Check that any value of any setting is accepted, or refused in one line that names it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import examples, fitting_some, hostile, texts, things
from tests.workflows import TINY
from trainer.__main__ import COMMANDS, main
from trainer.errors import UserError
from trainer.settings.base import Settings, is_text
from trainer.settings.cli import option, validated
from trainer.settings.run import RunSettings
from trainer.settings.yaml import parse_yaml, read_yaml
from workflow.config import Config, load_config
from workflow.experiments import load_experiments

DIGEST = "0" * 64
REQUIRED = {"download": {"url": "https://x.org/a.pt", "sha256": DIGEST}}


def assert_stays(taken: Settings) -> None:
    """Assert that accepted settings are accepted again unchanged, as from settings.json."""
    assert validated(type(taken), taken.model_dump()) == taken


def refused(error: UserError, *names: str) -> None:
    """Assert that ``error`` is one printable line that contains one of ``names``."""
    said = str(error)
    assert said.isprintable()
    assert any(name in said or option(name) in said for name in names), said


@pytest.mark.parametrize("command", COMMANDS)
@given(data=st.data())
@examples(150)
def test_any_value_is_taken_or_refused_by_name(command: str, data: st.DataObject) -> None:
    model = COMMANDS[command].settings
    name, value = data.draw(hostile(model))
    try:
        assert_stays(validated(model, REQUIRED.get(command, {}) | {name: value}, spell=option))
    except UserError as error:
        refused(error, name)


@pytest.mark.parametrize("command", COMMANDS)
@given(data=st.data())
@examples(100)
def test_any_values_are_taken_or_refused_by_a_name(command: str, data: st.DataObject) -> None:
    model = COMMANDS[command].settings
    values = data.draw(
        fitting_some(model) | st.dictionaries(texts.filter(is_text), things, max_size=4)
    )
    try:
        assert_stays(validated(model, values, spell=option))
    except UserError as error:
        if set(values) - set(model.model_fields):
            assert str(error).startswith("unknown setting")
        else:
            refused(error, *model.model_fields)


@given(data=st.data())
@examples(150)
def test_any_word_on_the_command_line_is_taken_or_refused(
    data: st.DataObject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run commands without data: those with valid settings fail for lack of it."""
    command = data.draw(st.sampled_from(["train", "beton"]))
    name, value = data.draw(hostile(COMMANDS[command].settings))
    words = [option(name), str(value), *data.draw(st.lists(texts, max_size=2))]
    if data.draw(st.booleans()):
        words = [f"{option(name)}={value}"]
    words += ["--data-pth", str(tmp_path / "gone")]
    if command == "train":
        words += ["--log-pth", str(tmp_path / "log")]
    assert main([command, *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and line.isprintable()


@given(text=st.text() | texts | st.binary().map(lambda b: b.decode("latin-1")) | st.from_regex(
    r"(a|\*a|&a|!!int|- |\? |: |\n|  |'|\"|\[|\]|\{|\}|,|<<: |0|1|\.|e|yes|2020-02-30|%|@|\|)*",
    fullmatch=True,
))  # fmt: skip
@examples(300)
def test_any_text_is_yaml_or_not(text: str) -> None:
    try:
        parse_yaml(text)
    except ValueError as error:
        assert str(error)


def as_yaml(values: Any, file: Path) -> Path:
    """Write ``values`` to ``file``, or a stand-in where YAML cannot express them."""
    try:
        file.write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    except (yaml.YAMLError, UnicodeEncodeError):
        file.write_text("scale: desk")
    return file


@given(change=hostile(RunSettings))
@examples(100)
def test_any_value_in_a_file_is_taken_or_refused(change: tuple[str, Any], tmp_path: Path) -> None:
    name, value = change
    file = as_yaml({name: value}, tmp_path / "run.yaml")
    try:
        assert_stays(validated(RunSettings, read_yaml(file), spell=option))
    except UserError as error:
        refused(error, name, "run.yaml", "scale")


@given(change=hostile(Config))
@examples(100)
def test_any_value_in_config_yaml_is_taken_or_refused(change: tuple[str, Any]) -> None:
    name, value = change
    try:
        assert_stays(load_config({name: value}))
    except UserError as error:
        refused(error, name)


def places(content: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each value in nested mappings and lists."""
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield (*here, key)
            yield from places(content[key], (*here, key))


EXPERIMENTS = yaml.safe_load(TINY)


@given(place=st.sampled_from(list(places(EXPERIMENTS))), value=things)
@examples(200)
def test_any_value_in_experiments_is_taken_or_refused(
    place: tuple[Any, ...], value: Any, tmp_path: Path
) -> None:
    content = copy.deepcopy(EXPERIMENTS)
    *parents, key = place
    parent = content
    for each in parents:
        parent = parent[each]
    parent[key] = value
    file = as_yaml(content, tmp_path / "laptop.yaml")
    try:
        assert_stays(load_experiments(file))
    except UserError as error:
        refused(error, "laptop.yaml")
