"""Diffusion of a substance that sticks to the grains of a porous medium, entering from one end.

    R(u) u_t = D u_xx on (0, 1),    R(u) = 1 + (1 - porosity) / porosity density k n u^(n - 1)

with u = 1 at the inflow x = 0, and -D u_x = u at the outlet x = 1. R is the retardation by Freundlich's law k u^n of
what the grains hold. Stored is m(u) = u + (1 - porosity) / porosity density k u^n, so that R u_t = m(u)_t.

This is the diffusion-sorption equation of Takamoto et al. (2022), PDEBench, arXiv 2210.07182, with its parameters and
its law of initial states: a constant, uniform between 0 and 0.2. So samples differ in one number only, and are easy to
learn. Lengths are in metres, times in days. In the paper's text the condition at the outlet is u = D u_x, with which u
would blow up; in its code it is u = -D u_x, as here. Its code adds 1e-6 to u in R, and takes the value at the inflow
half a cell outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.random_fields import (
    Parameter,
    draw_parameters,
    given_parameters,
    in_words,
    require_parameter,
    varying,
)
from data_gen.solvers.etdrk4 import graded_steps, halved
from data_gen.solvers.storage import Storage, march
from data_gen.spec import DatasetSpec, FieldSpec, Samples

_PARAMETERS = ("diffusivity", "freundlich_coefficient")
# R is infinite at u = 0. A smaller |u| has the slope of this one.
_LEAST = 1e-12


@dataclass(frozen=True, kw_only=True)
class Sorption1D:
    """Diffusion and sorption as a dataset.

    Finite volumes of second order around the nodes of the solver's grid, implicit in time and of third order
    (``data_gen.solvers.storage``). At t = 0, u jumps at the inflow. So steps grow from ``first_step``, and in the layer
    there, which is sqrt(D t / R) wide, errors are largest at the first stored time.

    Attributes:
        resolution: nodes of the stored fields, both ends included.
        solver_resolution: nodes of the solver's grid. It contains all nodes of the file's grid.
        interval, n_snapshots: the stored times 0, interval, 2 interval, ... in days.
        diffusivity: D in m^2 / day.
        porosity: share of the volume that isn't grains.
        density: of the grains, in kg / m^3.
        freundlich_coefficient, freundlich_exponent: k and n of what the grains hold; k in (m^3 / kg)^n.
        lowest, highest: the initial state is a constant that is uniform between these, from 0 to 1.
        first_step, step_growth, max_step: steps first_step, first_step step_growth, ... up to max_step.

    Raises:
        ValueError: a parameter is out of range; the message names it.
    """

    resolution: int = 129
    solver_resolution: int = 257
    interval: float = 25.0
    n_snapshots: int = 21
    diffusivity: Parameter = 5e-4
    porosity: float = 0.29
    density: float = 2880.0
    freundlich_coefficient: Parameter = 3.5e-4
    freundlich_exponent: float = 0.874
    lowest: float = 0.0
    highest: float = 0.2
    first_step: float = 0.005
    step_growth: float = 1.15
    max_step: float = 5.0

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _require(self.resolution >= 3, "resolution", self.resolution, "at least 3")
        finer, intervals = self.solver_resolution, self.resolution - 1
        _require(
            finer >= self.resolution and (finer - 1) % intervals == 0,
            "solver_resolution",
            finer,
            f"1 more than a multiple of dataset.problem.resolution - 1 = {intervals}",
        )
        for name in ("interval", "density", "freundlich_exponent", "first_step", "max_step"):
            _require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive")
        _require(self.freundlich_exponent <= 1, "freundlich_exponent", self.freundlich_exponent, "at most 1")
        _require(self.n_snapshots >= 2, "n_snapshots", self.n_snapshots, "at least 2 (the initial state is the first)")
        _require(0 < self.porosity < 1, "porosity", self.porosity, "between 0 and 1")
        _require(0 <= self.lowest <= self.highest, "lowest", self.lowest, f"from 0 to highest={self.highest:g}")
        _require(self.highest <= 1, "highest", self.highest, "at most 1, the value at the inflow")
        _require(1 <= self.step_growth < math.inf, "step_growth", self.step_growth, "at least 1")
        require_parameter(self, "diffusivity", positive="")
        require_parameter(self, "freundlich_coefficient", nonnegative=True)

    @property
    def spec(self) -> DatasetSpec:
        numbers = ("porosity", "density", "freundlich_exponent", "lowest", "highest", "solver_resolution", "max_step")
        return DatasetSpec(
            name="sorption1d",
            version=self.version,
            equation="R(u) ∂ₜu = D ∂ₓₓu,  R(u) = 1 + (1 − φ)/φ ρ k n uⁿ⁻¹,  u(0) = 1,  −D ∂ₓu(1) = u(1)",
            grid=_closed(self.resolution),
            times=tuple(self.interval * i for i in range(self.n_snapshots)),
            state=(FieldSpec("concentration", "concentration u over that at the inflow"),),
            parameters={
                **{name: in_words(self, name) for name in _PARAMETERS},
                **{name: getattr(self, name) for name in numbers},
            },
            conserved=("positivity",),
            diagnostics=(
                FieldSpec(
                    "mass_imbalance", "largest |stored - inflow + outflow| at any stored time, over inflow and outflow"
                ),
                FieldSpec("n_iterations", "iterations of Newton's method"),
            ),
            reference="Takamoto et al. (2022), PDEBench, arXiv 2210.07182, 1D diffusion-sorption",
            varying=varying(self),
        )

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw initial states, one per generator, and solve to the stored times."""
        return self._simulate(rngs, halve=False)

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The same inputs, solved on a grid twice as fine with half the steps, and given on the file's grid."""
        return replace(self, solver_resolution=2 * self.solver_resolution - 1)._simulate(rngs, halve=True)

    def solve(
        self,
        history: NDArray[np.floating],
        static: NDArray[np.floating],
        n_steps: int,
        parameters: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        dtype: type[np.floating] = np.float64,
    ) -> Samples:
        """``n_steps`` snapshots that follow the last frame of ``history`` [sample, time, 1, n], solved on its own grid.
        ``parameters`` has the values of those that have a law. ``dtype`` is that of the arithmetic.

        Raises:
            ValueError: the history holds no frame or other fields, there are static fields, ``n_steps`` is below 1, or
                a parameter is missing.
            SolverError: a step can't be solved.
        """
        if history.ndim != 4 or history.shape[1] < 1 or history.shape[2] != 1 or history.shape[3] < 3:
            raise ValueError(
                f"Sorption1D.solve expected a history [sample, time >= 1, 1, n >= 3], got {history.shape}."
            )
        if static.shape[1] != 0:
            raise ValueError(f"Sorption1D has no static fields, got {static.shape[1]}.")
        if n_steps < 1:
            raise ValueError(f"Sorption1D.solve needs n_steps of at least 1, got {n_steps}.")
        start = np.asarray(history[:, -1, 0], dtype=dtype)
        given = given_parameters(self, parameters, len(start))
        return self._solve(start, n_steps, given, stores_initial=False)

    def at(self, grid: Grid) -> Sorption1D:
        """The same problem solved, and stored, at ``grid``'s own nodes.

        Raises:
            ValueError: the grid isn't a closed one on [0, 1].
        """
        if grid != _closed(grid.shape[0]):
            raise ValueError(f"Sorption1D needs a closed grid with Dirichlet boundary on [0, 1], got {grid}.")
        return replace(self, resolution=grid.shape[0], solver_resolution=grid.shape[0])

    def relaxed(self, factor: float) -> Sorption1D:
        """The same equation and grid with all steps ``factor`` times as long."""
        return replace(self, first_step=factor * self.first_step, max_step=factor * self.max_step)

    def _simulate(self, rngs: Sequence[np.random.Generator], *, halve: bool) -> Samples:
        parameters = draw_parameters(self, rngs)
        levels = np.array([rng.uniform(self.lowest, self.highest) for rng in rngs])
        start = np.repeat(levels[:, None], self.solver_resolution, axis=1)
        return self._solve(start, self.n_snapshots - 1, parameters, stores_initial=True, halve=halve)

    def _solve(
        self,
        start: NDArray[np.floating],
        n_steps: int,
        parameters: Mapping[str, NDArray[np.float64]],
        *,
        stores_initial: bool,
        halve: bool = False,
    ) -> Samples:
        """Solve from states [sample, n]; stored is the file's grid, or that of the states if it is another."""
        largest = min(self.max_step, self.interval)
        times = [self.interval * i for i in range(n_steps + 1)]
        steps = graded_steps(times, min(self.first_step, largest), self.step_growth, largest)
        stride = max(1, (start.shape[1] - 1) // (self.resolution - 1)) if stores_initial else 1
        storage, diffusivity = self._storage(parameters, len(start), start.dtype)
        first = start.copy()
        first[:, 0] = 1
        frames, imbalance, iterations = [first[:, ::stride]], np.zeros(len(start)), np.zeros(len(start))
        for state in march(storage, diffusivity, start, 1.0, halved(steps) if halve else steps):
            frames.append(state.values[:, ::stride])
            imbalance = np.maximum(imbalance, state.imbalance)
            iterations = state.iterations.astype(np.float64)
        trajectory = np.stack(frames, axis=1)[:, :, None]
        static = np.empty((len(start), 0, trajectory.shape[-1]))
        kept = trajectory if stores_initial else trajectory[:, 1:]
        diagnostics = {"mass_imbalance": imbalance, "n_iterations": iterations}
        return Samples(trajectory[:, :1], static, kept, diagnostics, parameters)

    def _storage(
        self, parameters: Mapping[str, NDArray[np.float64]], n_samples: int, dtype: np.dtype
    ) -> tuple[Storage, NDArray[np.float64]]:
        """m(u), and D of each sample."""
        diffusivity, k = (parameters.get(name, np.full(n_samples, getattr(self, name))) for name in _PARAMETERS)
        held = ((1 - self.porosity) / self.porosity * self.density * k).astype(dtype)[:, None]
        n = self.freundlich_exponent
        # Odd in u: a model's predictions, from which it may be solved on, can be negative.
        return Storage(
            of=lambda u: u + held * np.sign(u) * np.abs(u) ** n,
            slope=lambda u: 1 + held * n * np.maximum(np.abs(u), _LEAST) ** (n - 1),
        ), diffusivity


def _closed(n_nodes: int) -> Grid:
    return Grid((n_nodes,), (1.0,), ("dirichlet",), ("closed",))


def _require(holds: bool, name: str, value: float, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.{name} must be {condition}, got {value}.")
