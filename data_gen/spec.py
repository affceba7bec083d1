"""What a dataset is (DatasetSpec), what a solver returns (Samples), and what a solver must offer (Problem)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data_gen.grids import Grid

Scalar = float | int | str


class SolverError(RuntimeError):
    """A solver left its region of validity; the message names the sample, the reason and the parameter to change."""


# Steps in time that differ by less, relative to their mean, are even.
_EVEN = 1e-2


def even_step(times: Sequence[float]) -> float | None:
    """The step between times; None if the steps differ, or if there are fewer than two times.

    >>> even_step([0, 1, 2]), even_step([0, 1, 3])
    (1.0, None)
    """
    if len(times) < 2:
        return None
    steps = np.diff(times)
    mean = float(times[-1] - times[0]) / len(steps)
    # A single-precision number is off by up to half a unit in its last place, and a step by twice as much.
    tolerance = _EVEN * mean + float(np.finfo(np.float32).eps) * float(np.abs(times).max())
    return mean if np.abs(steps - mean).max() <= tolerance else None


@dataclass(frozen=True)
class FieldSpec:
    """One scalar field: its name in files and tables, what it means, and its unit ("1" if dimensionless)."""

    name: str
    description: str
    unit: str = "1"


@dataclass(frozen=True)
class ParameterSpec:
    """A scalar parameter that differs between samples: its name, and the scale on which models are given it."""

    name: str
    scale: Literal["linear", "log"] = "linear"

    @property
    def channel(self) -> str:
        """What models are given: the parameter, or its decimal logarithm."""
        return f"log10_{self.name}" if self.scale == "log" else self.name

    def encoded(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Values of the channel."""
        return (np.log10(values) if self.scale == "log" else np.asarray(values)).astype(np.float32)


