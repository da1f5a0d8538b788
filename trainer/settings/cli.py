"""Turn a settings model into a command line, and a validation failure into one line.

argparse splits words and prints the help; pydantic converts, checks and holds every default.
"""

import argparse
import difflib
import json
import shlex
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from trainer.errors import UserError
from trainer.settings.base import GROUPS, Group, Settings, local_path
from trainer.settings.yaml import read_yaml

S = TypeVar("S", bound=Settings)


class Parser(argparse.ArgumentParser):
    """Raise UserError for a bad command line, without argparse's long usage text."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def add_settings(parser: argparse.ArgumentParser, model: type[Settings]) -> None:
    """Give ``parser`` one option per field of ``model``, grouped, with type, default and bounds."""
    parser.add_argument(
        "--config",
        type=path_argument,
        metavar="FILE",
        help="YAML file with the same keys; options win",
    )
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    # Within a group, the model's own settings come before those of its bases.
    fields = sorted(
        model.model_fields.items(),
        key=lambda item: (GROUPS.index(_group(item[1])), item[0] not in model.__annotations__),
    )
    for name, field in fields:
        groups[_group(field)].add_argument(
            option(name),
            dest=name,
            default=argparse.SUPPRESS,
            metavar=_type_name(field.annotation),
            help=f"{field.description}{_default_and_bounds(field)}".replace("%", "%%"),
        )


def _group(field: FieldInfo) -> Group:
    assert field.description and isinstance(field.json_schema_extra, dict)
    return cast(Group, field.json_schema_extra["group"])


def path_argument(text: str) -> Path:
    """Convert an argument of argparse to a path, as the settings do."""
    try:
        return local_path(Path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_settings(arguments: argparse.Namespace, model: type[S]) -> S:
    """Return the settings of ``--config``, overridden by the options given.

    Raises UserError, which names the option, for an invalid value, an unknown key or an unreadable
    file.
    """
    values = vars(arguments)
    from_file = read_yaml(values["config"]) if values.get("config") else {}
    given = {name: values[name] for name in model.model_fields if name in values}
    return validated(model, {**from_file, **given}, spell=option)


def unknown_option(word: str, model: type[Settings]) -> UserError:
    """Make the error for an option that ``model`` lacks, with the nearest name."""
    near = difflib.get_close_matches(word.split("=")[0], map(option, model.model_fields), n=1)
    return UserError(
        f"unknown option {word}; {f'did you mean {near[0]}?' if near else 'remove it'}"
    )


def validated(model: type[S], values: Mapping[str, Any], *, spell: Any = str, where: str = "") -> S:
    """Return ``model(**values)``; raises UserError of one line, naming settings by ``spell``."""
    try:
        return model(**values)
    except ValidationError as failure:
        raise UserError(where + describe(failure, model, spell)) from None


def describe(failure: ValidationError, model: type[Settings], spell: Any = str) -> str:
    """Describe the first problem of ``failure`` in one line; suggest a name for an unknown key.

    Unknown keys come first: a misspelt one often goes with a required one that is missing.
    """
    problems = sorted(failure.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    *parents, name = map(str, problem["loc"] or ("",))
    path = ".".join([*parents, name])
    if problem["type"] == "extra_forbidden":
        missing = [str(p["loc"][-1]) for p in problems if p["type"] == "missing"]
        hint = "remove it"
        if near := difflib.get_close_matches(name, missing if parents else model.model_fields, n=1):
            hint = f"did you mean {near[0] if parents else spell(near[0])}?"
        return f"unknown setting {path or repr(path)}; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if not path:
        return message
    name = spell(path) if path in model.model_fields else path
    if problem["type"] in ("value_error", "missing"):
        return f"{name}: {message}"
    return f"{name}: {message[0].lower()}{message[1:]}, got {problem['input']!r}"


def options(settings: Settings, names: Sequence[str]) -> str:
    """Write the command line that sets ``names`` as in ``settings``, quoted for a shell."""
    values = settings.model_dump(mode="json")
    words = []
    for name in names:
        word = _word(values[name])
        # After a space, argparse would read a word with a leading dash as another option.
        words += [f"{option(name)}={word}"] if word.startswith("-") else [option(name), word]
    return shlex.join(words)


def option(name: str) -> str:
    """Spell a setting's name as an option of the command line."""
    return "--" + name.replace("_", "-")


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return json.dumps(value) if isinstance(value, list) else str(value)


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return "{" + ",".join(get_args(annotation)) + "}"
    if origin in (Union, types.UnionType):
        return "|".join(_type_name(a) for a in get_args(annotation) if a is not types.NoneType)
    if annotation is bool:
        return "{0,1}"
    if origin is tuple:
        return "YAML"
    return "PATH" if annotation is Path else str(annotation.__name__)


def _default_and_bounds(field: FieldInfo) -> str:
    if field.is_required():
        notes = ["required"]
    elif field.default_factory is not None:
        notes = []  # the help text describes it
    else:
        notes = [f"default {_word(field.default)}"]
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    notes += [
        f"{sign} {getattr(constraint, key)}"
        for constraint in field.metadata
        for key, sign in signs.items()
        if hasattr(constraint, key)
    ]
    return f" [{', '.join(notes)}]" if notes else ""
