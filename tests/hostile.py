"""Values for settings, drawn from the models that declare them: those that fit, and all others.

The same ones every time; ``HOSTILE=10`` draws ten times as many, others at each call.
"""

from __future__ import annotations

import os
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainer.settings.base import Settings

MORE = int(os.environ.get("HOSTILE", "0"))
HUGE = [2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), -(2**63) - 1]
TINY = [5e-324, 1e-300, 1e-30, 1e-9]
Strategy = st.SearchStrategy[Any]

numbers: Strategy = st.one_of(
    st.integers(-3, 5),
    st.sampled_from(HUGE),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([*TINY, 1e300, 1.7e308, -0.0]),
)
texts: Strategy = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(codec=None), max_size=6),  # lone surrogates, too
    st.sampled_from([
        "", " ", "None", "none", "null", "~", "nan", "inf", "-inf", "1e400", "1e3", "0x10", "010",
        "1_0", "1:30", "yes", "no", "true", "\0", "\x1b[2J", "a\nb", "x" * 5000, "9" * 5000, "/",
        "..", "{", "[{", "- 1", "[{epochs: 1}]", "[{epochs: 1, local_steps: 2}]", "--seed", "-1",
        "é", "\u2028", "\ud800", "%s", "{0}", "$(x)", "https://", "https://[", "://", "http://x",
    ]),
)  # fmt: skip
things: Strategy = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts, st.dates(), st.binary(max_size=4)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | numbers, inner, max_size=3),
    max_leaves=6,
)


def examples(count: int) -> settings:
    return settings(
        max_examples=count * max(1, MORE),
        derandomize=MORE == 0,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def fitting(field: FieldInfo) -> Strategy:
    """Values of the field's type within its bounds, their limits and beyond all reason among them.

    They may contradict those of other fields.
    """
    bounds = {
        key: getattr(constraint, key)
        for constraint in field.metadata
        for key in ("ge", "gt", "le", "lt")
        if getattr(constraint, key, None) is not None
    }
    return _of_type(field.annotation, bounds)


def _of_type(annotation: Any, bounds: dict[str, float]) -> Strategy:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return st.one_of([_of_type(each, bounds) for each in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (tuple, list):
        return st.lists(_of_type(arguments[0], {}), min_size=1, max_size=3)
    if origin is dict:
        parts = [_of_type(argument, {}) for argument in arguments]
        return st.dictionaries(*parts, max_size=3)
    if annotation is int:
        return _integers(bounds)
    if annotation is float:
        return _floats(bounds)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return fitting_some(annotation)
    simple: dict[Any, Strategy] = {
        bool: st.booleans(),
        str: st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
        Path: st.sampled_from([Path("nowhere"), Path("a b"), Path("é"), Path("/dev/null/x")]),
        types.NoneType: st.none(),
        Any: things,
    }
    return simple[annotation]


def _integers(bounds: dict[str, float]) -> Strategy:
    low = int(bounds.get("ge", bounds.get("gt", -1) + 1))
    high = int(bounds.get("le", bounds.get("lt", 2**63) - 1))
    return st.integers(low, min(low + 9, high)) | st.sampled_from([low, high])


def _floats(bounds: dict[str, float]) -> Strategy:
    low, high = (
        bounds.get("ge", bounds.get("gt", -1.0)),
        bounds.get("le", bounds.get("lt", 1.7e308)),
    )
    ends = {"exclude_min": "gt" in bounds, "exclude_max": "lt" in bounds}
    usual = st.floats(low, min(low + 1, high), **ends)
    return st.one_of(usual, usual, st.floats(low, high, **ends))


@st.composite
def fitting_some(draw: st.DrawFn, model: type[BaseModel]) -> dict[str, Any]:
    """Draw a mapping with all required fields and some others."""
    fields = model.model_fields
    names = draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=4))
    required = [name for name, field in fields.items() if field.is_required()]
    return {name: draw(fitting(fields[name])) for name in dict.fromkeys([*required, *names])}


def hostile(model: type[Settings]) -> Strategy:
    """One field of ``model`` with any value, as (name, value)."""
    return st.sampled_from(sorted(model.model_fields)).flatmap(
        lambda name: st.tuples(st.just(name), things | fitting(model.model_fields[name]))
    )
