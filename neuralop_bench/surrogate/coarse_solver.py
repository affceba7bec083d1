"""A dataset's own solver on another grid as a predictor: a rung of the ladder, or the start that a network corrects."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.regrid import FACE_MEANS, FaceMean, Mean, averaged, interpolate, regrid
from data_gen.spec import Problem
from neuralop_bench.batch import Batch, Trajectory
from neuralop_bench.layers.options import Inapplicable
from neuralop_bench.surrogate.projection import mask_channel

# How static fields come to the solver's grid. A coarser one gets their values at its nodes, or their means over its
# cells or (if the solver takes these) over its faces. On a finer one they are drawn again from the streams of the
# samples: more than any model sees.
Inputs = Literal["picked", "redrawn"] | Mean | FaceMean
PICKED: Literal["picked"] = "picked"
REDRAWN: Literal["redrawn"] = "redrawn"
Precision = Literal["float64", "float32"]


# Of a cell, over which a mean is taken; interpolation overshoots.
_LEAST_SHARE = 0.1


class CoarseSolver:
    """A solver on its own grid as a predictor: the input is brought to that grid, the solution back to the file's grid.

    Between periodic grids wavenumbers are cut off or padded with zeros. On a closed grid, static fields are taken at
    the nodes, averaged over cells or drawn again; what varies in time, and the solution, are interpolated with cubic
    splines.

    Args:
        problem: on the solver's grid.
        file_grid: of the inputs and predictions.
        inputs: how static fields come to the solver's grid.
        precision: of the solver's arithmetic.
        drawn: static fields on the solver's grid, by the bytes of a sample's own (``redrawn``).
    """

    def __init__(
        self,
        problem: Problem,
        file_grid: Grid,
        inputs: Inputs = PICKED,
        precision: Precision = "float64",
        drawn: Mapping[bytes, NDArray[np.floating]] = MappingProxyType({}),
    ) -> None:
        self._problem, self._grid, self._file_grid = problem, problem.spec.grid, file_grid
        self._inputs: Inputs = inputs
        self._drawn = drawn
        self._dtype = {"float64": np.float64, "float32": np.float32}[precision]

    @classmethod
    def correctable(cls, problem: Problem, fraction: float, *, relaxation: float) -> CoarseSolver:
        """The solver of a dataset on a fraction of the intervals of its grid, in the single precision of networks, so
        that one of them can correct it.

        Args:
            problem: on the grid of the data.
            fraction: 0.5 for 32 of 64 points.
            relaxation: how many times as long its steps are, or its largest residual.

        Raises:
            Inapplicable: parameters of the problem differ between samples; the network doesn't give them to the solver.
            ValueError: the solver can't work on this grid.
        """
        spec = problem.spec
        if spec.varying:
            raise Inapplicable(
                f"The solver of {spec.name} needs parameters that differ between samples, but a network doesn't hand "
                "them on. Use surrogate.solver=null and trainer.diverted=false."
            )
        try:
            coarse = problem.at(coarsened(spec.grid, fraction)).relaxed(relaxation)
        except ValueError as reason:
            raise ValueError(
                f"surrogate.solver={fraction}: the solver of {spec.name} doesn't work on this fraction of its "
                f"{'x'.join(map(str, spec.grid.shape))} points. {reason} Change surrogate.solver."
            ) from reason
        return cls(coarse, spec.grid, "arithmetic" if spec.static and fraction < 1 else PICKED, "float32")

    def predict(self, batch: Batch, n_steps: int) -> Trajectory:
        """The ``n_steps`` snapshots [B, n_steps, C, *S] that follow the history, on the file's grid.

        Raises:
            ValueError: the batch is on another grid.
        """
        if batch.static.shape[2:] != self._file_grid.shape:
            raise ValueError(
                f"The solver takes fields on {self._file_grid.shape} points, got {tuple(batch.static.shape[2:])}. A "
                "network that corrects a solver works on the grid of its training alone."
            )
        device = batch.history.device
        history = interpolate(batch.history.cpu().numpy(), self._file_grid, self._grid)
        # Without the parameters that models are given.
        static = self._brought(batch.static.cpu().numpy()[:, : len(self._problem.spec.static)])
        names = [entry.name for entry in self._problem.spec.varying]
        values = dict(zip(names, batch.parameters.cpu().numpy().T, strict=True)) if names else {}
        given: dict[str, Any] = {"parameters": values} if names else {}
        if self._inputs in FACE_MEANS:
            given["face_mean"] = self._inputs
        with nullcontext() if device.type == "cpu" else device:
            solved = self._problem.solve(history, static, n_steps, **given, dtype=self._dtype)
        trajectory = interpolate(solved.trajectory, self._grid, self._file_grid)
        mask = mask_channel(self._problem.spec)
        if mask is not None:  # means over the part of a cell where the equation holds: elsewhere solutions are 0
            where = np.where(static[:, mask, None, None] > 0, 1.0, 0.0)
            share = interpolate(where, self._grid, self._file_grid)
            trajectory = trajectory / np.maximum(share, _LEAST_SHARE)
        return torch.from_numpy(trajectory).to(device, torch.float32)

    def _brought(self, static: NDArray[np.floating]) -> NDArray[np.floating]:
        if self._inputs == REDRAWN:
            return np.stack([self._drawn[sample.tobytes()] for sample in static])
        if self._inputs == PICKED:
            return regrid(static, self._file_grid, self._grid)
        if self._inputs in FACE_MEANS:
            return static
        return averaged(static, self._file_grid, self._grid, cast(Mean, self._inputs))


def coarsened(grid: Grid, fraction: float) -> Grid:
    """The grid with a fraction of the intervals along every axis, rounded to an even number of points on a circle.

    >>> coarsened(Grid.periodic(64), 0.375).shape
    (24, 24)
    """
    shape = []
    for n, nodes in zip(grid.shape, grid.nodes, strict=True):
        closed = 1 if nodes == "closed" else 0
        shape.append(round((n - closed) * fraction) + closed)
    return replace(grid, shape=tuple(shape))
