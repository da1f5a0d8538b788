"""Choose H, the local steps of a round, as a pure function of where the round begins."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from trainer.errors import UserError

LONGEST_ROUND = 2**53  # steps: beyond any run's end


@dataclass(frozen=True, kw_only=True)
class RoundStart:
    """Describe where a round begins: all that its H may depend on.

    ``step``: local steps taken before it, of the run's ``steps``. ``lr``: η of its first step, in
    the warm-up of the first step after it. ``local_steps``: H of its phase.
    """

    step: int
    steps: int
    lr: float
    local_steps: int


HRule = Callable[[RoundStart], int]


def constant(start: RoundStart) -> int:
    """Return the phase's own H."""
    return start.local_steps


@dataclass(frozen=True, kw_only=True)
class PostLocal:
    """Choose H = 1 before step ``switch`` and ``h_base`` after it.

    Post-local SGD, https://arxiv.org/abs/1808.07217.
    """

    switch: int
    h_base: int

    def __call__(self, start: RoundStart) -> int:
        return 1 if start.step < self.switch else self.h_base


@dataclass(frozen=True, kw_only=True)
class InversePower:
    """Choose H = max(h_base, ⌊(alpha/η)^power⌋).

    https://arxiv.org/abs/2310.14423 recommends the power 2, the Quadratic Synchronization Rule
    (equation 2), and compares it with 1 and 3.
    """

    power: int
    h_base: int
    alpha: float

    def __call__(self, start: RoundStart) -> int:
        ratio = self.alpha / start.lr if start.lr > 0 else math.inf
        # 1e-9 makes a ratio whole that only rounding keeps from being so, such as 0.3 / 0.1.
        h = math.prod([ratio] * self.power) * (1 + 1e-9)
        return max(self.h_base, math.floor(min(h, LONGEST_ROUND)))


@dataclass(frozen=True)
class OwnRule:
    """Ask a user's ``function``, named ``module:function``; it must be pure.

    Raises UserError if it fails or returns what is no H.
    """

    name: str
    function: Callable[[RoundStart], Any]

    def __call__(self, start: RoundStart) -> int:
        try:
            h = self.function(start)
        except Exception as error:
            raise UserError(
                f"h_rule {self.name} raised {type(error).__name__} ({error}) at step {start.step}; "
                "fix the function"
            ) from error
        if type(h) is not int or not 1 <= h <= LONGEST_ROUND:
            raise UserError(
                f"h_rule {self.name} returned {h!r} at step {start.step}; return an int of at "
                f"least 1 and at most {LONGEST_ROUND}"
            )
        return h


POWERS = {"inverse": 1, "qsr": 2, "cubic": 3}
RULES = ("constant", "post-local", *POWERS)


def require_rule(name: str) -> str:
    """Return ``name`` if it is a rule's or reads ``module:function``; else raise a ValueError."""
    module, _, function = name.partition(":")
    if name in RULES or all(map(str.isidentifier, [*module.split("."), function])):
        return name
    raise ValueError(
        f"unknown rule {name!r}; choose one of {', '.join(RULES)}, or your own as module:function"
    )


def own_rule(name: str) -> OwnRule:
    """Import the rule ``module:function``; raises UserError if that fails."""
    module, _, function = name.partition(":")
    try:
        imported = import_module(module)
    except Exception as error:  # whatever a user's module raises
        raise UserError(
            f"h_rule {name}: module {module} cannot be imported ({type(error).__name__}: {error}); "
            "fix it, or add its folder to PYTHONPATH"
        ) from error
    if not hasattr(imported, function):
        raise UserError(
            f"h_rule {name}: module {module} has no function {function}; check the name"
        )
    found = getattr(imported, function)
    if not callable(found):
        raise UserError(f"h_rule {name}: {function} is not a function; check the name")
    return OwnRule(name, found)
