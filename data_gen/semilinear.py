"""Semilinear equations u_t = L u + N(u) on a box, periodic or with walls, in one to three dimensions.

Pseudo-spectral in space, free of aliasing, ETDRK4 in time, in float64 unless ``solve`` is asked for float32. An
equation that has no N is solved exactly. A subclass of ``SemilinearProblem`` gives the symbol of L, the function N, its
fields and its parameters; everything that ``data_gen.spec.Problem`` asks for follows. Equations are written as in
Koehler et al. (2024), APEBench, arXiv 2411.00180, whose solvers (exponax) have the same structure.
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from data_gen.cosines import CosineSpace
from data_gen.grids import Grid
from data_gen.random_fields import (
    draw_parameters,
    given_parameters,
    in_words,
    parameter_laws,
    require_parameter,
    varying,
)
from data_gen.solvers.etdrk4 import graded_steps, halved, march
from data_gen.spec import DatasetSpec, FieldSpec, Samples, Scalar
from data_gen.spectral import Space


@runtime_checkable
class InitialLaw(Protocol):
    """A law of random fields on the periodic box of side 1. A law of fields between walls has ``boundary = "neumann"``
    and draws the coefficients of a ``CosineSpace``."""

    def draw(self, rngs: Sequence[np.random.Generator], n_fields: int, space: Any) -> Shaped[Tensor, "n field *k"]:
        """One state per generator, as the coefficients that ``space`` holds; the same field at any resolution."""
        ...


@dataclass(frozen=True, kw_only=True)
class SemilinearProblem(ABC):
    """Base of the problems u_t = L u + N(u).

    A subclass is a frozen dataclass with the equation's parameters as fields. It sets the class variables below and
    implements ``linear`` and, unless the equation is linear, ``nonlinear``.

    With ``boundary = "neumann"``, the normal derivative vanishes on the walls of the box, and ``linear`` and
    ``nonlinear`` are given a ``data_gen.cosines.CosineSpace``. L and N must keep fields even about the walls.

    Parameters of the type ``data_gen.random_fields.Parameter`` may be given as a law, from which every sample draws a
    value of its own. Such a parameter is a number in ``linear``, which is called for each sample, and a tensor [n, 1, 1
    ...] in ``nonlinear``, which broadcasts against the states [n, field, *space].

    Attributes:
        n_dims: dimensions of the box.
        resolution: points per axis of the stored snapshots: even on a periodic box, both walls included on a box with
            walls. The solver keeps all wavenumbers that they can hold.
        length: side of the box.
        interval, n_snapshots: the stored times 0, interval, 2 interval, ...
        initial: law of the initial states, on a box of side 1 that is stretched to ``length``.
        warm_up: time for which the drawn states evolve before t = 0, e.g. until they are on an attractor.
        first_step, step_growth, max_step: steps first_step, first_step step_growth, ... up to max_step.
        inner_batch: samples solved together, for speed. It is part of the address, because the bytes may depend on it.

    Raises:
        ValueError: a parameter is out of range; the message names it.
    """

    n_dims: int
    resolution: int
    length: float = 1.0
    interval: float
    n_snapshots: int
    initial: Any
    warm_up: float = 0.0
    first_step: float = math.inf
    step_growth: float = 1.3
    max_step: float = math.inf
    inner_batch: int = 64

    version: ClassVar[int] = 1
    boundary: ClassVar[Literal["periodic", "neumann"]] = "periodic"
    stem: ClassVar[str]
    equation: ClassVar[str]
    reference: ClassVar[str] = ""
    state: ClassVar[tuple[FieldSpec, ...]]
    conserved: ClassVar[tuple[str, ...]] = ()
    symmetries: ClassVar[tuple[str, ...]] = ("translation",)
    # Degree of the polynomial N(u); 1 if there is none.
    degree: ClassVar[int] = 1
    # What ``measure`` finds in a state. The largest value at any stored time is a diagnostic of the sample.
    measured: ClassVar[tuple[FieldSpec, ...]] = ()
    # Parameters that must be positive, and those that may be 0 as well.
    positive: ClassVar[tuple[str, ...]] = ()
    nonnegative: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name in ("length", "interval", "first_step", "max_step"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        for name in {*self.positive, *self.nonnegative, *parameter_laws(self)}:
            positive = "" if name in self.positive else None
            require_parameter(self, name, positive=positive, nonnegative=name in self.nonnegative)
        if self.boundary == "periodic":
            even = self.resolution % 2 == 0
            _require(self.resolution >= 4 and even, "resolution", self.resolution, "even, at least 4")
        else:
            _require(self.resolution >= 4, "resolution", self.resolution, "at least 4")
        of_law = getattr(self.initial, "boundary", "periodic")
        if of_law != self.boundary:
            raise ValueError(
                f"dataset.problem.initial must be a law of fields on a {self.boundary} box, like this equation, but "
                f"{type(self.initial).__name__} draws {of_law} ones."
            )
        _require(self.n_snapshots >= 2, "n_snapshots", self.n_snapshots, "at least 2 (the initial state is the first)")
        _require(self.warm_up >= 0, "warm_up", self.warm_up, "at least 0")
        _require(1 <= self.step_growth < math.inf, "step_growth", self.step_growth, "at least 1")
        _require(self.inner_batch >= 1, "inner_batch", self.inner_batch, "at least 1")

    @abstractmethod
    def linear(self, space: Any) -> Tensor:
        """Symbol of L, [field, *k], or [*k] if it is the same for all fields; complex where the equation disperses."""

    def nonlinear(self, u_hat: Shaped[Tensor, "n field *k"], space: Any) -> Shaped[Tensor, "n field *k"]:
        """Coefficients of N(u)."""
        raise NotImplementedError(f"{type(self).__name__} has degree {self.degree} but no nonlinear().")

    def measure(self, u_hat: Shaped[Tensor, "n field *k"], space: Any) -> Float[Tensor, "quantity n"]:
        """One number at least 0 of every state for each entry of ``measured``."""
        del space
        return u_hat.real.new_empty(0, len(u_hat))

    @property
    def spec(self) -> DatasetSpec:
        own = {entry for entry in self.__dataclass_fields__ if entry not in SemilinearProblem.__dataclass_fields__}
        law = {f"initial_{name}": _scalar(value) for name, value in asdict(self.initial).items()}
        steps = ("first_step", "step_growth", "max_step") if self.degree > 1 else ()
        return DatasetSpec(
            name=f"{self.stem}{self.n_dims}d",
            version=self.version,
            equation=self.equation,
            grid=self._grid(self.resolution),
            times=tuple(self.interval * i for i in range(self.n_snapshots)),
            state=self.state,
            parameters={**{name: in_words(self, name) for name in (*sorted(own), "warm_up", *steps)}, **law},
            conserved=self.conserved,
            symmetries=self.symmetries,
            diagnostics=(
                FieldSpec(
                    "spectrum_tail",
                    "norm of the highest third of the wavenumbers at any stored time after t=0, relative to u at t=0",
                ),
                FieldSpec("n_steps", "time steps taken"),
                *self.measured,
            ),
            reference=self.reference,
            varying=varying(self),
        )

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw initial states, one per generator, and solve to the stored times."""
        drawn = draw_parameters(self, rngs)
        return self._run(self._start(rngs, drawn), self.n_snapshots - 1, drawn, stores_initial=True)

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The inputs of ``simulate`` (states after the warm-up) solved with twice the wavenumbers and half the steps,
        and given on the same grid."""
        fine = replace(self, resolution=self._grid(self.resolution).refine(2).shape[0])
        drawn = draw_parameters(self, rngs)
        u_hat = self._space.moved(self._start(rngs, drawn), fine._space)
        return fine._run(u_hat, self.n_snapshots - 1, drawn, stores_initial=True, halve=True, stored=self.resolution)

    def solve(
        self,
        history: NDArray[np.floating],
        static: NDArray[np.floating],
        n_steps: int,
        parameters: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        dtype: type[np.floating] = np.float64,
    ) -> Samples:
        """``n_steps`` snapshots that follow the last frame of ``history`` [sample, time, field, *space].

        The history may be on any grid of the box; ``static`` has no channels. ``parameters`` has the values of those
        that have a law, [sample] each. ``dtype`` is that of the arithmetic.

        Raises:
            ValueError: the history holds no frame or other fields, there are static fields, ``n_steps`` is below 1, or
                a parameter is missing.
        """
        name = type(self).__name__
        if history.ndim != 3 + self.n_dims or history.shape[1] < 1 or history.shape[2] != len(self.state):
            space = ", ".join("n" * self.n_dims)
            raise ValueError(
                f"{name}.solve expected a history [sample, time >= 1, {len(self.state)}, {space}], got {history.shape}."
            )
        if static.shape[1] != 0:
            raise ValueError(f"{name} has no static fields, got {static.shape[1]}.")
        if n_steps < 1:
            raise ValueError(f"{name}.solve needs n_steps of at least 1, got {n_steps}.")
        last = torch.as_tensor(np.asarray(history[:, -1], dtype=dtype))
        given = given_parameters(self, parameters, len(last))
        return self._run(self._space.coefficients(last), n_steps, given, stores_initial=False)

    def at(self, grid: Grid) -> Self:
        """The same equation solved and stored on another grid.

        Raises:
            ValueError: the grid isn't a cube of side ``length`` with the equation's boundary, or a periodic one has an
                odd number of points.
        """
        if grid != self._grid(grid.shape[0]):
            kind = "periodic" if self.boundary == "periodic" else "closed Neumann"
            raise ValueError(f"{type(self).__name__} needs a {kind} grid of side {self.length:g}, got {grid}.")
        return replace(self, resolution=grid.shape[0])

    def relaxed(self, factor: float) -> Self:
        """The same equation and grid with all steps ``factor`` times as long."""
        return replace(self, first_step=factor * self.first_step, max_step=factor * self.max_step)

    @cached_property
    def _space(self) -> Any:
        return self._space_of(torch.float64)

    @cached_property
    def _single_space(self) -> Any:
        return self._space_of(torch.float32)

    def _space_of(self, dtype: torch.dtype) -> Space | CosineSpace:
        kind = Space if self.boundary == "periodic" else CosineSpace
        return kind(self.resolution, self.n_dims, self.length, self.degree, dtype)

    def _grid(self, resolution: int) -> Grid:
        if self.boundary == "periodic":
            return Grid.periodic(resolution, self.n_dims, self.length)
        d = self.n_dims
        return Grid((resolution,) * d, (self.length,) * d, (self.boundary,) * d, ("closed",) * d)

    def _start(
        self, rngs: Sequence[np.random.Generator], parameters: Mapping[str, NDArray[np.float64]]
    ) -> Shaped[Tensor, "n field *k"]:
        """States at t = 0."""
        drawn = self.initial.draw(rngs, len(self.state), self._space).to(torch.get_default_device())
        if not self.warm_up:
            return drawn
        steps = self._steps([0.0, self.warm_up])
        return torch.cat([end for chunk in self._chunks(drawn, parameters) for end in self._solved(*chunk, steps)])

    def _steps(self, times: Sequence[float]) -> list[list[float]]:
        if self.degree == 1:  # exact at any step
            return [[end - start] for start, end in itertools.pairwise(times)]
        largest = min(self.max_step, self.interval)
        return graded_steps(times, min(self.first_step, largest), self.step_growth, largest)

    def _chunks(
        self, u_hat: Tensor, parameters: Mapping[str, NDArray[np.float64]]
    ) -> Iterator[tuple[int, Tensor, Mapping[str, NDArray[np.float64]]]]:
        """Samples that are solved together: the number of the first, their states and their parameters."""
        for first in range(0, len(u_hat), self.inner_batch):
            chosen = slice(first, first + self.inner_batch)
            yield first, u_hat[chosen], {name: values[chosen] for name, values in parameters.items()}

    def _with(self, values: Mapping[str, Any]) -> Self:
        """The same equation with other parameters, perhaps tensors."""
        other = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(other, name, value)
        return other

    def _solved(
        self,
        first: int,
        u_hat: Tensor,
        parameters: Mapping[str, NDArray[np.float64]],
        steps: Sequence[Sequence[float]],
    ) -> Iterator[Shaped[Tensor, "n field *k"]]:
        """States after each interval, one after another."""
        shape, equation = (len(self.state), *self._space.shape), self
        space = self._space if u_hat.dtype in (torch.complex128, torch.float64) else self._single_space
        if parameters:
            each = [
                self._with(dict(zip(parameters, own, strict=True)))
                for own in zip(*(v.tolist() for v in parameters.values()), strict=True)
            ]
            linear = torch.stack([own.linear(self._space).expand(shape) for own in each])
            columns = {
                name: torch.from_numpy(values).to(u_hat.device, u_hat.real.dtype).view(-1, *(1,) * len(shape))
                for name, values in parameters.items()
            }
            equation = self._with(columns)
        else:
            linear = self.linear(self._space).expand(shape)
        if self.degree == 1:
            factors = (_exponential(linear * math.fsum(chain), u_hat) for chain in steps)
            return itertools.islice(itertools.accumulate(factors, torch.mul, initial=u_hat), 1, None)
        return march(
            linear,
            lambda state: equation.nonlinear(state, space),
            u_hat,
            steps,
            numbers=range(first, first + len(u_hat)),
            remedy=f"raise dataset.problem.resolution, or check the parameters of {type(self).__name__}",
        )

    def _run(
        self,
        u_hat: Tensor,
        n_steps: int,
        parameters: Mapping[str, NDArray[np.float64]],
        *,
        stores_initial: bool,
        halve: bool = False,
        stored: int | None = None,
    ) -> Samples:
        """Solve from ``u_hat`` over ``n_steps`` intervals; ``halve`` halves every step."""
        steps = self._steps([self.interval * i for i in range(n_steps + 1)])
        steps = halved(steps) if halve else steps
        n = stored or self.resolution
        trajectory = np.empty((len(u_hat), len(steps) + 1, len(self.state), *[n] * self.n_dims))
        tails, measured = np.zeros(len(u_hat)), np.zeros((len(self.measured), len(u_hat)))
        upper = self._space.multiplicity * self._space.upper_third
        for first, chunk, own in self._chunks(u_hat, parameters):
            here = slice(first, first + self.inner_batch)
            scale = _norm(chunk, self._space.multiplicity).clamp(min=torch.finfo(torch.float64).tiny)
            trajectory[here, 0] = self._space.values(chunk, n).cpu().numpy()
            measured[:, here] = self.measure(chunk, self._space).cpu().numpy()
            for time, state in enumerate(self._solved(first, chunk, own, steps), start=1):
                trajectory[here, time] = self._space.values(state, n).cpu().numpy()
                tail = _norm(state, upper) / scale
                tails[here] = np.maximum(tails[here], tail.cpu().numpy())
                found = self.measure(state, self._space).cpu().numpy()
                measured[:, here] = np.maximum(measured[:, here], found)
        diagnostics = {"spectrum_tail": tails, "n_steps": np.full(len(u_hat), float(sum(map(len, steps))))}
        diagnostics |= {entry.name: values for entry, values in zip(self.measured, measured, strict=True)}
        static = np.empty((len(u_hat), 0, *trajectory.shape[3:]))
        kept = trajectory if stores_initial else trajectory[:, 1:]
        return Samples(trajectory[:, :1], static, kept, diagnostics, parameters)


def _exponential(exponents: Tensor, u_hat: Tensor) -> Tensor:
    """In the precision of the states."""
    dtype = u_hat.dtype if exponents.is_complex() else u_hat.real.dtype
    if exponents.ndim < u_hat.ndim:
        return torch.exp(exponents).to(dtype)
    # Sample by sample, because the last digits of a function of many numbers may depend on how many they are.
    return torch.stack([torch.exp(own) for own in exponents]).to(dtype)


def _norm(u_hat: Shaped[Tensor, "n field *k"], weights: Float[Tensor, "*k"]) -> Float[Tensor, " n"]:
    power = u_hat.real.square()
    if u_hat.is_complex():
        power.add_(u_hat.imag.square())
    return (power * weights).flatten(1).sum(dim=1).sqrt()


def _scalar(value: Any) -> Scalar:
    return value if isinstance(value, Scalar) else ", ".join(map(str, value))


def _require(holds: bool, name: str, value: float, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.{name} must be {condition}, got {value}.")
