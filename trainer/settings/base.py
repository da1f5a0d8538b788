"""Define what all settings share: closed and frozen models, help texts, groups."""

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from trainer.errors import CREDENTIALS

# Options in --help are grouped by these titles, in this order.
Group = Literal[
    "download", "start", "sharpness", "clients", "optimizer", "run", "model", "data", "image files",
    "schedule", "interruptions", "wandb",
]  # fmt: skip
GROUPS: tuple[Group, ...] = get_args(Group)


def setting(
    default: Any,
    group: Group,
    *,
    help: str | None = None,
    affects_results: bool = True,
    **bounds: Any,
) -> Any:
    """Declare a setting, whose help text is the string below it, or ``help``.

    One that ``affects_results`` decides a run's numbers and enters its id. A function as
    ``default`` derives it from the dict of the settings declared before.
    """
    extra: dict[str, Any] = {"group": group, "affects_results": affects_results}
    given = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**given, description=help, json_schema_extra=extra, **bounds)


# Declares a setting that no number of a run depends on.
execution_setting = partial(setting, affects_results=False)


class Settings(BaseModel):
    """Hold settings: frozen, closed (unknown keys are refused), finite numbers only."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _read_plain_values(cls, values: Any) -> Any:
        """Refuse what pydantic would accept; read ``--resume-pth None`` as the authors' scripts do.

        It would read true as 1, and keep strings that no file can hold, and credentials, which
        settings.json, logs and provenance would repeat.
        """
        if not isinstance(values, dict):
            return values
        for name, value in values.items():
            field = cls.model_fields.get(name)
            kinds = {field.annotation, *get_args(field.annotation)} if field else {Any}
            if isinstance(value, bool) and not kinds & {bool, Any}:
                raise ValueError(
                    f"{name}: cannot be {str(value).lower()} (YAML reads yes and on as true, no "
                    "and off as false); give a number, or put the word in quotes"
                )
            text = str(value) if isinstance(value, str | Path) else ""
            if field and not is_text(text):
                raise ValueError(f"{name}: {text!r} {NOT_TEXT}; remove it")
            if CREDENTIALS.search(text):
                raise ValueError(
                    f"{name}: a URL with a user name or password would be written to files; "
                    "download the file yourself and give its path"
                )
        return {name: None if value == "None" else value for name, value in values.items()}

    @field_validator("*")
    @classmethod
    def _paths_are_local(cls, value: Any) -> Any:
        return local_path(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if message := next(self.conflicts(), None):
            raise ValueError(message)
        return self

    def conflicts(self) -> Iterator[str]:
        """Yield what is wrong between valid settings: one line that names them and the fix.

        Only the first is reported, so that a check may rely on those before it.
        """
        for name, value in self.__dict__.items():
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                yield f"{name}: does not fit into 64 bits; give a smaller number"

    def changed(self, *names: str) -> list[str]:
        """List the ``names`` whose value differs from the default, which may depend on others."""
        fields, given = type(self).model_fields, self.__dict__
        return [name for name in names if given[name] != _default(fields[name], given)]


def _default(field: FieldInfo, given: dict[str, Any]) -> Any:
    if field.default_factory is None:  # get_default would copy it, a dozen times slower
        return field.default
    return field.get_default(call_default_factory=True, validated_data=given)


NOT_TEXT = "is not text: it has a NUL character or an unpaired surrogate"


def is_text(value: str) -> bool:
    """Return whether a file can have this name and hold it in UTF-8."""
    return "\0" not in value and value.encode("utf-8", "ignore").decode("utf-8") == value


def local_path(path: Path) -> Path:
    """Expand a leading ``~`` or ``~user``, which no shell does in YAML or behind ``--option=``.

    Raises ValueError if that home directory is unknown, or no file can have the name.
    """
    try:
        expanded = path.expanduser()
        os.fsencode(expanded)
    except RuntimeError:
        raise ValueError(
            f"{str(path)!r} is in an unknown home directory; give the path without ~"
        ) from None
    except UnicodeEncodeError:
        raise ValueError(
            f"{str(path)!r} cannot be a file name in this locale's {sys.getfilesystemencoding()}; "
            "set LC_ALL=C.UTF-8 or rename the file"
        ) from None
    return expanded
