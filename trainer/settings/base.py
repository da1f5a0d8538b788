"""What all settings share: closed, frozen, each field with its help text and group."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainer.errors import CREDENTIALS

# Options in --help are grouped by these titles, in this order.
Group = Literal[
    "download", "start", "sharpness", "clients", "optimizer", "run", "model", "data", "image files",
    "schedule", "interruptions", "wandb",
]  # fmt: skip
GROUPS: tuple[Group, ...] = get_args(Group)


def setting(
    default: Any, help: str, group: Group, *, affects_results: bool = True, **bounds: Any
) -> Any:
    """A field with its help text; ``affects_results``: it decides a run's numbers, and thus its id.

    A function as ``default`` derives it from the settings declared before (a dict).
    """
    extra: dict[str, Any] = {"group": group, "affects_results": affects_results}
    given = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**given, description=help, json_schema_extra=extra, **bounds)


class Settings(BaseModel):
    """Base of all settings: frozen, closed (unknown keys are refused), finite numbers only."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    @model_validator(mode="before")
    @classmethod
    def _none_is_absent(cls, values: Any) -> Any:
        """``--resume-pth None`` means none, as in the authors' scripts."""
        if isinstance(values, dict):
            return {k: None if v == "None" else v for k, v in values.items()}
        return values

    @model_validator(mode="before")
    @classmethod
    def _no_passwords(cls, values: Any) -> Any:
        """They would be kept in a run's settings, logs and provenance."""
        if isinstance(values, dict):
            for name, value in values.items():
                if isinstance(value, str) and CREDENTIALS.search(value):
                    raise ValueError(
                        f"{name}: a URL with a user or password in it would be written to files; "
                        "get what it leads to yourself and give its place"
                    )
        return values

    @model_validator(mode="before")
    @classmethod
    def _is_what_it_seems(cls, values: Any) -> Any:
        """Pydantic would take true for 1; and not every text can name a file or be printed."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and name in _without_truth_values(cls):
                raise ValueError(
                    f"{name}: cannot be {str(value).lower()} (YAML reads yes and on as true, no "
                    "and off as false); give a number, or put the word in quotes"
                )
            no_text = isinstance(value, str | Path) and not is_text(str(value))
            if no_text and name in cls.model_fields:
                raise ValueError(f"{name}: {str(value)!r} is no text; remove what is not")
        return values

    @field_validator("*")
    @classmethod
    def _paths_are_local(cls, value: Any) -> Any:
        return local_path(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _fits_into_64_bits(self) -> Self:
        for name, value in self.__dict__.items():
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError(f"{name}: is beyond all bounds; give less than 64 bits")
        return self


@cache
def _without_truth_values(model: type[BaseModel]) -> set[str]:
    fields = model.model_fields.items()
    kinds = {name: (field.annotation, *get_args(field.annotation)) for name, field in fields}
    return {name for name, kind in kinds.items() if bool not in kind and Any not in kind}


def is_text(value: str) -> bool:
    """Whether a file can have this name and hold it in UTF-8."""
    return "\0" not in value and value.encode("utf-8", "ignore").decode("utf-8") == value


def local_path(path: Path) -> Path:
    """Expand a leading ``~`` or ``~user``, which no shell does in YAML or behind ``--option=``.

    Raises ValueError where that home directory is unknown, or no file can have the name.
    """
    try:
        expanded = path.expanduser()
        os.fsencode(expanded)
    except RuntimeError:
        raise ValueError(
            f"{str(path)!r} is in a home directory that is unknown; give the path without ~"
        ) from None
    except UnicodeEncodeError:
        raise ValueError(
            f"{str(path)!r} names no file in this locale's {sys.getfilesystemencoding()}; "
            "set LC_ALL=C.UTF-8, or rename it"
        ) from None
    return expanded


def changed(settings: Settings, *names: str) -> list[str]:
    """List those of ``names`` whose value is not the default."""
    fields = type(settings).model_fields
    return [name for name in names if getattr(settings, name) != fields[name].default]


def known(kind: str, name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise ValueError(f"unknown {kind} {name!r}; choose one of {', '.join(names)}")
    return name
