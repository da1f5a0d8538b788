"""What all settings share: closed, frozen, each field with its help text and group."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainer.errors import CREDENTIALS


def setting(default: Any, help: str, group: str, *, science: bool = True, **bounds: Any) -> Any:
    """A field with its help text; ``science`` settings decide a run's numbers and identity.

    A function as ``default`` derives it from the settings declared before (a dict).
    """
    extra: dict[str, Any] = {"group": group, "science": science}
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


def known(kind: str, name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise ValueError(f"unknown {kind} {name!r}; choose one of {', '.join(names)}")
    return name
