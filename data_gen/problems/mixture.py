"""Several equations in one dataset: every sample is one of them.

Networks that have seen many equations are said to learn another one from fewer samples. McCabe et al. (2024), Multiple
physics pretraining for spatiotemporal surrogate models, arXiv 2310.02994.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec, ParameterSpec, Problem, Samples


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Problems in time on grids of equal shape. Every sample draws one of them and then an input of its law.

    States are divided by ``scales``. All have as many fields as the problem with most of them; the rest is 0. Time is
    counted in stored steps, and lengths are those of the first problem. The number of the problem is a parameter that
    differs between samples, ``equation``: with ``dataset.conditioning=none`` a model has to see from the history which
    equation it is.

    Attributes:
        problems: what a sample may be (``data_gen.spec.Problem``), by any names. They have no static fields and no
            parameters that differ between samples.
        scales: typical sizes of their states, by the same names.
        resolution: points per axis of all of them.
        only: name of the one problem that all samples are; null for all.

    Raises:
        ValueError: the problems can't be mixed; the message says why.
    """

    problems: Mapping[str, Any]
    scales: Mapping[str, float]
    resolution: int
    only: str | None = None

    def __post_init__(self) -> None:
        if not self.problems or self.problems.keys() != self.scales.keys() or not min(self.scales.values()) > 0:
            raise ValueError(
                "dataset.problem.scales must have a positive number for each of dataset.problem.problems, "
                f"{', '.join(self.problems)}, got {dict(self.scales)}."
            )
        if self.only is not None and self.only not in self.problems:
            raise ValueError(f"dataset.problem.only must be null or one of {list(self.problems)}, got {self.only!r}.")
        first = self._parts[0].spec
        for spec in (part.spec for part in self._parts):
            if spec.static or spec.varying or spec.is_steady or spec.stores_initial:
                raise ValueError(
                    f"dataset.problem.problems contains {spec.name}, which is steady, doesn't store its initial state, "
                    "or has static fields or parameters that differ between samples. Leave it out."
                )
            if (spec.grid.nodes, spec.n_snapshots) != (first.grid.nodes, first.n_snapshots):
                raise ValueError(
                    f"dataset.problem.problems must have the same axes and n_snapshots, but {first.name} has "
                    f"{first.grid.nodes} and {first.n_snapshots}, {spec.name} {spec.grid.nodes} and {spec.n_snapshots}."
                )

    version: ClassVar[int] = 1

    @property
    def spec(self) -> DatasetSpec:
        specs = [part.spec for part in self._parts]
        symmetries = [name for name in specs[0].symmetries if all(name in spec.symmetries for spec in specs)]
        return DatasetSpec(
            name=f"mixture{specs[0].grid.n_dims}d",
            version=self.version,
            equation="; ".join(spec.equation for spec in specs),
            grid=specs[0].grid,
            times=tuple(float(step) for step in range(specs[0].n_snapshots)),
            state=tuple(FieldSpec(f"u{i + 1}", f"field {i + 1} over its typical size") for i in range(self._n_fields)),
            parameters={
                "equation": f"one of {', '.join(self.problems)}" if self.only is None else self.only,
                "scales": ", ".join(f"{scale:g}" for scale in self.scales.values()),
                **{
                    f"{name}_{key}": value
                    for name, spec in zip(self.problems, specs, strict=True)
                    for key, value in spec.parameters.items()
                },
            },
            symmetries=tuple(symmetries),
            reference="; ".join(dict.fromkeys(spec.reference for spec in specs if spec.reference)),
            varying=(ParameterSpec("equation"),),
        )

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw a problem for each generator, and solve its sample."""
        return self._drawn(rngs, lambda part, own: part.simulate(own))

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The same samples, each as its problem refines it."""
        return self._drawn(rngs, lambda part, own: part.simulate_refined(own))

    def solve(
        self,
        history: NDArray[np.floating],
        static: NDArray[np.floating],
        n_steps: int,
        parameters: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        dtype: type[np.floating] = np.float64,
    ) -> Samples:
        """Each sample as its problem solves it; ``parameters`` has the number of the problem, ``equation``.

        Raises:
            ValueError: ``parameters`` is missing, or a problem refuses the shapes.
        """
        if parameters is None or "equation" not in parameters:
            raise ValueError("Mixture.solve needs parameters={'equation': ...}, the number of each sample's problem.")
        chosen = np.asarray(parameters["equation"]).round().astype(int)

        def solved(part: Problem, own: NDArray[np.int64], number: int) -> Samples:
            n_fields = len(part.spec.state)
            given = history[own][:, :, :n_fields] * self._sizes[number]
            return part.solve(given, static[own], n_steps, dtype=dtype)

        return self._assembled(
            chosen, ((number, own, solved(part, own, number)) for number, part, own in self._shares(chosen))
        )

    def at(self, grid: Grid) -> Mixture:
        """The same problems on another grid.

        Raises:
            ValueError: the grid isn't that of the first problem with another number of points.
        """
        other = replace(self, resolution=grid.shape[0])
        if other.spec.grid != grid:
            raise ValueError(f"Mixture needs a grid of lengths {self.spec.grid.lengths}, got {grid}.")
        return other

    def relaxed(self, factor: float) -> Mixture:
        """Each problem with steps ``factor`` times as long."""
        return replace(self, problems={name: problem.relaxed(factor) for name, problem in self.problems.items()})

    @cached_property
    def _parts(self) -> tuple[Problem, ...]:
        grids = {name: problem.spec.grid for name, problem in self.problems.items()}
        return tuple(
            problem.at(replace(grids[name], shape=(self.resolution,) * grids[name].n_dims))
            for name, problem in self.problems.items()
        )

    @property
    def _sizes(self) -> list[float]:
        return [self.scales[name] for name in self.problems]

    @property
    def _n_fields(self) -> int:
        return max(len(part.spec.state) for part in self._parts)

    def _drawn(
        self,
        rngs: Sequence[np.random.Generator],
        solve: Callable[[Problem, Sequence[np.random.Generator]], Samples],
    ) -> Samples:
        drawn = [int(rng.integers(len(self.problems))) for rng in rngs]
        if self.only is not None:
            drawn = [list(self.problems).index(self.only)] * len(drawn)
        chosen = np.array(drawn)
        return self._assembled(
            chosen,
            ((number, own, solve(part, [rngs[i] for i in own])) for number, part, own in self._shares(chosen)),
        )

    def _shares(self, chosen: NDArray[np.int64]) -> Iterator[tuple[int, Problem, NDArray[np.int64]]]:
        """Numbers of the problems that were chosen, the problems, and which samples they are."""
        for number in np.unique(chosen):
            yield int(number), self._parts[number], np.flatnonzero(chosen == number)

    def _assembled(
        self, chosen: NDArray[np.int64], solved: Iterator[tuple[int, NDArray[np.int64], Samples]]
    ) -> Samples:
        whole: dict[str, NDArray[np.floating]] = {}
        for number, own, samples in solved:
            for name in ("history", "trajectory"):
                fields = getattr(samples, name) / self._sizes[number]
                shape = (len(chosen), fields.shape[1], self._n_fields, *fields.shape[3:])
                whole.setdefault(name, np.zeros(shape, fields.dtype))[own, :, : fields.shape[2]] = fields
        space = whole["trajectory"].shape[3:]
        static = np.empty((len(chosen), 0, *space))
        return Samples(whole["history"], static, whole["trajectory"], parameters={"equation": chosen.astype(float)})
