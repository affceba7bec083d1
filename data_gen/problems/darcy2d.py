"""Steady flow through a porous medium: Darcy's law on the closed unit square.

    -div(a grad u) = f in (0, 1)^2,    u = 0 on the boundary

A random permeability a (static) is mapped to the pressure u. f is a constant, which only scales u. Where a jumps, so
does grad u, while the flux a grad u is continuous. Problem of Li et al. (2021), Fourier Neural Operator for Parametric
Partial Differential Equations, section 5.2; other laws of permeability reach contrasts of 1e6.
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

from data_gen.grids import Grid
from data_gen.permeability import PermeabilityLaw, TwoPhase
from data_gen.regrid import FACE_MEANS, FaceMean, averaged_to_faces
from data_gen.solvers import elliptic
from data_gen.spec import DatasetSpec, FieldSpec, Samples

# With more nodes per axis, one sample takes gigabytes.
MAX_RESOLUTION = 4097


@dataclass(frozen=True)
class Darcy2D:
    """Darcy flow as a dataset: equation, law of permeabilities and discretisation.

    Five-point finite volumes on the nodes i / (n - 1), with the harmonic mean of two neighbours on the face between
    them, solved in float64 to a given residual (``data_gen.solvers.elliptic``). The permeability is evaluated at the
    nodes of the solver's grid. The file has the values of both fields at the nodes of its coarser grid, not averages.

    Measured relative L2 difference from a solution on a grid twice as fine, largest of 8 samples: 7.7e-4 with the
    default (12 / 3) on 421 nodes, 3.8e-4 on 841, 5.7e-3 on 85. It is about proportional to the spacing to the power of
    1.3, because interfaces aren't aligned with the grid; for smooth permeabilities it is proportional to the square:
    5.5e-6 for the log-normal one on 421.

    Attributes:
        resolution: nodes per axis of the stored fields, both ends of an axis included.
        solver_resolution: nodes per axis of the solver's grid. It contains all nodes of the file's grid:
            solver_resolution - 1 is a multiple of resolution - 1.
        permeability: law of a.
        forcing: f > 0.
        residual_tolerance: largest relative residual of the linear system.

    Raises:
        ValueError: a parameter is out of range; the message names it.

    >>> Darcy2D(resolution=85, solver_resolution=421).spec.grid.shape
    (85, 85)
    """

    resolution: int = 85
    solver_resolution: int = 421
    permeability: PermeabilityLaw = field(default_factory=TwoPhase)
    forcing: float = 1.0
    residual_tolerance: float = 1e-8

    version: ClassVar[int] = 1
    # Ways in which ``solve`` averages a finer permeability.
    face_means: ClassVar[tuple[FaceMean, ...]] = FACE_MEANS

    def __post_init__(self) -> None:
        _require(self.resolution >= 3, "resolution", self.resolution, "at least 3")
        finer = self.solver_resolution
        _require(
            self.resolution <= finer <= MAX_RESOLUTION,
            "solver_resolution",
            finer,
            f"from dataset.problem.resolution={self.resolution} to {MAX_RESOLUTION}",
        )
        intervals = self.resolution - 1
        lower = finer - (finer - 1) % intervals
        _require(
            (finer - 1) % intervals == 0,
            "solver_resolution",
            finer,
            f"1 more than a multiple of dataset.problem.resolution - 1 = {intervals}, such as {lower} or "
            f"{lower + intervals}",
        )
        _require(0 < self.forcing < np.inf, "forcing", self.forcing, "positive")
        _require(
            1e-12 <= self.residual_tolerance <= 1e-2, "residual_tolerance", self.residual_tolerance, "in [1e-12, 1e-2]"
        )

    @property
    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            name="darcy2d",
            version=self.version,
            equation="-∇·(a∇u) = f in (0, 1)²,  u = 0 on the boundary",
            grid=_closed(self.resolution),
            times=(),
            state=(FieldSpec("pressure", "pressure u"),),
            static=(FieldSpec("permeability", "permeability a at the nodes"),),
            parameters={
                "forcing": self.forcing,
                "solver_resolution": self.solver_resolution,
                "residual_tolerance": self.residual_tolerance,
                **{f"permeability_{name}": value for name, value in self.permeability.parameters().items()},
            },
            conserved=("flux_balance", "positivity", "maximum_principle"),
            symmetries=("square_symmetries",),
            diagnostics=(
                FieldSpec("relative_residual", "‖f - A u‖ / ‖f‖ over the interior nodes of the solver's grid"),
                FieldSpec("flux_imbalance", "|flux out of the boundary - integral of f| / integral of f"),
                FieldSpec("undershoot", "depth below 0 of the least pressure, relative to the greatest; 0 if u >= 0"),
                FieldSpec("n_iterations", "iterations of the conjugate gradients"),
                FieldSpec("method", "0 conjugate gradients with a Poisson solver, 1 with scaling, 2 factorisation"),
            ),
            reference="Li et al. (2021), Fourier Neural Operator, arXiv 2010.08895, section 5.2",
        )

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw permeabilities, one per generator, and solve."""
        n = self.solver_resolution
        together = elliptic.samples_together(n)
        # In chunks, of which only the file's grid is kept: a whole shard on a fine grid might not fit in memory.
        chunks = []
        for start in range(0, len(rngs), together):
            drawn = [self.permeability.draw(rng, n) for rng in rngs[start : start + together]]
            chunks.append(self._solve(np.stack(drawn), self.resolution))
        return _joined(chunks, self.resolution)

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The same permeabilities, evaluated and solved on a grid twice as fine, to a tenth of the residual, and given
        on the same grid of the file."""
        finer = 2 * self.solver_resolution - 1
        tolerance = max(self.residual_tolerance / 10, 1e-12)
        return replace(self, solver_resolution=finer, residual_tolerance=tolerance).simulate(rngs)

    def solve(
        self,
        history: NDArray[np.floating],
        static: NDArray[np.floating],
        n_steps: int = 1,
        *,
        dtype: type[np.floating] = np.float64,
        face_mean: FaceMean | None = None,
    ) -> Samples:
        """Pressures for given permeabilities ``static`` [sample, 1, n, n], solved on their own grid, or with a
        ``face_mean`` on that of the problem, with this mean over the faces. ``dtype`` is that of the arithmetic.

        Raises:
            ValueError: there is a history (a steady problem has none), the permeability isn't one field on a square
                grid of at least 3 nodes or isn't finite and positive, or ``n_steps`` isn't 1.
        """
        if static.ndim != 4 or static.shape[1] != 1 or static.shape[2] != static.shape[3] or static.shape[3] < 3:
            raise ValueError(f"Darcy2D.solve expected a permeability [sample, 1, n >= 3, n], got {static.shape}.")
        if history.ndim != 5 or history.shape[:2] != (len(static), 0):
            raise ValueError(
                f"Darcy2D is steady: expected a history [{len(static)}, 0, 1, n, n] without frames, got "
                f"{history.shape}. Set dataset.history=0."
            )
        if n_steps != 1:
            raise ValueError(f"Darcy2D is steady: it has one step, got n_steps={n_steps}. Set dataset.horizon=1.")
        a = np.asarray(static[:, 0], dtype=dtype)
        n = self.resolution if face_mean else a.shape[1]
        together = elliptic.samples_together(n)
        return _joined([self._solve(a[i : i + together], n, face_mean) for i in range(0, len(a), together)], n)

    def at(self, grid: Grid) -> Darcy2D:
        """The same problem solved, and stored, at ``grid``'s own nodes.

        Raises:
            ValueError: the grid isn't a square grid of closed axes on the unit square.
        """
        if grid != _closed(grid.shape[0]):
            raise ValueError(f"Darcy2D needs a closed grid of n x n nodes on the unit square, got {grid}.")
        return replace(self, resolution=grid.shape[0], solver_resolution=grid.shape[0])

    def relaxed(self, factor: float) -> Darcy2D:
        """The same equation and grid, solved to a residual ``factor`` times as large, at most 1e-2."""
        return replace(self, residual_tolerance=min(1e-2, factor * self.residual_tolerance))

    def residual(self, trajectory: Tensor, static: Tensor) -> Float[Tensor, " batch"]:
        """How far fields are from solving the discrete equation on their own grid, relative to its right-hand side.

            ||-div(a grad u) - f||_-1 / ||f||_-1,    ||r||_-1^2 = r . (-Laplacian)^-1 r

        in the norm that is dual to that of gradients, so that it compares with a relative error of gradients up to the
        contrast of a. Values on the boundary are taken as 0, whatever they are. It is differentiable.

        Args:
            trajectory: pressures, [B, 1, 1, n, n].
            static: permeabilities at the nodes, [B, 1, n, n].
        """
        u, a = trajectory[:, 0, 0], static[:, 0]
        lacking, right = elliptic.residual(u, a, self.forcing), torch.full_like(u[:1, 1:-1, 1:-1], self.forcing)
        return elliptic.dual_norm(lacking) / elliptic.dual_norm(right)

    def _solve(self, a: NDArray[np.floating], resolution: int, face_mean: FaceMean | None = None) -> Samples:
        """Solve on the grid of the permeabilities [sample, n, n] and keep the nodes of a coarser grid, or average the
        permeabilities and solve on the coarser grid."""
        if face_mean is None:
            n, faces = a.shape[1], elliptic.harmonic_faces(a)
        else:
            n = resolution
            faces = elliptic.Faces(*(mean.astype(a.dtype) for mean in averaged_to_faces(a, n, face_mean)))
        h = 1 / (n - 1)
        right = np.full((len(a), n, n), self.forcing, a.dtype)
        solution = elliptic.solve(faces, right, h, tolerance=self.residual_tolerance)
        u = solution.values
        outflow = (
            (faces.x[:, 0] * u[:, 1] + faces.x[:, -1] * u[:, -2]).sum(axis=1)
            + (faces.y[:, :, 0] * u[:, :, 1] + faces.y[:, :, -1] * u[:, :, -2]).sum(axis=1)
        )  # fmt: skip
        inflow = self.forcing * (h * (n - 2)) ** 2  # over the volumes of the interior nodes
        diagnostics = {
            "relative_residual": solution.residual,
            "flux_imbalance": np.abs(outflow - inflow) / inflow,
            "undershoot": np.maximum(-u.min(axis=(1, 2)), 0) / u.max(axis=(1, 2)),
            "n_iterations": solution.iterations.astype(np.float64),
            "method": solution.method.astype(np.float64),
        }
        stride = (n - 1) // (resolution - 1)
        nodes = (slice(None), slice(None, None, stride), slice(None, None, stride))
        history = np.empty((len(a), 0, 1, resolution, resolution))
        a = a if face_mean else a[nodes]
        # Copies, because a view would keep the solver's whole grid in memory.
        return Samples(history, a[:, None].copy(), u[nodes][:, None, None].copy(), diagnostics)


def _closed(n_nodes: int) -> Grid:
    return Grid((n_nodes,) * 2, (1.0,) * 2, ("dirichlet",) * 2, ("closed",) * 2)


def _joined(chunks: Sequence[Samples], resolution: int) -> Samples:
    if not chunks:
        empty = np.empty((0, 1, resolution, resolution))
        return Samples(empty[:, :0, None], empty, empty[:, :, None])
    history, static, trajectory = (np.concatenate(parts) for parts in list(zip(*chunks, strict=True))[:3])
    names = chunks[0].diagnostics
    diagnostics = {name: np.concatenate([chunk.diagnostics[name] for chunk in chunks]) for name in names}
    return Samples(history, static, trajectory, diagnostics)


def _require(holds: bool, name: str, value: float, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.{name} must be {condition}, got {value}.")
