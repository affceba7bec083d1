"""Systems of conservation laws u_t + div F(u) = 0 on a box in one, two or three dimensions: a problem needs its F.

Finite volumes (``data_gen.solvers.finite_volume``) on a grid that is finer than the file's, of which the file has the
averages over its own cells. A subclass of ``ConservationLaw`` gives the fields, the maps between conserved and
primitive variables, the flux, the speeds of waves and a law of initial states; everything that
``data_gen.spec.Problem`` asks for follows.
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from data_gen.grids import Boundary, Grid
from data_gen.random_fields import (
    draw_parameters,
    given_parameters,
    in_words,
    parameter_laws,
    require_parameter,
    varying,
)
from data_gen.solvers.finite_volume import WALLS, FiniteVolumes, Wall, block_means, rusanov
from data_gen.spec import DatasetSpec, FieldSpec, Samples, Scalar

# Measured: with longer steps, solutions of smooth problems start to oscillate.
LARGEST_CFL = 0.9

_BOUNDARIES: dict[Wall, Boundary] = {"periodic": "periodic", "outflow": "open", "reflecting": "neumann"}


class InitialState(Protocol):
    """A law of random states on the box [0, 1]^d, which is stretched to the problem's length.

    Attributes:
        symmetries: names of the maps that leave it, and the equation, as they are.
    """

    symmetries: ClassVar[tuple[str, ...]]

    def draw(
        self, rng: np.random.Generator, n: int, n_dims: int, conserved: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, " field *n"]:
        """Averages of the conserved variables over n cells per axis, of the same state whatever n is.

        Args:
            rng: the sample's generator.
            n: cells per axis.
            n_dims: dimensions.
            conserved: maps primitive variables [1, field, *space] to conserved ones.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ConservationLaw(ABC):
    """Base of the problems u_t + div F(u) = 0.

    A subclass is a frozen dataclass with the equation's parameters as fields. It sets the class variables below and
    implements ``primitive``, ``conserved``, ``flux`` and ``speed``, and perhaps ``numerical_flux``; for their shapes
    see ``data_gen.solvers.finite_volume.Law``. Parameters of the type ``data_gen.random_fields.Parameter`` may be given
    as a law, from which every sample draws a value of its own. In these methods they are tensors [n, 1, ...] which
    broadcast against a scalar per cell, [n, *space].

    The file holds averages over cells. Where ``walls`` is periodic, the cells are those around the nodes of the file's
    periodic grid: everything is moved by half a cell, which such a box doesn't notice.

    Attributes:
        n_dims: dimensions of the box.
        resolution: cells per axis of the stored snapshots.
        solver_resolution: cells per axis of the solver's grid, a multiple of ``resolution``.
        length: side of the box.
        interval, n_snapshots: the stored times 0, interval, 2 interval, ...
        initial: law of the initial states, on a box of side 1 that is stretched to ``length``.
        walls: what is beyond the ends of all axes: periodic, outflow or reflecting.
        cfl: step relative to the time in which the waves of all axes together cross a cell, at most 0.9.
        stages: of a Runge-Kutta step, 2 or 3; its order. At shocks, a third stage changes the error by a few per cent,
            in smooth flows by up to 15 %.

    Raises:
        ValueError: a parameter is out of range; the message names it.
    """

    n_dims: int
    resolution: int
    solver_resolution: int
    length: float = 1.0
    interval: float
    n_snapshots: int
    initial: Any
    walls: Wall
    cfl: float = 0.8
    stages: int = 2

    version: ClassVar[int] = 1
    stem: ClassVar[str]
    equation: ClassVar[str]
    reference: ClassVar[str] = ""
    # Conserved fields: scalars, one momentum for each axis from place 1 on, and further scalars.
    scalars_before: ClassVar[tuple[FieldSpec, ...]]
    scalars_after: ClassVar[tuple[FieldSpec, ...]] = ()
    momentum: ClassVar[str] = "momentum per volume"
    positive_fields: ClassVar[Mapping[int, str]]
    positive: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name in ("length", "interval"):
            _require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive")
        for name in {*self.positive, *parameter_laws(self)}:
            require_parameter(self, name, positive="" if name in self.positive else None)
        _require(self.n_dims in (1, 2, 3), "n_dims", self.n_dims, "1, 2 or 3")
        _require(self.resolution >= 4, "resolution", self.resolution, "at least 4")
        finer, n = self.solver_resolution, self.resolution
        lower = max(n, finer - finer % n)
        _require(
            finer >= n and finer % n == 0,
            "solver_resolution",
            finer,
            f"a multiple of dataset.problem.resolution={n}, such as {lower} or {lower + n}",
        )
        _require(self.n_snapshots >= 2, "n_snapshots", self.n_snapshots, "at least 2 (the initial state is the first)")
        _require(self.walls in WALLS, "walls", self.walls, f"one of {', '.join(WALLS)}")
        stable = f"above 0 and at most {LARGEST_CFL}, beyond which steps are unstable"
        _require(0 < self.cfl <= LARGEST_CFL, "cfl", self.cfl, stable)
        _require(self.stages in (2, 3), "stages", self.stages, "2 or 3")

    @abstractmethod
    def primitive(self, u: Tensor) -> Tensor: ...

    @abstractmethod
    def conserved(self, w: Tensor) -> Tensor: ...

    @abstractmethod
    def flux(self, w: Tensor, u: Tensor, axis: int) -> Tensor: ...

    @abstractmethod
    def speed(self, w: Tensor, axis: int) -> Tensor: ...

    def numerical_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        return rusanov(self, left, right, axis)

    def turned_by_walls(self, axis: int) -> tuple[int, ...]:
        return (1 + axis,)

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """The conserved variables."""
        names = [""] if self.n_dims == 1 else ["_x", "_y", "_z"][: self.n_dims]
        momenta = (FieldSpec(f"momentum{name}", self.momentum + name.replace("_", " along ")) for name in names)
        return (*self.scalars_before, *momenta, *self.scalars_after)

    @property
    def spec(self) -> DatasetSpec:
        own = {entry for entry in self.__dataclass_fields__ if entry not in ConservationLaw.__dataclass_fields__}
        law = {f"initial_{name}": _scalar(value) for name, value in asdict(self.initial).items()}
        steps = {
            "solver_resolution": self.solver_resolution,
            "walls": self.walls,
            "cfl": self.cfl,
            "stages": self.stages,
        }
        kept = {
            "periodic": self.state,
            "reflecting": (*self.scalars_before, *self.scalars_after),
            "outflow": (),
        }[self.walls]
        return DatasetSpec(
            name=f"{self.stem}{self.n_dims}d",
            version=self.version,
            equation=self.equation,
            grid=self._grid(self.resolution),
            times=tuple(self.interval * i for i in range(self.n_snapshots)),
            state=self.state,
            parameters={
                **{name: in_words(self, name) for name in sorted(own)},
                **steps,
                "initial_law": type(self.initial).__name__,
                **law,
            },
            conserved=(*(f"mean_{field.name}" for field in kept), "positivity"),
            symmetries=self.initial.symmetries,
            diagnostics=(
                FieldSpec("n_steps", "time steps taken"),
                FieldSpec("drift", "largest change of a conserved mean, relative to its field; 0 with open ends"),
            ),
            reference=self.reference,
            varying=varying(self),
        )

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw initial states, one per generator, and solve to the stored times."""
        drawn = draw_parameters(self, rngs)
        states = [
            self.initial.draw(
                rng,
                self.solver_resolution,
                self.n_dims,
                self._with({name: values[sample] for name, values in drawn.items()}).conserved,
            )
            for sample, rng in enumerate(rngs)
        ]
        fields = (len(self.state), *[self.solver_resolution] * self.n_dims)
        u = torch.stack(states) if states else torch.empty((0, *fields), dtype=torch.float64)
        return self._run(u.to(torch.get_default_device()), self.n_snapshots - 1, drawn, stores_initial=True)

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The same states solved on a grid twice as fine, and so with half the step, and averaged to the same cells."""
        return replace(self, solver_resolution=2 * self.solver_resolution).simulate(rngs)

    def solve(
        self,
        history: NDArray[np.floating],
        static: NDArray[np.floating],
        n_steps: int,
        parameters: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        dtype: type[np.floating] = np.float64,
    ) -> Samples:
        """``n_steps`` snapshots that follow the last frame of ``history`` [sample, time, field, *space], solved on its
        own grid. ``static`` has no channels. ``parameters`` has the values of those that have a law, [sample] each.
        ``dtype`` is that of the arithmetic.

        Raises:
            ValueError: the history holds no frame or other fields, or isn't on a cube of at least 4 cells per axis;
                there are static fields, ``n_steps`` is below 1, or a parameter is missing.
            SolverError: a field that must be positive isn't, or a state isn't finite.
        """
        name, n_fields = type(self).__name__, len(self.state)
        space = history.shape[3:]
        if len(space) != self.n_dims or history.shape[1] < 1 or history.shape[2] != n_fields or len({*space}) != 1:
            wanted = ", ".join(["n"] * self.n_dims)
            raise ValueError(
                f"{name}.solve expected a history [sample, time >= 1, {n_fields}, {wanted}], got {history.shape}."
            )
        if static.shape[1] != 0:
            raise ValueError(f"{name} has no static fields, got {static.shape[1]}.")
        if n_steps < 1:
            raise ValueError(f"{name}.solve needs n_steps of at least 1, got {n_steps}.")
        last = torch.as_tensor(np.asarray(history[:, -1], dtype=dtype))
        given = given_parameters(self, parameters, len(last))
        here = replace(self, resolution=space[0], solver_resolution=space[0])
        return here._run(last, n_steps, given, stores_initial=False)

    def at(self, grid: Grid) -> Self:
        """The same equation solved, and stored, on the cells of another grid.

        Raises:
            ValueError: the grid isn't a cube of side ``length`` with the same walls.
        """
        if grid != self._grid(grid.shape[0]):
            raise ValueError(
                f"{type(self).__name__} needs a grid like {self._grid(self.resolution)} with as many cells along every "
                f"axis, got {grid}."
            )
        return replace(self, resolution=grid.shape[0], solver_resolution=grid.shape[0])

    def relaxed(self, factor: float) -> Self:
        """The same equation and grid with steps ``factor`` times as long, as far as they are stable, and from a factor
        of 4 on with two stages instead of three."""
        return replace(self, cfl=min(LARGEST_CFL, factor * self.cfl), stages=2 if factor >= 4 else self.stages)

    def _grid(self, resolution: int) -> Grid:
        if self.walls == "periodic":
            return Grid.periodic(resolution, self.n_dims, self.length)
        axes = ((resolution,), (self.length,), (_BOUNDARIES[self.walls],), ("centres",))
        return Grid(*(axis * self.n_dims for axis in axes))  # pyright: ignore[reportArgumentType]

    def _with(self, values: Mapping[str, Any]) -> Self:
        """The same equation with other parameters, perhaps tensors."""
        other = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(other, name, value)
        return other

    def _run(
        self, u: Tensor, n_steps: int, parameters: Mapping[str, NDArray[np.float64]], *, stores_initial: bool
    ) -> Samples:
        """Solve from ``u``, on the solver's grid, over ``n_steps`` intervals."""
        columns = {
            name: torch.from_numpy(values).to(u.device, u.dtype).view(-1, *(1,) * self.n_dims)
            for name, values in parameters.items()
        }
        solver = FiniteVolumes(
            law=(lambda rows: self._with({name: values[rows] for name, values in columns.items()})),
            spacing=(self.length / u.shape[-1],) * self.n_dims,
            walls=(self.walls,) * self.n_dims,
            cfl=self.cfl,
            stages=self.stages,
        )
        factor = u.shape[-1] // self.resolution
        trajectory = np.empty((len(u), n_steps + 1, len(self.state), *[self.resolution] * self.n_dims))
        trajectory[:, 0] = block_means(u, factor, self.n_dims).cpu().numpy()
        taken = np.zeros(len(u))
        for time, (states, steps) in enumerate(solver.march(u, [self.interval] * n_steps), start=1):
            trajectory[:, time] = block_means(states, factor, self.n_dims).cpu().numpy()
            taken += steps.cpu().numpy()
        diagnostics = {"n_steps": taken, "drift": self._drift(trajectory)}
        static = np.empty((len(u), 0, *trajectory.shape[3:]))
        kept = trajectory if stores_initial else trajectory[:, 1:]
        return Samples(trajectory[:, :1], static, kept, diagnostics, parameters)

    def _drift(self, trajectory: NDArray[np.float64]) -> NDArray[np.float64]:
        names = {"periodic": range(len(self.state)), "outflow": ()}.get(
            self.walls, [i for i in range(len(self.state)) if not 1 <= i <= self.n_dims]
        )
        drift = np.zeros(len(trajectory))
        for field, (sample, own) in itertools.product(names, enumerate(trajectory)):
            values = own[:, field].reshape(len(own), -1)
            means, scale = values.mean(axis=1), np.abs(values).mean(axis=1).max()
            drift[sample] = max(drift[sample], np.abs(means - means[0]).max() / max(scale, np.finfo(float).tiny))
        return drift