@dataclass(frozen=True)
class DatasetSpec:
    """The metadata of a dataset: all that a reader needs besides the arrays. It is stored in every file.

    Shapes, normalisation, metrics and plots follow from it.

    Attributes:
        name: the dataset's name, also the stem of its files.
        version: version of the problem that made it; raised whenever the numbers change.
        equation: the PDE as text.
        grid: the grid of the stored fields.
        times: physical times of the stored snapshots; empty for a steady problem.
        state: the fields that evolve (or are solved for), in channel order.
        static: coefficient fields that don't change in time, in channel order.
        parameters: scalar parameters by name; each is also a root attribute of the file.
        conserved: names of conserved or balanced quantities.
        symmetries: names of exact symmetries of the equation with its forcing.
        state_variance: variance of the initial state under its law, per state field; empty if unknown.
        diagnostics: numbers that the solver records for every sample (iterations, residual, drift of an invariant ...).
        reference: where the problem comes from.
        varying: parameters that have a value of their own in every sample; ``parameters`` has their law in words.
        channels: those that a model is given, each as a channel constant in space that follows the static fields. It
            belongs to a training, so it is empty in a file.
        mask: name of the static field that is positive where the equation holds, if it doesn't hold everywhere. At all
            other points the state is 0, and so are predictions.
    """

    name: str
    version: int
    equation: str
    grid: Grid
    times: tuple[float, ...]
    state: tuple[FieldSpec, ...]
    static: tuple[FieldSpec, ...] = ()
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    conserved: tuple[str, ...] = ()
    symmetries: tuple[str, ...] = ()
    state_variance: tuple[float, ...] = ()
    diagnostics: tuple[FieldSpec, ...] = ()
    reference: str = ""
    varying: tuple[ParameterSpec, ...] = ()
    channels: tuple[ParameterSpec, ...] = ()
    mask: str = ""

    def __post_init__(self) -> None:
        if not self.state:
            raise ValueError(f"Dataset {self.name!r} needs at least one state field.")
        if any(later <= earlier for earlier, later in zip(self.times, self.times[1:], strict=False)):
            raise ValueError(f"Snapshot times must increase, got {self.times}.")

    @property
    def is_steady(self) -> bool:
        """A steady problem has no times; its solution is a trajectory of one step with an empty history."""
        return not self.times

    @property
    def n_snapshots(self) -> int:
        """Frames per stored trajectory (1 for a steady problem)."""
        return max(1, len(self.times))

    @property
    def stores_initial(self) -> bool:
        """True if the initial state is stored separately, because the trajectory starts after t = 0."""
        return bool(self.times) and self.times[0] > 0

    def to_json(self) -> str:
        """The spec as JSON with sorted keys; equal specs give equal text."""
        values = asdict(self)
        for name in ("varying", "channels", "mask"):
            if not values[name]:  # specs of data without them keep their text, and so their hashes
                del values[name]
        return json.dumps(values, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> DatasetSpec:
        """Inverse of ``to_json``.

        Raises:
            ValueError, TypeError, KeyError: the text isn't a spec.
        """
        values: dict[str, Any] = json.loads(text)
        values["grid"] = Grid.from_dict(values["grid"])
        for name in ("state", "static", "diagnostics"):
            values[name] = tuple(FieldSpec(**entry) for entry in values[name])
        for name in ("varying", "channels"):
            values[name] = tuple(ParameterSpec(**entry) for entry in values.get(name, ()))
        for name in ("times", "conserved", "symmetries", "state_variance"):
            values[name] = tuple(values[name])
        return cls(**values)


class Samples(NamedTuple):
    """A batch of solved samples in file order, float64.

    history: [sample, 1, field, *space], the states the solver started from ([sample, 0, ...] for a steady problem).
    static: [sample, static field, *space].
    trajectory: [sample, time, field, *space] at the spec's times (one step for a steady problem).
    diagnostics: what the solver recorded for every sample, [sample] each, by the names of the spec's diagnostics.
    parameters: the parameters that differ between samples, [sample] each, by the names of ``spec.varying``.
    """

    history: NDArray[np.floating]
    static: NDArray[np.floating]
    trajectory: NDArray[np.floating]
    diagnostics: Mapping[str, NDArray[np.floating]] = MappingProxyType({})
    parameters: Mapping[str, NDArray[np.floating]] = MappingProxyType({})


class Problem(Protocol):
    """The solver's side of a dataset: a PDE, a law of random inputs and a discretisation. Frozen dataclasses implement
    it; every field of the dataclass is part of the dataset's address. Inputs are drawn on the CPU; solvers made of
    tensors work on torch's default device.

    It may also have a method ``residual(trajectory, static)``, which maps tensors of predicted and of static fields,
    [B, T, C, *S] and [B, C_s, *S], to how far they are from solving the equation, [B]. ``trainer.residual_weight`` adds
    it to the loss, so it must be differentiable.
    """

    @property
    def version(self) -> int:
        """Raised whenever a change of the code changes the numbers."""
        ...

    @property
    def spec(self) -> DatasetSpec: ...

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw one input from each generator, then solve. Sample i depends on ``rngs[i]`` alone.

        Raises:
            SolverError: it can't deliver the promised accuracy.
        """
        ...

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The inputs of ``simulate``, solved with half the step at twice the resolution and given on the same grid: the
        certificate compares the two solutions."""
        ...

    def solve(
        self,
        history: NDArray[np.floating],
        static: NDArray[np.floating],
        n_steps: int,
        *,
        dtype: type[np.floating] = np.float64,
    ) -> Samples:
        """The solver alone: ``n_steps`` snapshots that follow the last frame of ``history``. All samples are solved
        together where that is possible, so the caller decides how many that are. A problem with parameters that differ
        between samples also takes ``parameters``, as ``Samples`` has them.

        Args:
            history: as ``Samples`` has it.
            static: as ``Samples`` has it.
            n_steps: snapshots to solve for.
            dtype: of the arithmetic, float64 or float32.

        Raises:
            ValueError: a shape doesn't fit, or the solver doesn't compute in this precision.
        """
        ...

    def at(self, grid: Grid) -> Problem:
        """The same problem on another grid, solved at that grid's own resolution."""
        ...

    def relaxed(self, factor: float) -> Problem:
        """A cheaper, less accurate solver of the same problem on the same grid: with time steps ``factor`` times as
        long, as far as they are stable, or iterations that stop at a residual ``factor`` times as large."""
        ...
