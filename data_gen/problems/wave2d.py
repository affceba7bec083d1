"""Sound in a random medium between reflecting walls.

    p_t = -div v,    v_t = -c^2 grad p    on [0, 1]^2,    no flow through the walls

in units in which the bulk modulus is 1, so that the density is 1 / c^2. A static sound speed c and pressure pulses in a
medium at rest are mapped to waves that are bent, focused and reflected. The energy, half the integral of p^2 + |v|^2 /
c^2, and the mean pressure don't change.

As in acoustic_scattering of The Well (Ohana et al. 2024, arXiv 2412.00568), a sample has the pressure, the velocity,
and a medium of constant bulk modulus. There, media jump and two sides are open; here c is smooth and all sides reflect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from data_gen.cosine_fields import SmoothMedium, WallPulses
from data_gen.cosines import wall_derivatives
from data_gen.grids import Grid
from data_gen.solvers import chebyshev
from data_gen.spec import DatasetSpec, FieldSpec, Samples


@dataclass(frozen=True, kw_only=True)
class Wave2D:
    """Acoustic waves as a dataset: equation, laws of media and pulses, and discretisation.

    The pressure is a series of cosines, each velocity one of sines along its own axis, with products at the nodes
    (``data_gen.cosines``). The semi-discrete equation keeps its discrete energy, and is integrated by a Chebyshev
    series (``data_gen.solvers.chebyshev``), which has no limit of stability: where the step of another scheme would
    have to be shorter, it takes more terms. For smooth c the error falls faster than any power of the spacing, once the
    shortest waves are resolved. Where c is low, waves are shorter by as much.

    Attributes:
        resolution: nodes per axis, both walls included.
        interval, n_snapshots: the stored times 0, interval, 2 interval, ...
        medium: law of c.
        initial: law of the pressure at t = 0.
        time_tolerance: of the error of one interval in time, relative to the energy norm.
        inner_batch: samples solved together, for speed. It is part of the address.

    Raises:
        ValueError: a parameter is out of range; the message names it.
    """

    resolution: int = 65
    interval: float = 0.05
    n_snapshots: int = 21
    medium: SmoothMedium = field(default_factory=SmoothMedium)
    initial: WallPulses = field(default_factory=WallPulses)
    time_tolerance: float = 1e-8
    inner_batch: int = 16

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _require(self.resolution >= 4, "resolution", self.resolution, "at least 4")
        _require(0 < self.interval < np.inf, "interval", self.interval, "positive")
        _require(self.n_snapshots >= 2, "n_snapshots", self.n_snapshots, "at least 2 (the initial state is the first)")
        _require(1e-14 <= self.time_tolerance <= 0.1, "time_tolerance", self.time_tolerance, "from 1e-14 to 0.1")
        _require(self.inner_batch >= 1, "inner_batch", self.inner_batch, "at least 1")

    @property
    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            name="wave2d",
            version=self.version,
            equation="∂ₜp = −∇·v, ∂ₜv = −c² ∇p in (0, 1)²,  v·n = 0 on the walls",
            grid=_walls(self.resolution),
            times=tuple(self.interval * i for i in range(self.n_snapshots)),
            state=(
                FieldSpec("pressure", "pressure p"),
                FieldSpec("velocity_x", "velocity along x"),
                FieldSpec("velocity_y", "velocity along y"),
            ),
            static=(FieldSpec("sound_speed", "sound speed c"),),
            parameters={
                "time_tolerance": self.time_tolerance,
                **{f"medium_{name}": value for name, value in vars(self.medium).items()},
                **{f"initial_{name}": value for name, value in vars(self.initial).items()},
            },
            conserved=("mean_pressure",),
            symmetries=("reflections_and_turns_of_scalars_and_a_vector",),
            diagnostics=(
                FieldSpec("energy_drift", "largest change of the energy at any stored time, relative to it at t=0"),
                FieldSpec("n_products", "evaluations of the right-hand side"),
            ),
            reference="Ohana et al. (2024), The Well, arXiv 2412.00568, acoustic_scattering",
        )

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw media and pulses, one of each per generator, and solve to the stored times."""
        return self._simulate(rngs, 1)

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The same inputs, evaluated and solved on a grid twice as fine, to a hundredth of the tolerance in time, and
        given on the file's grid."""
        finer = _walls(self.resolution).refine(2).shape[0]
        return replace(self, resolution=finer, time_tolerance=max(self.time_tolerance / 100, 1e-14))._simulate(rngs, 2)

    def solve(
        self,
        history: NDArray[np.floating],
        static: NDArray[np.floating],
        n_steps: int,
        *,
        dtype: type[np.floating] = np.float64,
    ) -> Samples:
        """``n_steps`` snapshots that follow the last frame of ``history`` [sample, time, 3, n, n], in the medium
        ``static`` [sample, 1, n, n], on their own grid. ``dtype`` is that of the arithmetic.

        Raises:
            ValueError: a shape doesn't fit, a sound speed isn't positive, or ``n_steps`` is below 1.
        """
        n = static.shape[-1]
        if static.shape != (len(static), 1, n, n) or history.shape != (len(static), len(history[0]), 3, n, n):
            raise ValueError(
                "Wave2D.solve expected a history [sample, time >= 1, 3, n, n] and a sound speed [sample, 1, n, n], "
                f"got {history.shape} and {static.shape}."
            )
        if history.shape[1] < 1 or n_steps < 1:
            raise ValueError(f"Wave2D.solve needs a frame and n_steps >= 1, got {history.shape[1]} and {n_steps}.")
        if not (static > 0).all():
            raise ValueError(f"Wave2D.solve needs positive sound speeds, got {static.min():g}.")
        start = np.asarray(history[:, -1], dtype=dtype)
        trajectory, diagnostics = self._solve(start, np.asarray(static[:, 0], dtype=dtype), n_steps)
        return Samples(trajectory[:, :1], static, trajectory[:, 1:], diagnostics)

    def at(self, grid: Grid) -> Wave2D:
        """The same problem solved, and stored, at ``grid``'s own nodes.

        Raises:
            ValueError: the grid isn't a square grid of closed Neumann axes on the unit square.
        """
        if grid != _walls(grid.shape[0]):
            raise ValueError(f"Wave2D needs a closed Neumann grid of n x n nodes on the unit square, got {grid}.")
        return replace(self, resolution=grid.shape[0])

    def relaxed(self, factor: float) -> Wave2D:
        """The same equation and grid with a tolerance in time ``factor`` times as large, at most 0.1."""
        return replace(self, time_tolerance=min(factor * self.time_tolerance, 0.1))

    def _simulate(self, rngs: Sequence[np.random.Generator], stride: int) -> Samples:
        """Solve, and keep every ``stride``-th node."""
        n = self.resolution
        drawn = [(self.medium.draw(rng, n), self.initial.draw(rng, n)) for rng in rngs]
        speed = np.stack([medium for medium, _ in drawn])
        start = np.zeros((len(drawn), 3, n, n))
        start[:, 0] = [pulses for _, pulses in drawn]
        trajectory, diagnostics = self._solve(start, speed, self.n_snapshots - 1, stride)
        kept = speed[:, None, ::stride, ::stride]
        return Samples(trajectory[:, :1], kept, trajectory, diagnostics)

    def _solve(
        self, start: NDArray[np.floating], speed: NDArray[np.floating], n_steps: int, stride: int = 1
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        """Trajectory [sample, n_steps + 1, 3, n, n] at every ``stride``-th node, and diagnostics."""
        n = start.shape[-1]
        derivatives = wall_derivatives(n, 1.0)
        # No derivative is larger than that of the shortest sine; grad and div have two of them.
        radii = float(np.sqrt(2) * np.pi * (n - 2)) * speed.max(axis=(1, 2)).astype(float)
        kept = (slice(None), slice(None), slice(None, None, stride), slice(None, None, stride))
        trajectory = np.empty((len(start), n_steps + 1, *start[kept].shape[1:]))
        drift, products = np.zeros(len(start)), np.zeros(len(start))
        for first in range(0, len(start), self.inner_batch):
            here = slice(first, first + self.inner_batch)
            state, c_squared = torch.as_tensor(start[here]), torch.as_tensor(speed[here] ** 2)
            of_cosines, of_sines = (torch.as_tensor(matrix).to(state) for matrix in derivatives)
            rate = _rate(c_squared, of_cosines, of_sines)
            trajectory[here, 0] = start[here][kept]
            at_start = _energy(state, c_squared)
            for step in range(1, n_steps + 1):
                state, counts = chebyshev.advance(rate, state, self.interval, radii[here].tolist(), self.time_tolerance)
                trajectory[here, step] = state[kept].cpu().numpy()
                change = (_energy(state, c_squared) / at_start - 1).abs()
                drift[here] = np.maximum(drift[here], change.cpu().numpy())
                products[here] += counts
        return trajectory, {"energy_drift": drift, "n_products": products}


def _rate(c_squared: Tensor, of_cosines: Tensor, of_sines: Tensor):
    """The right-hand side as a function of states [sample, 3, n, n]."""

    def rate(state: Tensor) -> Tensor:
        pressure, along_x, along_y = state.unbind(dim=1)
        compression = of_sines @ along_x + along_y @ of_sines.T
        forces = of_cosines @ pressure, pressure @ of_cosines.T
        return -torch.stack([compression, *(c_squared * force for force in forces)], dim=1)

    return rate


def _energy(state: Float[Tensor, "sample 3 n n"], c_squared: Float[Tensor, "sample n n"]) -> Float[Tensor, " sample"]:
    """Energy by the trapezoidal rule, in float64."""
    n = state.shape[-1]
    weights = torch.ones(n, dtype=torch.float64, device=state.device) / (n - 1)
    weights[[0, -1]] /= 2
    density = state[:, 0].double() ** 2 + (state[:, 1:].double() ** 2).sum(dim=1) / c_squared
    return 0.5 * (density * torch.outer(weights, weights)).sum(dim=(1, 2))


def _walls(n_nodes: int) -> Grid:
    return Grid((n_nodes,) * 2, (1.0,) * 2, ("neumann",) * 2, ("closed",) * 2)


def _require(holds: bool, name: str, value: float, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.{name} must be {condition}, got {value}.")
