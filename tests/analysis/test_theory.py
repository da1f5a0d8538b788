"""The Slow SDE's formulas against integrals and recursions; the simulation against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad

from workflow.analysis.theory.simulation import Circle, Valley
from workflow.analysis.theory.slow_sde import exact_factor, psi, slow_sde_factor

arguments = st.floats(0, 1e6)


@pytest.mark.parametrize("x", [0.0, 1e-12, 1e-6, 1e-3, 0.00999, 0.01001, 0.1, 1.0, 7.0, 60.0])
def test_psi_is_its_integral(x: float) -> None:
    """Compare ψ with x ∫₀¹ (1 − s) e^(−xs) ds, which is ψ without cancellation."""
    integral, _ = quad(lambda s: (1 - s) * math.exp(-x * s), 0, 1, epsabs=0, epsrel=1e-12)
    assert psi(x) == pytest.approx(x * integral, rel=1e-11, abs=0)


@given(arguments, st.floats(1.01, 100))
def test_psi_rises_from_0_to_1(x: float, times: float) -> None:
    low, high = psi([x, times * x])
    assert 0 <= low <= high <= 1
    assert low < high or x * times < 1e-300


@given(st.integers(1, 64), arguments)
def test_the_drift_is_between_sgds_and_k_times_it(num_clients: int, argument: float) -> None:
    assert 1 <= slow_sde_factor(argument, num_clients) <= num_clients


@pytest.mark.parametrize("pair", [(3.0, 3.0), (3.0, 0.0)])
def test_limits_of_the_exact_factor(pair: tuple[float, float]) -> None:
    assert exact_factor(0.05, 1, pair, 8) == pytest.approx(1, rel=1e-12)
    assert exact_factor(0.05, 10**9, pair, 8) == pytest.approx(8, rel=1e-6)
    limit = slow_sde_factor(1e-5 * 10**5 * sum(pair), 8)
    assert exact_factor(1e-5, 10**5, pair, 8) == pytest.approx(limit, rel=1e-4)


@pytest.mark.parametrize("pair", [(2.0, 2.0), (2.0, 0.0), (0.5, 3.0)])
@pytest.mark.parametrize("num_clients", [1, 2, 8])
@pytest.mark.parametrize("local_steps", [1, 2, 7, 60])
def test_the_exact_factor_against_the_clients_covariance(
    local_steps: int, num_clients: int, pair: tuple[float, float]
) -> None:
    """E[u_k v_l] of all clients k, l, stepped and averaged as the algorithm says, from zero."""
    lr, noise = 0.05, 0.7
    kept = math.prod(1 - lr * curvature for curvature in pair)
    average = np.full((num_clients, num_clients), 1 / num_clients)
    covariance = np.zeros((num_clients, num_clients))
    for _ in range(1 + 1500 // local_steps):
        within = 0.0
        for _ in range(local_steps):
            within += covariance[0, 0] / local_steps
            covariance = kept * covariance + lr**2 * noise * np.eye(num_clients)
        covariance = average @ covariance @ average
    sgd = lr**2 * noise / (num_clients * (1 - kept))
    expected = exact_factor(lr, local_steps, pair, num_clients)
    assert within / sgd == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("local_steps", "kind", "limit", "exact"),
    [
        (1, "sgd_limit", 0.9394, 0.93825),
        (25, "slow_sde", 0.74581, 0.74574),
        (200, "slow_sde", 0.63888, 0.63448),
    ],
)
def test_the_valley_over_time(local_steps: int, kind: str, limit: float, exact: float) -> None:
    """K = 8, η = 0.02, to t = 1 (0.96 for H = 200): the numbers of a separate simulation."""
    valley = Valley(lr=0.02, start=1.0, time=1.0)
    time = valley.end(local_steps)

    def end(kind: str) -> float:
        return math.exp(-valley.predicted(kind, 8, local_steps, time) * time / 16)

    assert end(kind) == pytest.approx(limit, abs=2e-5)
    assert end("exact") == pytest.approx(exact, abs=1e-5)
    assert end("k_fold_limit") == pytest.approx(math.exp(-time / 2), rel=1e-6)
    close(valley.simulate(8, local_steps, 300, np.random.default_rng(local_steps)), exact)


@pytest.mark.parametrize(("num_clients", "local_steps"), [(4, 1), (4, 50), (2, 200)])
def test_the_circle_drifts_and_diffuses(num_clients: int, local_steps: int) -> None:
    circle, replicas = Circle(lr=0.01, curvature=2.0, mixed=0.8, time=0.3), 600
    time = circle.end(local_steps)
    draw = np.random.default_rng([num_clients, local_steps])
    angle, control = circle.simulate(num_clients, local_steps, replicas, draw)
    sgd = -circle.mixed / num_clients * time
    factor = exact_factor(circle.lr, local_steps, (circle.curvature, 0.0), num_clients)
    close((angle - control) / sgd, float(factor))
    close(control, 0.0)
    assert (angle - control).var() < control.var() / 20
    ratio = angle.var() * num_clients / time
    assert ratio == pytest.approx(1, abs=4 * math.sqrt(2 / replicas))


def close(values: NDArray[np.float64], expected: float) -> None:
    """Assert that the mean is within four standard errors of ``expected``."""
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / math.sqrt(len(values)))


@pytest.mark.parametrize("local_steps", [1, 3])
def test_the_valleys_path_is_a_plain_loops(local_steps: int) -> None:
    valley, k, replicas = Valley(lr=0.1, time=0.06), 2, 3
    ends = valley.simulate(k, local_steps, replicas, np.random.default_rng(7))
    draw = np.random.default_rng(7)
    spread = math.sqrt(0.1 / (k * (2 - 0.1 * 2)))
    starts = spread * draw.standard_normal((replicas, 1))[:, 0]
    noise = [draw.standard_normal((replicas, k)) for _ in range(valley.steps(local_steps))]
    for replica in range(replicas):
        clients = [(1.0, float(starts[replica]))] * k
        for step, normals in enumerate(noise, start=1):
            for client, (x, y) in enumerate(clients):
                gradient = (1 + x**2) * y + math.sqrt(1 + x**2) * normals[replica, client]
                clients[client] = (x - 0.1 * x * y**2, y - 0.1 * gradient)
            if step % local_steps == 0:
                clients = [tuple(np.mean(clients, axis=0))] * k
        assert ends[replica] == pytest.approx(clients[0][0], rel=1e-12)


@pytest.mark.parametrize("local_steps", [1, 3])
def test_the_circles_path_is_a_plain_loops(local_steps: int) -> None:
    circle, k, replicas = Circle(lr=0.1, curvature=2.0, mixed=0.6, time=0.06), 2, 3
    angles, _ = circle.simulate(k, local_steps, replicas, np.random.default_rng(7))
    draw = np.random.default_rng(7)
    shape = (2, replicas, k)  # tangential, then what normal noise has of its own
    noise = [draw.standard_normal(shape) for _ in range(circle.steps(local_steps))]
    for replica in range(replicas):
        clients = [(1.0, 0.0)] * k
        for step, (tangential, own) in enumerate(noise, start=1):
            for client, (x, y) in enumerate(clients):
                across = tangential[replica, client]
                angle = math.atan2(y, x)
                along = 2.0 * (math.hypot(x, y) - 1) + 0.6 * across + 0.8 * own[replica, client]
                clients[client] = (
                    x - 0.1 * (along * math.cos(angle) - across * math.sin(angle)),
                    y - 0.1 * (along * math.sin(angle) + across * math.cos(angle)),
                )
            if step % local_steps == 0:
                clients = [tuple(np.mean(clients, axis=0))] * k
        assert angles[replica] == pytest.approx(math.atan2(clients[0][1], clients[0][0]), rel=1e-9)
