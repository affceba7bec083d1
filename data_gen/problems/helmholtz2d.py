"""Time-harmonic sound in a random medium, with absorbing sides: the Helmholtz equation.

    -Laplacian u - (omega / c)^2 u = f in (0, 1)^2,    du/dn - i (omega / c) u = 0 on all four sides

for the complex amplitude u of waves u exp(-i omega t). A random sound speed c and a random source f, both static, are
mapped to the real and the imaginary part of u. The impedance condition on the sides absorbs waves that meet them at a
right angle; others are partly reflected, as if the outside had a surface that absorbs. The problem has one solution for
any omega. Its power is balanced: what the source feeds in leaves through the sides.

Similar data: helmholtz_staircase of The Well (Ohana et al. 2024, arXiv 2412.00568), and the Helmholtz equation of de
Hoop et al. (2022), The cost-accuracy trade-off in operator learning with neural networks, arXiv 2203.13181. Media and
sources are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from data_gen.cosine_fields import SmoothMedium, WallPulses
from data_gen.grids import Grid
from data_gen.random_fields import (
    Parameter,
    draw_parameters,
    given_parameters,
    in_words,
    require_parameter,
    varying,
)
from data_gen.solvers import helmholtz
from data_gen.spec import DatasetSpec, FieldSpec, Samples, SolverError

# With fewer cells on the shortest wave, solutions mean nothing: errors are above 0.1.
_LEAST_CELLS = 4.0
# A factorisation on more nodes per axis takes gigabytes.
MAX_RESOLUTION = 513


@dataclass(frozen=True, kw_only=True)
class Helmholtz2D:
    """Helmholtz as a dataset: equation, laws of media and sources, and discretisation.

    Quadratic spectral elements on uniform nodes, of fourth order (``data_gen.solvers.helmholtz``), and a sparse
    factorisation. Every sample has a medium, and so a factorisation, of its own, because it depends on its own random
    stream alone. The file has the values at the nodes of its coarser grid.

    Measured relative L2 difference from a solution on a grid twice as fine, largest of 6 samples with the default:
    5.1e-4 on 129 nodes, 1.4e-2 on 65, where the shortest waves have 12 and 6 cells. It is about proportional to the
    fourth power of the spacing and the fifth of omega.

    Attributes:
        resolution: nodes per axis of the stored fields, sides included.
        solver_resolution: nodes per axis of the solver's grid, odd. It contains all nodes of the file's grid:
            solver_resolution - 1 is a multiple of resolution - 1.
        angular_frequency: omega, perhaps a law.
        medium: law of c.
        source: law of f.

    Raises:
        ValueError: a parameter is out of range; the message names it.
    """

    resolution: int = 65
    solver_resolution: int = 129
    angular_frequency: Parameter = 30.0
    medium: SmoothMedium = field(default_factory=SmoothMedium)
    source: WallPulses = field(default_factory=WallPulses)

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _require(self.resolution >= 3, "resolution", self.resolution, "at least 3")
        finer = self.solver_resolution
        _require(
            self.resolution <= finer <= MAX_RESOLUTION and finer % 2 == 1,
            "solver_resolution",
            finer,
            f"odd, from dataset.problem.resolution={self.resolution} to {MAX_RESOLUTION}",
        )
        _require(
            (finer - 1) % (self.resolution - 1) == 0,
            "solver_resolution",
            finer,
            f"1 more than a multiple of dataset.problem.resolution - 1 = {self.resolution - 1}",
        )
        require_parameter(self, "angular_frequency", positive="")

    @property
    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            name="helmholtz2d",
            version=self.version,
            equation="-∇²u − (ω/c)² u = f in (0, 1)²,  ∂ₙu − i (ω/c) u = 0 on the boundary",
            grid=_closed(self.resolution),
            times=(),
            state=(FieldSpec("real", "real part of the amplitude u"), FieldSpec("imaginary", "its imaginary part")),
            static=(FieldSpec("sound_speed", "sound speed c at the nodes"), FieldSpec("source", "source f")),
            parameters={
                "angular_frequency": in_words(self, "angular_frequency"),
                "solver_resolution": self.solver_resolution,
                **{f"medium_{name}": value for name, value in vars(self.medium).items()},
                **{f"source_{name}": value for name, value in vars(self.source).items()},
            },
            symmetries=("square_symmetries",),
            diagnostics=(
                FieldSpec("relative_residual", "‖f - A u‖ / ‖f‖ over the nodes of the solver's grid"),
                FieldSpec("power_imbalance", "|power of the source - power through the sides| / the latter"),
                FieldSpec("cells_per_wavelength", "the solver's cells on the shortest local wavelength 2π c / ω"),
            ),
            reference="de Hoop et al. (2022), arXiv 2203.13181; Ohana et al. (2024), The Well, arXiv 2412.00568",
            varying=varying(self),
        )

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw media and sources, one of each per generator, and solve.

        Raises:
            SolverError: a wave is too short for the solver's grid.
        """
        n = self.solver_resolution
        parameters = draw_parameters(self, rngs)
        drawn = np.stack([[self.medium.draw(rng, n), self.source.draw(rng, n)] for rng in rngs])
        frequencies = self._frequencies(parameters, len(rngs))
        _refuse_short_waves(drawn, frequencies, SolverError)
        return self._solve(drawn, frequencies, parameters, self.resolution)

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The same inputs, evaluated and solved on a grid twice as fine, and given on the same grid of the file."""
        return replace(self, solver_resolution=2 * self.solver_resolution - 1).simulate(rngs)

    def solve(
        self,
        history: NDArray[np.floating],
        static: NDArray[np.floating],
        n_steps: int = 1,
        parameters: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        dtype: type[np.floating] = np.float64,
    ) -> Samples:
        """Amplitudes for given sound speeds and sources ``static`` [sample, 2, n, n], solved on their own grid.
        ``dtype`` is that of the arithmetic.

        Raises:
            ValueError: there is a history (a steady problem has none), the static fields aren't two on a square grid of
                an odd number of nodes, a sound speed isn't positive, a wave is too short for the grid, ``n_steps``
                isn't 1, or a parameter is missing.
        """
        n = static.shape[-1]
        if static.shape != (len(static), 2, n, n) or n < 3 or n % 2 == 0:
            raise ValueError(
                "Helmholtz2D.solve expected a sound speed and a source [sample, 2, n, n] with n odd, got "
                f"{static.shape}."
            )
        if history.ndim != 5 or history.shape[:2] != (len(static), 0):
            raise ValueError(
                f"Helmholtz2D is steady: expected a history [{len(static)}, 0, 2, n, n] without frames, got "
                f"{history.shape}. Set dataset.history=0."
            )
        if n_steps != 1:
            raise ValueError(f"Helmholtz2D is steady: it has one step, got n_steps={n_steps}. Set dataset.horizon=1.")
        if not (static[:, 0] > 0).all():
            raise ValueError(f"Helmholtz2D.solve needs positive sound speeds, got {static[:, 0].min():g}.")
        given = given_parameters(self, parameters, len(static))
        frequencies = self._frequencies(given, len(static))
        _refuse_short_waves(static, frequencies, ValueError)
        return self._solve(np.asarray(static, dtype=dtype), frequencies, given, n)

    def at(self, grid: Grid) -> Helmholtz2D:
        """The same problem solved, and stored, at ``grid``'s own nodes.

        Raises:
            ValueError: the grid isn't a square grid of closed axes on the unit square with an odd number of nodes.
        """
        if grid != _closed(grid.shape[0]):
            raise ValueError(
                f"Helmholtz2D needs a grid of n x n closed nodes with open sides on the unit square, got {grid}."
            )
        return replace(self, resolution=grid.shape[0], solver_resolution=grid.shape[0])

    def relaxed(self, factor: float) -> Helmholtz2D:
        """Itself: a factorisation has no tolerance and no steps."""
        del factor
        return self

    def _frequencies(self, parameters: Mapping[str, NDArray[np.floating]], n_samples: int) -> NDArray[np.floating]:
        return parameters.get("angular_frequency", np.full(n_samples, self.angular_frequency))

    def _solve(
        self,
        static: NDArray[np.floating],
        frequencies: NDArray[np.floating],
        parameters: Mapping[str, NDArray[np.floating]],
        resolution: int,
    ) -> Samples:
        """Solve on the grid of the static fields [sample, 2, n, n] and keep the nodes of a coarser grid."""
        stride = (static.shape[-1] - 1) // (resolution - 1)
        nodes = (slice(None, None, stride),) * 2
        trajectory = np.empty((len(static), 1, 2, resolution, resolution))
        diagnostics = {entry.name: np.empty(len(static)) for entry in self.spec.diagnostics}
        for sample, ((speed, source), omega) in enumerate(zip(static, frequencies, strict=True)):
            wavenumber = (omega / speed).astype(speed.dtype)
            solution = helmholtz.solve(wavenumber, source)
            trajectory[sample, 0] = solution.values.real[nodes], solution.values.imag[nodes]
            diagnostics["relative_residual"][sample] = solution.residual
            diagnostics["power_imbalance"][sample] = solution.power_imbalance
            diagnostics["cells_per_wavelength"][sample] = _cells(speed, omega)
        history = np.empty((len(static), 0, 2, resolution, resolution))
        return Samples(history, static[(..., *nodes)].copy(), trajectory, diagnostics, parameters)


def _cells(speed: NDArray[np.floating], omega: float) -> float:
    """Cells on the shortest local wavelength."""
    return float(2 * np.pi * speed.min() / omega * (speed.shape[-1] - 1))


def _refuse_short_waves(
    static: NDArray[np.floating], frequencies: NDArray[np.floating], error: type[Exception]
) -> None:
    for sample, (fields, omega) in enumerate(zip(static, frequencies, strict=True)):
        cells = _cells(fields[0], omega)
        if cells < _LEAST_CELLS:
            raise error(
                f"Sample {sample} of the batch has only {cells:.1f} cells of its grid of {fields.shape[-1]} nodes on "
                f"its shortest wave, and needs {_LEAST_CELLS:g}. Raise dataset.problem.solver_resolution, or lower "
                "dataset.problem.angular_frequency."
            )


def _closed(n_nodes: int) -> Grid:
    return Grid((n_nodes,) * 2, (1.0,) * 2, ("open",) * 2, ("closed",) * 2)


def _require(holds: bool, name: str, value: float, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.{name} must be {condition}, got {value}.")
