"""Compute the Slow SDE's drift of Local SGD relative to SGD's.

See section 4 of https://arxiv.org/abs/2303.01215. λ_i, λ_j are eigenvalues of the Hessian on the
manifold of minimisers. In the directions i and j the noise makes SGD with total batch size B drift,
and Local SGD 1 + (K − 1)ψ(ηH(λ_i + λ_j)) times as fast. Slow time advances by η² a step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

Array = NDArray[np.float64]
SERIES_BELOW = 1e-2  # below this x, x − (1 − e⁻ˣ) loses digits


def psi(x: ArrayLike) -> Array:
    """Compute ψ(x) = (e⁻ˣ − 1 + x) / x for x ≥ 0, which rises from ψ(0) = 0 to 1."""
    x = np.asarray(x, dtype=float)
    series = x / 2 - x**2 / 6 + x**3 / 24 - x**4 / 120 + x**5 / 720
    safe = np.where(x > SERIES_BELOW, x, 1.0)
    return np.where(x > SERIES_BELOW, (np.expm1(-safe) + safe) / safe, series)


def slow_sde_factor(argument: ArrayLike, num_clients: int) -> Array:
    """Compute 1 + (K − 1)ψ(``argument``), the limit η → 0 at ``argument`` = ηH(λ_i + λ_j)."""
    return 1 + (num_clients - 1) * psi(argument)


def exact_factor(
    lr: float, local_steps: float, curvatures: tuple[ArrayLike, ArrayLike], num_clients: int
) -> Array:
    """Compute the factor at finite η, for ``curvatures`` (λ_i, λ_j), λ_i + λ_j > 0; 1 at H = 1.

    A client's deviations in i and j have covariance A[1 + (K − 1)(1 − ρᵗ)] at step t of a round
    with ρ = (1 − ηλ_i)(1 − ηλ_j), where A is SGD's; the factor is its mean over t < H, over A.
    """
    first, second = (1 - lr * np.asarray(curvature, dtype=float) for curvature in curvatures)
    rho = first * second
    remembered = (1 - rho**local_steps) / (local_steps * (1 - rho))
    return np.asarray(1 + (num_clients - 1) * (1 - remembered))


def valley_end(drift: Callable[[float], float], start: float, time: float) -> float:
    """Integrate dx/dt = −x · ``drift``(1 + x²) from ``start`` over slow ``time``; return x."""
    path = solve_ivp(
        lambda _, x: -x * drift(1 + x[0] ** 2), (0, time), [start], rtol=1e-9, atol=1e-12
    )
    return float(path.y[0, -1])


def valley_drift(
    kind: str, lr: float, local_steps: float, num_clients: int
) -> Callable[[float], float]:
    """Return −(dx/dt)/x on ``Valley`` as a function of λ = 1 + x², with B_loc = 1.

    ``kind``: slow_sde, exact (finite η), sgd_limit (ηH → 0) or k_fold_limit (ηH → ∞).
    """
    k = num_clients
    factors: dict[str, Callable[[float], float]] = {
        "slow_sde": lambda curvature: float(slow_sde_factor(2 * lr * local_steps * curvature, k)),
        "exact": lambda curvature: (
            float(exact_factor(lr, local_steps, (curvature, curvature), k))
            / (1 - lr * curvature / 2)
        ),
        "sgd_limit": lambda curvature: 1.0,
        "k_fold_limit": lambda curvature: float(k),
    }
    return lambda curvature: factors[kind](curvature) / (2 * k)
