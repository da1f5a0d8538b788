"""Simulate Local SGD on two losses in the plane whose minimisers form a curve.

Many replicas run at once. A client draws one sample a step (B_loc = 1, so B = K); H = 1 is SGD.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workflow.analysis.theory.slow_sde import Array, valley_drift, valley_end

DRIFT, DIFFUSION = "drift factor", "diffusion"  # what is measured


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Simulate to about slow time ``time``, which advances by η² a step."""

    lr: float
    time: float

    def steps(self, local_steps: int) -> int:
        """Count the steps: whole rounds, at least one."""
        return max(1, round(self.time / self.lr**2 / local_steps)) * local_steps

    def end(self, local_steps: int) -> float:
        """Return the slow time after those steps."""
        return self.steps(local_steps) * self.lr**2


@dataclass(frozen=True, kw_only=True)
class Valley(Simulation):
    """Simulate L = ½(1 + x²)y², with minima at y = 0 of curvature λ = 1 + x².

    Noise is in y alone, of variance λ. As with label noise, Σ = ∇²L: nothing diffuses, and x drifts
    to the flattest minimum x = 0.
    """

    lr: float = 0.02
    time: float = 1.0
    start: float = 1.0

    def simulate(
        self, num_clients: int, local_steps: int, replicas: int, draw: np.random.Generator
    ) -> Array:
        """Return x of each replica at the end, (replicas,); y starts in SGD's stationary state."""
        curvature = 1 + self.start**2
        spread = np.sqrt(self.lr / (num_clients * (2 - self.lr * curvature)))
        shape = (replicas, num_clients)
        x = np.full(shape, self.start)
        y = np.repeat(spread * draw.standard_normal((replicas, 1)), num_clients, axis=1)
        for step in range(1, self.steps(local_steps) + 1):
            curvatures = 1 + x**2
            noise = np.sqrt(curvatures) * draw.standard_normal(shape)
            x, y = x - self.lr * x * y**2, y - self.lr * (curvatures * y + noise)
            if step % local_steps == 0:
                x[:], y[:] = x.mean(1, keepdims=True), y.mean(1, keepdims=True)
        end: Array = x[:, 0]
        return end

    def factor(self, end: float, num_clients: int, time: float) -> float:
        """Divide the drift from ``start`` to ``end`` by that of SGD in the limit η → 0."""
        return float(np.log(self.start / end) * 2 * num_clients / time)

    def predicted(self, kind: str, num_clients: int, local_steps: float, time: float) -> float:
        drift = valley_drift(kind, self.lr, local_steps, num_clients)
        return self.factor(valley_end(drift, self.start, time), num_clients, time)


@dataclass(frozen=True, kw_only=True)
class Circle(Simulation):
    """Simulate L = ½λ(r − 1)², with minima on the unit circle, and noise in both directions.

    The noise's covariance is constant in the frame of each point: normal and tangential variance 1,
    ``mixed`` between them. The angle diffuses by the tangential part; the mixed part makes it
    drift, by −``mixed``/B in slow time for SGD.
    """

    lr: float = 0.005
    time: float = 0.25
    curvature: float = 1.0
    mixed: float = 0.6

    def simulate(
        self, num_clients: int, local_steps: int, replicas: int, draw: np.random.Generator
    ) -> tuple[Array, Array]:
        """Return each replica's final angle and a control variate of mean 0, both (replicas,).

        The control is the sum of the steps' tangential noise over the radius: nearly all of the
        angle's variance, and none of its drift.
        """
        shape = (replicas, num_clients)
        z = np.ones(shape, dtype=complex)
        angle, control = np.zeros(replicas), np.zeros(replicas)
        rest = np.sqrt(1 - self.mixed**2)
        for step in range(1, self.steps(local_steps) + 1):
            tangential = draw.standard_normal(shape)
            normal = self.mixed * tangential + rest * draw.standard_normal(shape)
            radius = np.abs(z)
            inwards = self.lr * (self.curvature * (radius - 1) + normal)
            control -= self.lr * (tangential / radius).mean(1)
            z *= 1 - (inwards + 1j * self.lr * tangential) / radius
            if step % local_steps == 0:
                mean = z.mean(1)
                # Turn the frame with the replica, so that angles stay small.
                angle += np.angle(mean)
                z[:] = np.abs(mean)[:, None]
        return angle, control
