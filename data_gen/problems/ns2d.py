"""Two-dimensional incompressible Navier-Stokes in vorticity form on the torus, driven by a steady force.

    w_t + u . grad w = nu Laplacian w - drag w + f,    -Laplacian psi = w,    (u, v) = (psi_y, -psi_x)
    f(x) = A_s sin(2 pi k.x / L) + A_c cos(2 pi k.x / L)

Smooth vortices are stretched into filaments, which are thinner for smaller nu. With k = (1, 1) and A_s = A_c = 0.1 on
the unit torus, this is the problem of Li et al. (2021), Fourier Neural Operator, section 5.3. The force drives a steady
shear along x + y. Good values of the viscosity are 1e-3 (nearly laminar, 32 points suffice) to 1e-5 (256 points). With
k = (0, 4) and a drag, this is Kolmogorov flow, which stays turbulent. Without a force and from a narrow band of
vortices, it is the decaying turbulence of McWilliams (1984), The emergence of isolated coherent vortices, J. Fluid
Mech. 146.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from data_gen import spectral
from data_gen.grids import Grid
from data_gen.random_fields import PeriodicGaussianField
from data_gen.solvers.integrating_factor import Integration, StepBound, integrate
from data_gen.spec import DatasetSpec, FieldSpec, Samples, Scalar

# RK4 is stable for purely imaginary eigenvalues up to 2.83 i; advection's largest is k_max max(|u| + |v|).
RK4_STABILITY = 2.8
# Largest decay of the forced mode in one step. The error of the force's quadrature is then (0.1)^4 / 2880 = 3e-8. This
# matters for viscosities above about 1e-2 only; below, the CFL condition requires smaller steps.
FORCED_DECAY_PER_STEP = 0.1
# Points of a complex grid that are transformed together: as many as a core's cache holds, 2 MiB.
_POINTS_AT_ONCE = 2**17


@runtime_checkable
class InitialLaw(Protocol):
    """Law of the initial vorticity on a torus (``data_gen.random_fields``)."""

    def draw(self, rngs: Sequence[np.random.Generator], k_max: int) -> Complex[Tensor, "sample rows columns"]: ...

    def variance(self, k_max: int) -> float: ...


@dataclass(frozen=True)
class SinusoidalForcing:
    """f = sine sin t + cosine cos t with t = 2 pi (k1 x + k2 y) / L, a steady source of vorticity.

    A force (a sin(2 pi k y / L), 0) on the velocity, that of Kolmogorov flow, is the vorticity source
    -a (2 pi k / L) cos(2 pi k y / L).

    Attributes:
        wavenumber: (k1, k2), integers, not both zero.
        sine, cosine: amplitudes, in 1 / time^2. If both are zero, the flow is free.
    """

    wavenumber: tuple[int, int] = (1, 1)
    sine: float = 0.1
    cosine: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "wavenumber", tuple(self.wavenumber))
        whole = len(self.wavenumber) == 2 and all(k == int(k) for k in self.wavenumber)
        if not whole or not any(self.wavenumber):
            raise ValueError(
                f"dataset.problem.forcing.wavenumber must be two integers, not both zero, got {self.wavenumber}."
            )


@dataclass(frozen=True)
class NavierStokes2D:
    """Navier-Stokes 2D as a dataset: equation, law of initial states and discretisation.

    Pseudo-spectral in space with the strict 2/3 rule, integrating-factor RK4 in time with a step from the CFL
    condition, float64 throughout.

    Attributes:
        viscosity: nu > 0, in units of length^2 / time.
        resolution: points per axis of the stored snapshots.
        oversampling: the solver's grid has ``oversampling * resolution`` points per axis. At 1.5 the solver keeps
            exactly the wavenumbers that the file's grid can hold; any others are cut off in the file.
        first_time, interval, n_snapshots: the stored times first_time + i interval. If the first time is after 0, the
            initial vorticity is stored separately.
        forcing: the source of vorticity.
        drag: linear damping of all scales, 1 / time.
        length: side of the torus.
        initial: law of the initial vorticity.
        warm_up: time for which a draw of the law evolves before t = 0. The result is the initial state, both of the
            dataset and for its certificate.
        cfl_safety: fraction of the stable step that is taken.
        max_step: longest step. While the flow is slow, the CFL condition allows longer steps, which resolve the decay
            of the rough initial state only to 2e-6 (nu = 1e-3, a step of 0.25).
        step_scale: further factor of the steps that aren't bounded by the CFL condition, for measuring their error.
        inner_batch: samples that ``simulate`` solves together, for speed. It is part of the address, because the bytes
            may depend on it.

    Raises:
        ValueError: a parameter is out of range; the message names it.

    >>> NavierStokes2D(viscosity=1e-3, resolution=32).spec.grid.shape
    (32, 32)
    """

    viscosity: float
    resolution: int = 64
    oversampling: float = 1.5
    first_time: float = 0.0
    interval: float = 1.0
    n_snapshots: int = 20
    forcing: SinusoidalForcing = field(default_factory=SinusoidalForcing)
    drag: float = 0.0
    length: float = 1.0
    initial: InitialLaw = field(default_factory=PeriodicGaussianField)
    warm_up: float = 0.0
    cfl_safety: float = 0.9
    max_step: float = 0.1
    step_scale: float = 1.0
    inner_batch: int = 16

    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _require(self.viscosity > 0, "viscosity", self.viscosity, "positive (an inviscid flow has no resolved limit)")
        _require(self.resolution >= 4, "resolution", self.resolution, "at least 4")
        _require(self.oversampling >= 1, "oversampling", self.oversampling, "at least 1")
        _require(self.first_time >= 0, "first_time", self.first_time, "0 or more")
        _require(self.interval > 0, "interval", self.interval, "positive")
        _require(self.n_snapshots >= 1, "n_snapshots", self.n_snapshots, "at least 1")
        _require(self.drag >= 0, "drag", self.drag, "0 or more (a negative one drives every scale)")
        _require(self.warm_up >= 0, "warm_up", self.warm_up, "0 or more")
        _require(self.length > 0, "length", self.length, "positive")
        _require(0 < self.cfl_safety <= 1, "cfl_safety", self.cfl_safety, "in (0, 1]")
        _require(self.max_step > 0, "max_step", self.max_step, "positive")
        _require(0 < self.step_scale <= 1, "step_scale", self.step_scale, "in (0, 1]")
        _require(self.inner_batch >= 1, "inner_batch", self.inner_batch, "at least 1")
        k_max = self.k_max
        if self.is_forced and max(map(abs, self.forcing.wavenumber)) > k_max:
            raise ValueError(
                f"The force has wavenumber {self.forcing.wavenumber}, but the solver's grid of "
                f"{self.solver_resolution} points keeps wavenumbers up to {k_max}. Raise dataset.problem.resolution."
            )
        if getattr(self.initial, "length", self.length) != self.length:
            raise ValueError(
                f"dataset.problem.initial.length={getattr(self.initial, 'length', None)} must be the side of the "
                f"torus, dataset.problem.length={self.length}."
            )

    @property
    def solver_resolution(self) -> int:
        """Points per axis of the grid the solver works on."""
        return round(self.oversampling * self.resolution)

    @property
    def k_max(self) -> int:
        """Largest wavenumber per axis that the solver keeps."""
        return spectral.max_wavenumber(self.solver_resolution, dealiased=True)

    @property
    def is_forced(self) -> bool:
        return bool(self.forcing.sine or self.forcing.cosine)

    @property
    def spec(self) -> DatasetSpec:
        force = ", f = A sin θ + B cos θ, θ = 2π k·x/L" if self.is_forced else ""
        law = {name: value for name, value in asdict(self.initial).items() if name != "length"}  # pyright: ignore
        parameters: dict[str, Scalar] = {
            "viscosity": self.viscosity,
            "drag": self.drag,
            "length": self.length,
            "solver_resolution": self.solver_resolution,
            "forcing_sine": self.forcing.sine,
            "forcing_cosine": self.forcing.cosine,
            "forcing_k1": self.forcing.wavenumber[0],
            "forcing_k2": self.forcing.wavenumber[1],
            **{f"initial_{name}": value for name, value in law.items()},
            "warm_up": self.warm_up,
            "cfl_safety": self.cfl_safety,
            "max_step": self.max_step,
        }
        return DatasetSpec(
            name="ns2d",
            version=self.version,
            equation="∂ₜω + u·∇ω = νΔω"
            + (" - μω" if self.drag else "")
            + (" + f" if self.is_forced else "")
            + ",  -Δψ = ω,  u = (∂ᵧψ, -∂ₓψ)"
            + force,
            grid=Grid.periodic(self.resolution, length=self.length),
            times=tuple(self.first_time + self.interval * i for i in range(self.n_snapshots)),
            state=(FieldSpec("vorticity", "vorticity ω = ∂ₓv - ∂ᵧu", "1/time"),),
            parameters=parameters,
            conserved=("mean_vorticity",),
            symmetries=self._symmetries,
            state_variance=() if self.warm_up else (self.initial.variance(self.k_max),),
            diagnostics=(
                FieldSpec("n_steps", "time steps from the initial state to the last snapshot"),
                FieldSpec(
                    "step_ratio",
                    "longest step relative to the one that the flow at the end of its output interval would be given",
                ),
                FieldSpec(
                    "spectrum_tail",
                    "share of the last snapshot's enstrophy in the upper third of the solver's wavenumbers",
                ),
            ),
            reference="Li et al. (2021), Fourier Neural Operator, arXiv 2010.08895, section 5.3"
            if self.is_forced and self.forcing.wavenumber == (1, 1)
            else "",
        )

    @property
    def _symmetries(self) -> tuple[str, ...]:
        """Maps of the torus under which solutions with this force stay solutions."""
        if not self.is_forced:
            return ("translation", "quarter_turn", "reflection_with_sign")
        if self.forcing.wavenumber == (1, 1) and self.forcing.sine == self.forcing.cosine:
            return ("translation_along_antidiagonal", "rotation_by_pi", "reflection_with_sign")
        along = [axis for axis, k in zip("xy", self.forcing.wavenumber, strict=True) if k == 0]
        return tuple(f"translation_along_{axis}" for axis in along)

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw initial vorticities, one per generator, and solve to the stored times."""
        return self._run(self._draw(rngs), self.spec.times)

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The same initial vorticities, cut off at the same wavenumber as in ``simulate``, solved with half the step on
        a grid twice as fine."""
        # The CFL condition halves the step on the finer grid; step_scale halves the steps that accuracy bounds.
        fine = replace(
            self,
            oversampling=2 * self.oversampling,
            step_scale=self.step_scale / 2,
            inner_batch=max(1, self.inner_batch // 4),
        )
        return fine._run(spectral.pad(self._draw(rngs), fine.k_max), self.spec.times)

    def solve(
        self,
        history: NDArray[np.floating],
        static: NDArray[np.floating],
        n_steps: int,
        *,
        dtype: type[np.floating] = np.float64,
    ) -> Samples:
        """``n_steps`` snapshots, ``interval`` apart, that follow the last frame of ``history`` [sample, time, 1, n, n].

        The history may be on any square grid; ``static`` has no channels. All samples are solved together. ``dtype`` is
        that of the arithmetic.

        Raises:
            ValueError: the history holds no frame, or isn't one field on a square grid; there are static fields; or
                ``n_steps`` is below 1.
        """
        if history.ndim != 5 or history.shape[1] < 1 or history.shape[2] != 1 or history.shape[3] != history.shape[4]:
            raise ValueError(
                f"NavierStokes2D.solve expected a history [sample, time >= 1, 1, n, n], got {tuple(history.shape)}."
            )
        if n_steps < 1:
            raise ValueError(f"NavierStokes2D.solve needs n_steps of at least 1, got {n_steps}.")
        if static.shape[1] != 0:
            raise ValueError(f"NavierStokes2D has no static fields, got {static.shape[1]}.")
        last = torch.as_tensor(np.asarray(history[:, -1, 0], dtype=dtype))
        w_hat = spectral.from_grid(last, self.k_max)
        times = tuple(self.interval * (i + 1) for i in range(n_steps))
        return replace(self, inner_batch=len(last))._run(w_hat, times)

    def at(self, grid: Grid) -> NavierStokes2D:
        """The same equation solved, and stored, at ``grid``'s own resolution.

        Raises:
            ValueError: the grid isn't a square periodic grid on this problem's torus.
        """
        if grid != Grid.periodic(grid.shape[0], length=self.length):
            raise ValueError(f"NavierStokes2D needs a square periodic grid of length {self.length}, got {grid}.")
        return replace(self, resolution=grid.shape[0], oversampling=1.0)

    def relaxed(self, factor: float) -> NavierStokes2D:
        """The same equation and grid with a longest step ``factor`` times as long; the CFL condition bounds it."""
        return replace(self, max_step=factor * self.max_step)

    def _draw(self, rngs: Sequence[np.random.Generator]) -> Complex[Tensor, "sample rows columns"]:
        """Initial states, one per generator."""
        w_hat = self.initial.draw(rngs, self.k_max).to(torch.get_default_device())
        if not self.warm_up:
            return w_hat
        solutions = self._integrate(w_hat, (self.warm_up,))
        return torch.cat([solution.states[:, -1] for solution in solutions])

    def _run(self, w_hat: Complex[Tensor, "sample rows columns"], times: Sequence[float]) -> Samples:
        w_hat = w_hat.to(torch.get_default_device())
        # Transformed in chunks: all outputs of a batch at the solver's resolution might not fit in memory.
        chunks: list[Tensor] = []
        noted: dict[str, list[Tensor]] = {"n_steps": [], "step_ratio": [], "spectrum_tail": []}
        for solution in self._integrate(w_hat, times):
            chunks.append(spectral.to_grid(solution.states, self.resolution).cpu())
            noted["n_steps"].append(solution.n_steps)
            noted["step_ratio"].append(solution.step_ratio)
            noted["spectrum_tail"].append(spectral.tail(solution.states[:, -1]))
        trajectory = torch.cat(chunks)[:, :, None].numpy()
        initial = spectral.to_grid(w_hat, self.resolution)[:, None, None].cpu().numpy()
        static = np.empty((len(w_hat), 0, self.resolution, self.resolution))
        diagnostics = {name: torch.cat(parts).double().cpu().numpy() for name, parts in noted.items()}
        return Samples(initial, static, trajectory, diagnostics)

    def _integrate(
        self, w_hat: Complex[Tensor, "sample rows columns"], times: Sequence[float]
    ) -> Iterator[Integration]:
        """Solutions of consecutive samples, ``inner_batch`` at a time."""
        dynamics = VorticityDynamics(
            self.viscosity,
            self.solver_resolution,
            self.forcing,
            drag=self.drag,
            length=self.length,
            device=w_hat.device,
            dtype=w_hat.real.dtype,
        )
        # The integrating factor integrates the force by quadrature, so the decay of its mode per step must be small.
        longest = min(
            self.max_step, FORCED_DECAY_PER_STEP / dynamics.forced_decay if dynamics.forced_decay else math.inf
        )
        bound = lambda state: (self.cfl_safety * dynamics.stable_step(state)).clamp(  # noqa: E731
            max=self.step_scale * longest
        )
        # A few samples can't keep a device with its own memory busy.
        for chunk in w_hat.split(self.inner_batch if w_hat.device.type == "cpu" else len(w_hat)):
            yield dynamics.integrate(chunk, times, bound)


class VorticityDynamics:
    """Right-hand side of the vorticity equation on compact Fourier coefficients (``data_gen.spectral``).

    ``linear`` is the symbol -nu kappa^2 - drag, kappa = 2 pi k / L, in float64. ``nonlinear`` is -(u . grad w) + f in
    Basdevant's form

        u . grad w = d_x d_y (v^2 - u^2) + (d_xx - d_yy)(u v),

    evaluated with two complex transforms instead of five real ones: z = u + i v by one inverse transform, then
    z^2 = (u^2 - v^2) + 2 i u v by one forward transform Q. The two real products are the Hermitian and anti-Hermitian
    parts of Q, and the multipliers fold that split: N_k = m_k Q_k + conj(m_k Q_-k),
    m = -kappa_1 kappa_2 / 2 - i (kappa_1^2 - kappa_2^2) / 4. Reference: Basdevant (1983), Technical improvements for
    direct numerical simulation of homogeneous three-dimensional turbulence, J. Comput. Phys. 50.

    The transforms leave out zeros: only the kept wavenumbers of each axis are transformed along the other. Spectra are
    shifted by K, so that k = -K..K are contiguous along both axes. This multiplies z by a phase factor and z^2 by its
    square, and the wavenumbers of the product are at k + 2K, again contiguous since 3K < n.
    """

    def __init__(
        self,
        viscosity: float,
        resolution: int,
        forcing: SinusoidalForcing,
        *,
        drag: float = 0.0,
        length: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.resolution, self._length = resolution, length
        self.k_max = spectral.max_wavenumber(resolution, dealiased=True)
        kappa1, kappa2 = (2 * math.pi / length * k for k in spectral.wavenumbers(self.k_max, device))
        self.linear = -viscosity * (kappa1**2 + kappa2**2) - drag
        # A sin t + B cos t has the coefficient (B - i A) / 2 at k, and its conjugate at -k.
        self._forcing = torch.zeros(self.linear.shape, dtype=torch.complex128, device=device)
        self.forced_decay = 0.0
        if forcing.sine or forcing.cosine:
            k1, k2 = forcing.wavenumber
            for sign in (1, -1):
                if sign * k2 >= 0:
                    self._forcing[sign * k1, sign * k2] = torch.tensor(
                        complex(forcing.cosine, -sign * forcing.sine) / 2, dtype=torch.complex128
                    )
            self.forced_decay = viscosity * (2 * math.pi / length) ** 2 * (k1**2 + k2**2) + drag
        own = dtype.to_complex()
        self._forcing = spectral.centred(self._forcing).to(own)
        # The symbols of the transforms, rows k1 = -K..K. psi = w / kappa^2, u = i kappa_2 psi, v = -i kappa_1 psi,
        # z = u + i v; the mean has no velocity.
        kappa1 = spectral.centred(kappa1.expand(-1, kappa2.shape[1]))
        squared = kappa1**2 + kappa2**2
        inverse = torch.where(squared > 0, 1 / torch.where(squared > 0, squared, 1.0), 0.0)
        self._velocity = torch.complex(kappa1 * inverse, kappa2 * inverse).to(own)
        # z at -k is the conjugate of u - i v at k.
        self._mirrored = torch.complex(-kappa1 * inverse, kappa2 * inverse).to(own)
        self._multiplier = torch.complex(-kappa1 * kappa2 / 2, -(kappa1**2 - kappa2**2) / 4).to(own)

    def integrate(
        self, w_hat: Complex[Tensor, "sample rows columns"], times: Sequence[float], step_bound: StepBound
    ) -> Integration:
        """Solutions from given states at t = 0 (``data_gen.solvers.integrating_factor``)."""
        solution = integrate(
            spectral.centred(self.linear),
            self._nonlinear,
            spectral.centred(w_hat),
            times,
            lambda state: step_bound(spectral.compact(state)),
        )
        return solution._replace(states=spectral.compact(solution.states))

    def velocity(self, w_hat: Complex[Tensor, "sample rows columns"]) -> Complex[Tensor, "sample n n"]:
        """u + i v on the solver's grid."""
        n = self.resolution
        phase = 2 * math.pi * self.k_max / n * torch.arange(n, dtype=torch.float64, device=w_hat.device)
        shift = torch.polar(torch.ones_like(phase), -phase)
        return self._shifted_velocity(spectral.centred(w_hat)).transpose(-1, -2) * shift[:, None] * shift

    def nonlinear(self, w_hat: Complex[Tensor, "sample rows columns"], time: Tensor) -> Tensor:
        """-(u . grad w) + f, dealiased."""
        return spectral.compact(self._nonlinear(spectral.centred(w_hat), time))

    def advection(self, w_hat: Complex[Tensor, "sample rows columns"]) -> Complex[Tensor, "sample rows columns"]:
        """-(u . grad w), dealiased."""
        return spectral.compact(self._advection(spectral.centred(w_hat)))

    def stable_step(self, w_hat: Complex[Tensor, "sample rows columns"]) -> Float[Tensor, " sample"]:
        """Largest stable step of each sample: 2.8 / (kappa_max max(|u| + |v|)), with k_max = n/3 (CFL condition)."""
        z = self.velocity(w_hat)
        speed = (z.real.abs() + z.imag.abs()).flatten(1).amax(dim=1)
        return RK4_STABILITY / (2 * math.pi / self._length * self.resolution / 3 * speed.clamp(min=1e-12))

    def _nonlinear(self, w_hat: Complex[Tensor, "sample rows columns"], time: Tensor) -> Tensor:
        """``nonlinear`` on centred rows; on a CPU, of as many samples at a time as fit in the cache."""
        del time  # the flow is autonomous
        size = max(1, _POINTS_AT_ONCE // self.resolution**2)
        if w_hat.device.type != "cpu" or len(w_hat) <= size:
            return self._advection(w_hat).add_(self._forcing)
        return torch.cat([self._advection(part).add_(self._forcing) for part in w_hat.split(size)])

    def _shifted_velocity(self, w_hat: Complex[Tensor, "sample rows columns"]) -> Complex[Tensor, "sample n n"]:
        """u + i v on the solver's grid, [sample, y, x], times exp(2 pi i K (x + y) / L); centred rows."""
        k, n = self.k_max, self.resolution
        columns = w_hat.new_zeros(len(w_hat), 2 * k + 1, n)
        torch.mul(self._velocity, w_hat, out=columns[..., k : 2 * k + 1])
        torch.conj_physical((self._mirrored * w_hat).flip(-2, -1)[..., :k], out=columns[..., :k])
        rows = w_hat.new_zeros(len(w_hat), n, n)
        rows[..., : 2 * k + 1] = torch.fft.ifft(columns, norm="forward").transpose(-1, -2)
        return torch.fft.ifft(rows, norm="forward")

    def _advection(self, w_hat: Complex[Tensor, "sample rows columns"]) -> Complex[Tensor, "sample rows columns"]:
        """``advection`` on centred rows."""
        k = self.k_max
        z = self._shifted_velocity(w_hat)
        kept = slice(k, 3 * k + 1)
        q = torch.fft.fft(z.mul_(z), norm="forward")[..., kept].transpose(-1, -2).contiguous()
        q = torch.fft.fft(q, norm="forward")[..., kept]
        opposite = q[..., : k + 1].flip(-2, -1).mul_(self._multiplier)
        return (self._multiplier * q[..., k:]).add_(opposite.conj_physical_())


def _require(holds: bool, name: str, value: float, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.{name} must be {condition}, got {value}.")