def cell_averages(function: Callable[..., Tensor], n: int, n_dims: int, n_points: int = 3) -> Float[Tensor, "*lead *n"]:
    """Averages over n cells per axis of a function on [0, 1]^d, by Gauss-Legendre quadrature.

    With three points per axis their error is of sixth order in the size of a cell: for a smooth function, nothing
    beside that of a solver of second order.

    Args:
        function: maps coordinates, one array [m] per axis shaped to broadcast, to values [..., *m].
        n: cells per axis.
        n_dims: dimensions.
        n_points: of the quadrature, per cell and axis.
    """
    places, weights = np.polynomial.legendre.leggauss(n_points)
    x = torch.from_numpy(((np.arange(n)[:, None] + (1 + places) / 2) / n).ravel())
    u = function(*(x.view(-1, *(1,) * (n_dims - 1 - axis)) for axis in range(n_dims)))
    for along in range(-n_dims, 0):
        parts = u.unflatten(along, (n, n_points)).unbind(along)
        u = sum((part * (w / 2) for part, w in zip(parts, weights.tolist(), strict=True)), torch.zeros_like(parts[0]))
    return u


def shares_below(cut: float, n: int) -> Float[Tensor, " n"]:
    """The share of each of n cells of [0, 1] that lies below a point."""
    return torch.from_numpy(np.clip(cut * n - np.arange(n), 0.0, 1.0))


def _scalar(value: Any) -> Scalar:
    return value if isinstance(value, Scalar) else ", ".join(map(str, value))


def _require(holds: bool, name: str, value: Any, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.{name} must be {condition}, got {value}.")
