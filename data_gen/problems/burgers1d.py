"""The viscous Burgers equation on the unit circle.

    u_t + (u^2 / 2)_x = nu u_xx    on [0, 1), periodic

Where the velocity falls along x, the wave steepens into a front of width 4 nu / (jump of u). Fronts move, merge and
decay. Good values of the viscosity nu are 1e-2 (steep, resolved by 384 points) down to 1e-3 (1024 points). At 0.1, the
value in the text of the paper, little more than one decaying sine of amplitude 0.01 is left at t = 1. Problem of Li et
al. (2021), Fourier Neural Operator for Parametric Partial Differential Equations, section 5.1.

The Cole-Hopf transform u = -2 nu (log phi)_x turns the equation into the heat equation for phi. The tests compare with
this exact solution. Hopf (1950), The partial differential equation u_t + u u_x = mu u_xx, Comm. Pure Appl. Math. 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from data_gen import spectral
from data_gen.grids import Grid
from data_gen.random_fields import (
    Parameter,
    PeriodicGaussianField1D,
    SumOfSines,
    TruncatedFourierSeries,
    draw_parameters,
    given_parameters,
    in_words,
    require_parameter,
    varying,
)
from data_gen.solvers.etdrk4 import graded_steps, halved, integrate
from data_gen.spec import DatasetSpec, FieldSpec, Samples, SolverError
from data_gen.spectral import Space

# ETDRK4 is stable at every wavenumber of any resolution if max|u| sqrt(dt / nu) <= 2.19: damping by nu kappa^2 dt then
# outweighs advection by a frozen velocity. This leaves a margin; max|u| never grows (maximum principle).
STABILITY = 2.0
# If a sample needs more steps than this, the viscosity is assumed to be a mistake.
MAX_STEPS = 200_000


@dataclass(frozen=True)
class Burgers1D:
    """Burgers' equation as a dataset: equation, law of initial states and discretisation.

    Pseudo-spectral in space with the strict 2/3 rule, ETDRK4 in time, float64 throughout. The initial states are rough
    (their second derivative isn't square integrable), so the steps start small and grow to ``max_step``. If this is
    unstable for a sample, because it is fast or the viscosity is small, its largest step is halved as often as needed.

    Measured with the defaults, largest relative L2 error at t = 1 of 256 samples on 8192 points against the Cole-Hopf
    solution: 4.3e-7 at nu = 0.01 (6.5e-7 of 1024 others), 2.3e-7 at nu = 0.1. Fronts that are still forming are less
    accurate: 4e-4 at t = 0.1 and 2e-5 at t = 0.3 for nu = 0.01 (4e-5 and 2e-7 with a max_step of 2e-3). nu = 1e-3 needs
    a solver_resolution of 1024 and a max_step of 2e-3 for 2e-7 at t = 1 (64 samples, against 4096 points and a quarter
    of the step); the default steps give 1.4e-5.

    Attributes:
        viscosity: nu > 0, in units of (domain length)^2 / time; a number, or a law of one number per sample.
        resolution: points of the stored snapshots, even. Spectra are padded with zeros to this grid, or cut off if it
            is too coarse for the solver's wavenumbers.
        solver_resolution: points of the solver's grid, even. Initial states hold the wavenumbers below a third of it;
            with 384 points these are the 127 that a grid of 256 points can hold. Solutions at t = 1 on 384 and 1024
            points differ by 2e-13 (nu = 0.01, the largest of 256 samples) and 1e-8 (nu = 0.005).
        interval, n_snapshots: the stored times 0, interval, 2 interval, ...
        initial: law of the initial velocity.
        first_step, step_growth, max_step: steps first_step, first_step step_growth, ... up to max_step.
        inner_batch: samples that ``simulate`` solves together, for speed. It is part of the address, because the bytes
            may depend on it.

    Raises:
        ValueError: a parameter is out of range; the message names it.

    >>> Burgers1D(viscosity=0.01, resolution=256).spec.times
    (0.0, 1.0)
    """

    viscosity: Parameter = 1e-2
    resolution: int = 1024
    solver_resolution: int = 384
    interval: float = 1.0
    n_snapshots: int = 2
    initial: PeriodicGaussianField1D | TruncatedFourierSeries | SumOfSines = field(
        default_factory=PeriodicGaussianField1D
    )
    first_step: float = 1e-4
    step_growth: float = 1.3
    max_step: float = 8e-3
    inner_batch: int = 128

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_parameter(self, "viscosity", positive=" (an inviscid flow has no resolved limit)")
        for name in ("interval", "max_step"):
            value = getattr(self, name)
            _require(0 < value < math.inf, name, value, "positive")
        for name in ("resolution", "solver_resolution"):
            value = getattr(self, name)
            _require(value >= 4 and value % 2 == 0, name, value, "even and at least 4")
        _require(self.n_snapshots >= 2, "n_snapshots", self.n_snapshots, "at least 2 (the initial state is the first)")
        _require(0 < self.first_step <= self.max_step, "first_step", self.first_step, "in (0, max_step]")
        _require(1 <= self.step_growth < math.inf, "step_growth", self.step_growth, "at least 1")
        _require(self.inner_batch >= 1, "inner_batch", self.inner_batch, "at least 1")

    @property
    def k_max(self) -> int:
        """Largest wavenumber that the solver keeps."""
        return spectral.max_wavenumber(self.solver_resolution, dealiased=True)

    @property
    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            name="burgers1d",
            version=self.version,
            equation="∂ₜu + ∂ₓ(u²/2) = ν ∂ₓₓu",
            grid=Grid.periodic(self.resolution, n_dims=1),
            times=tuple(self.interval * i for i in range(self.n_snapshots)),
            state=(FieldSpec("velocity", "velocity u", "length/time"),),
            parameters={
                "viscosity": in_words(self, "viscosity"),
                "solver_resolution": self.solver_resolution,
                **{f"initial_{name}": value for name, value in asdict(self.initial).items()},
                "first_step": self.first_step,
                "step_growth": self.step_growth,
                "max_step": self.max_step,
            },
            conserved=("mean", "energy"),
            symmetries=("translation", "odd_reflection"),
            state_variance=self._variance,
            diagnostics=(
                FieldSpec("mean_drift", "largest change of the spatial mean at a stored time", "length/time"),
                FieldSpec(
                    "spectrum_tail", "norm of the solver's highest wavenumbers at any time, relative to u at t=0"
                ),
                FieldSpec("n_steps", "time steps taken"),
            ),
            reference="Li et al. (2021), Fourier Neural Operator, arXiv 2010.08895, section 5.1",
            varying=varying(self),
        )

    @property
    def _variance(self) -> tuple[float, ...]:
        law = self.initial
        return (law.variance(self.k_max),) if isinstance(law, PeriodicGaussianField1D) else ()

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw initial velocities, one per generator, and solve to the stored times."""
        drawn = draw_parameters(self, rngs)
        return self._run(self._draw(rngs), self.n_snapshots - 1, drawn, stores_initial=True)

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The inputs of ``simulate``, padded with zeros to twice the solver's resolution, solved with every step
        halved, and given on the same grid."""
        u_hat = self._draw(rngs)
        fine = replace(self, solver_resolution=2 * self.solver_resolution)
        padded = torch.nn.functional.pad(u_hat, (0, fine.k_max - self.k_max))
        drawn = draw_parameters(self, rngs)
        return fine._run(padded, self.n_snapshots - 1, drawn, stores_initial=True, halve=True)

    def solve(
        self,
        history: NDArray[np.floating],
        static: NDArray[np.floating],
        n_steps: int,
        parameters: Mapping[str, NDArray[np.floating]] | None = None,
        *,
        dtype: type[np.floating] = np.float64,
    ) -> Samples:
        """``n_steps`` snapshots, ``interval`` apart, that follow the last frame of ``history`` [sample, time, 1, n].

        The history may be on any periodic grid; ``static`` has no channels. All samples are solved together. If the
        viscosity has a law, ``parameters`` has that of each sample. ``dtype`` is that of the arithmetic.

        Raises:
            ValueError: the history holds no frame, or isn't one field in one dimension; there are static fields;
                ``n_steps`` is below 1; or the viscosity of the samples is missing.
        """
        if history.ndim != 4 or history.shape[1] < 1 or history.shape[2] != 1:
            raise ValueError(
                f"Burgers1D.solve expected a history [sample, time >= 1, 1, n], got {tuple(history.shape)}."
            )
        if static.shape[1] != 0:
            raise ValueError(f"Burgers1D has no static fields, got {static.shape[1]}.")
        if n_steps < 1:
            raise ValueError(f"Burgers1D.solve needs n_steps of at least 1, got {n_steps}.")
        last = torch.as_tensor(np.asarray(history[:, -1, 0], dtype=dtype))
        together = replace(self, inner_batch=len(last))
        given = given_parameters(self, parameters, len(last))
        return together._run(spectral.from_grid_1d(last, self.k_max), n_steps, given, stores_initial=False)

    def at(self, grid: Grid) -> Burgers1D:
        """The same equation solved, and stored, at ``grid``'s own resolution.

        Raises:
            ValueError: the grid isn't the periodic grid of the unit interval, or has an odd number of points.
        """
        if grid != Grid.periodic(grid.shape[0], n_dims=1):
            raise ValueError(f"Burgers1D needs a periodic grid on the unit interval, got {grid}.")
        return replace(self, resolution=grid.shape[0], solver_resolution=grid.shape[0])

    def relaxed(self, factor: float) -> Burgers1D:
        """The same equation and grid with all steps ``factor`` times as long, halved where they would be unstable."""
        return replace(self, first_step=factor * self.first_step, max_step=factor * self.max_step)

    def _draw(self, rngs: Sequence[np.random.Generator]) -> Complex[Tensor, "sample modes"]:
        if isinstance(self.initial, PeriodicGaussianField1D):
            drawn = self.initial.draw(rngs, self.k_max)
        else:
            drawn = self.initial.draw(rngs, 1, Space(2 * self.k_max + 2, 1, 1.0, degree=1))[:, 0]
        return drawn.to(torch.get_default_device())

    def _run(
        self,
        u_hat: Complex[Tensor, "sample modes"],
        n_steps: int,
        parameters: Mapping[str, NDArray[np.float64]],
        *,
        stores_initial: bool,
        halve: bool = False,
    ) -> Samples:
        """Solve from the coefficients ``u_hat`` over ``n_steps`` intervals; ``halve`` halves every step."""
        n_samples = len(u_hat)
        states = torch.cat([u_hat[:, None], u_hat.new_empty(n_samples, n_steps, u_hat.shape[-1])], dim=1)
        tails = u_hat.real.new_zeros(n_samples)
        counts = torch.zeros_like(tails)
        viscosity = self.viscosity
        if parameters:
            viscosity = torch.from_numpy(parameters["viscosity"]).to(u_hat.device)
        dynamics = BurgersDynamics(viscosity, self.solver_resolution, u_hat.device, u_hat.real.dtype)
        times = [self.interval * i for i in range(n_steps + 1)]
        # Samples with equal steps are solved together. The steps of a sample depend only on its speed and viscosity.
        halvings = self._halvings(dynamics.speed(u_hat), viscosity, times[-1])
        for n_halvings in sorted(set(halvings.tolist())):
            largest = self.max_step / 2**n_halvings
            steps = graded_steps(times, min(self.first_step, largest), self.step_growth, largest)
            settled = sum(steps[0][: steps[0].index(steps[0][-1])])
            steps = halved(steps) if halve else steps
            members = torch.nonzero(halvings == n_halvings).flatten()
            counts[members] = float(sum(map(len, steps)))
            for chunk in members.split(self.inner_batch):
                start = u_hat[chunk]
                tail = SpectrumTail(start, settled)
                linear = dynamics.linear[chunk] if parameters else dynamics.linear
                states[chunk, 1:] = integrate(
                    linear, dynamics.nonlinear, start, steps, observe=tail, numbers=chunk.tolist()
                )
                tails[chunk] = tail.largest
        drifts = (states[:, :, 0] - u_hat[:, :1]).abs().amax(dim=1)
        frames = spectral.to_grid_1d(states, self.resolution)[:, :, None].cpu().numpy()
        diagnostics = {"mean_drift": drifts, "spectrum_tail": tails, "n_steps": counts}
        return Samples(
            frames[:, :1],
            np.empty((n_samples, 0, self.resolution)),
            frames if stores_initial else frames[:, 1:],
            {name: values.cpu().numpy() for name, values in diagnostics.items()},
            parameters,
        )

    def _halvings(
        self, speed: Float[Tensor, " sample"], viscosity: float | Float[Tensor, " sample"], duration: float
    ) -> Int[Tensor, " sample"]:
        """How often each sample's largest step is halved until it is stable."""
        if not bool(torch.isfinite(speed).all()):
            worst = int(torch.argmin(torch.isfinite(speed).int()))
            raise SolverError(f"Sample {worst} of the batch starts from a state that isn't finite. Fix the history.")
        excess = self.max_step * speed**2 / (STABILITY**2 * viscosity)
        halvings = torch.ceil(torch.log2(excess.clamp(min=1)))
        worst = int(torch.argmax(halvings))
        needed = duration / self.max_step * 2 ** float(halvings[worst])
        if needed > MAX_STEPS:
            raise SolverError(
                f"Sample {worst} of the batch, of speed {float(speed[worst]):.3g}, needs {needed:.3g} steps from t=0 "
                f"to t={duration:g}, more than {MAX_STEPS}. Raise dataset.problem.viscosity."
            )
        return halvings.to(torch.int64)


class BurgersDynamics:
    """Right-hand side of Burgers' equation on Fourier coefficients k = 0 ... K (``data_gen.spectral``).

    ``linear`` is the symbol -nu (2 pi k)^2, [modes], or [sample, modes] for a viscosity per sample. ``nonlinear`` is
    -(u^2 / 2)_x, dealiased: the square is computed on a grid of n > 3K points, so its aliases are at wavenumbers that
    are dropped. ``dtype`` is that of the fields; ``linear`` is float64.
    """

    def __init__(
        self,
        viscosity: float | Float[Tensor, " sample"],
        resolution: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.resolution = resolution
        self.k_max = spectral.max_wavenumber(resolution, dealiased=True)
        kappa = 2 * math.pi * spectral.wavenumbers_1d(self.k_max, device)
        self.linear = -(viscosity[:, None] if isinstance(viscosity, Tensor) else viscosity) * kappa**2
        self._half_derivative = (-0.5j * kappa).to(dtype.to_complex())

    def nonlinear(self, u_hat: Complex[Tensor, "sample modes"]) -> Complex[Tensor, "sample modes"]:
        """-(u^2 / 2)_x, dealiased."""
        u = spectral.to_grid_1d(u_hat, self.resolution)
        squared_hat = torch.fft.rfft(u.mul_(u), norm="forward")
        return squared_hat[..., : self.k_max + 1] * self._half_derivative

    def speed(self, u_hat: Complex[Tensor, "sample modes"]) -> Float[Tensor, " sample"]:
        """max |u| of each sample on the solver's grid."""
        return spectral.to_grid_1d(u_hat, self.resolution).abs().amax(dim=-1)


class SpectrumTail:
    """Observes how large the highest third of the wavenumbers becomes after the time ``start``: almost zero if the
    fronts are resolved.

    ``largest`` is, per sample, the largest L2 norm of that part relative to the norm of the initial field. With a start
    after the steps have stopped growing, the roughness of the initial field isn't counted.
    """

    def __init__(self, initial: Complex[Tensor, "sample modes"], start: float) -> None:
        self._start = start
        self._first = 2 * initial.shape[-1] // 3
        # A field at rest has no tail.
        power = _power(initial)
        self._power = power.clamp(min=torch.finfo(power.dtype).tiny)
        self._largest_power = torch.zeros_like(self._power)

    def __call__(self, u_hat: Complex[Tensor, "sample modes"], time: float) -> None:
        if time > self._start:
            torch.maximum(self._largest_power, _power(u_hat[:, self._first :]), out=self._largest_power)

    @property
    def largest(self) -> Float[Tensor, " sample"]:
        return (self._largest_power / self._power).sqrt()


def _power(u_hat: Complex[Tensor, "sample modes"]) -> Float[Tensor, " sample"]:
    return torch.view_as_real(u_hat).square().sum(dim=(1, 2))


def _require(holds: bool, name: str, value: float, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.{name} must be {condition}, got {value}.")
