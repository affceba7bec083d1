"""Two-dimensional incompressible Navier-Stokes in vorticity form on the unit torus, driven by a fixed force.

    w_t + u . grad w = nu Laplacian w + f,    -Laplacian psi = w,    (u, v) = (psi_y, -psi_x)
    f(x, y) = 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y))

Smooth vortices are stretched into filaments, the thinner the smaller nu; the force feeds a steady shear along x + y.
Good values of the viscosity nu: 1e-3 (nearly laminar, 32 points will do) to 1e-5 (256 points). Problem of Li et al.
(2021), Fourier Neural Operator for Parametric Partial Differential Equations, section 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from data_gen import spectral
from data_gen.grids import Grid
from data_gen.random_fields import PeriodicGaussianField
from data_gen.solvers.integrating_factor import integrate
from data_gen.spec import DatasetSpec, FieldSpec, Samples

# RK4 is stable for purely imaginary eigenvalues up to 2.83 i; advection's largest is k_max max(|u| + |v|).
RK4_STABILITY = 2.8
# Largest decay of the forced mode in one step: the quadrature of the force then errs by (0.1)^4 / 2880 = 3e-8. Binds
# for viscosities above about 1e-2 only; below, the CFL condition asks for smaller steps.
FORCED_DECAY_PER_STEP = 0.1


@dataclass(frozen=True)
class NavierStokes2D:
    """Navier-Stokes 2D as a dataset: equation, law of initial states and discretisation.

    Pseudo-spectral in space with the strict 2/3 rule, integrating-factor RK4 in time with a step from the CFL
    condition, float64 throughout.

    Attributes:
        viscosity: nu > 0, in units of (domain length)^2 / time.
        resolution: points per axis of the stored snapshots.
        oversampling: the solver's grid has ``oversampling * resolution`` points per axis. At 1.5 the solver keeps just
            the wavenumbers that the file's grid can hold; the file is a spectral truncation in any case.
        first_time, interval, n_snapshots: the stored times first_time + i interval. A first time after 0 stores the
            initial vorticity apart.
        forcing_amplitude: 0.1 in the paper.
        initial: law of the initial vorticity.
        cfl_safety: fraction of the stable step that is taken.
        inner_batch: samples solved together; a matter of speed, yet part of the address, so that bytes can't depend
            on it silently.

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
    forcing_amplitude: float = 0.1
    initial: PeriodicGaussianField = field(default_factory=PeriodicGaussianField)
    cfl_safety: float = 0.9
    inner_batch: int = 16

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _require(self.viscosity > 0, "viscosity", self.viscosity, "positive (an inviscid flow has no resolved limit)")
        _require(self.resolution >= 4, "resolution", self.resolution, "at least 4")
        _require(self.oversampling >= 1, "oversampling", self.oversampling, "at least 1")
        _require(self.first_time >= 0, "first_time", self.first_time, "0 or more")
        _require(self.interval > 0, "interval", self.interval, "positive")
        _require(self.n_snapshots >= 1, "n_snapshots", self.n_snapshots, "at least 1")
        _require(0 < self.cfl_safety <= 1, "cfl_safety", self.cfl_safety, "in (0, 1]")
        _require(self.inner_batch >= 1, "inner_batch", self.inner_batch, "at least 1")

    @property
    def solver_resolution(self) -> int:
        """Points per axis of the grid the solver works on."""
        return round(self.oversampling * self.resolution)

    @property
    def spec(self) -> DatasetSpec:
        k_max = spectral.max_wavenumber(self.solver_resolution, dealiased=True)
        return DatasetSpec(
            name="ns2d",
            version=self.version,
            equation="∂ₜω + u·∇ω = νΔω + f,  -Δψ = ω,  u = (∂ᵧψ, -∂ₓψ),  f = A(sin 2π(x+y) + cos 2π(x+y))",
            grid=Grid.periodic(self.resolution),
            times=tuple(self.first_time + self.interval * i for i in range(self.n_snapshots)),
            state=(FieldSpec("vorticity", "vorticity ω = ∂ₓv - ∂ᵧu", "1/time"),),
            parameters={
                "viscosity": self.viscosity,
                "solver_resolution": self.solver_resolution,
                "forcing_amplitude": self.forcing_amplitude,
                "initial_scale": self.initial.scale,
                "initial_tau": self.initial.tau,
                "initial_exponent": self.initial.exponent,
                "cfl_safety": self.cfl_safety,
            },
            conserved=("mean_vorticity",),
            symmetries=("translation_along_antidiagonal", "rotation_by_pi", "reflection_with_sign"),
            state_variance=(self.initial.variance(k_max),),
            reference="Li et al. (2021), Fourier Neural Operator, arXiv 2010.08895, section 5.3",
        )

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw initial vorticities, one per generator, and solve to the stored times."""
        k_max = spectral.max_wavenumber(self.solver_resolution, dealiased=True)
        return self._run(self.initial.draw(rngs, k_max), self.spec.times)

    def solve(self, history: NDArray[np.floating], static: NDArray[np.floating], n_steps: int) -> Samples:
        """``n_steps`` snapshots, ``interval`` apart, that follow the last frame of ``history`` [sample, time, 1, n, n].

        The history may live on any square grid; ``static`` has no channels.

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
        k_max = spectral.max_wavenumber(self.solver_resolution, dealiased=True)
        last = torch.as_tensor(np.asarray(history[:, -1, 0], dtype=np.float64))
        w_hat = spectral.from_grid(last, k_max)
        return self._run(w_hat, tuple(self.interval * (i + 1) for i in range(n_steps)))

    def at(self, grid: Grid) -> NavierStokes2D:
        """The same equation solved, and stored, at ``grid``'s own resolution.

        Raises:
            ValueError: the grid isn't a square periodic grid on the unit square.
        """
        if grid != Grid.periodic(grid.shape[0]):
            raise ValueError(f"NavierStokes2D needs a square periodic grid on the unit square, got {grid}.")
        return replace(self, resolution=grid.shape[0], oversampling=1.0)

    def _run(self, w_hat: Complex[Tensor, "sample rows columns"], times: Sequence[float]) -> Samples:
        dynamics = VorticityDynamics(self.viscosity, self.solver_resolution, self.forcing_amplitude, w_hat.device)
        # Transformed chunk by chunk: a whole batch of outputs at the solver's resolution would not fit a small machine.
        chunks = []
        # The integrating factor sees the force by quadrature: its mode's decay per step, 8 pi^2 nu dt, must stay small.
        accurate = FORCED_DECAY_PER_STEP / (8 * math.pi**2 * self.viscosity)
        for chunk in w_hat.split(self.inner_batch):
            bound = lambda state: self.cfl_safety * dynamics.stable_step(state).clamp(max=accurate)  # noqa: E731
            states = integrate(dynamics.linear, dynamics.nonlinear, chunk, times, bound)
            chunks.append(spectral.to_grid(states, self.resolution))
        trajectory = torch.cat(chunks)[:, :, None].cpu().numpy()
        initial = spectral.to_grid(w_hat, self.resolution)[:, None, None].cpu().numpy()
        static = np.empty((len(w_hat), 0, self.resolution, self.resolution))
        return Samples(initial, static, trajectory)


class VorticityDynamics:
    """Right-hand side of the vorticity equation on compact Fourier coefficients (``data_gen.spectral``).

    ``linear`` is the symbol -nu (2 pi |k|)^2. ``nonlinear`` is -(u . grad w) + f in Basdevant's form

        u . grad w = d_x d_y (v^2 - u^2) + (d_xx - d_yy)(u v),

    evaluated with two complex transforms instead of five real ones: z = u + i v by one inverse transform, then
    z^2 = (u^2 - v^2) + 2 i u v by one forward transform Q. The two real products are the Hermitian and anti-Hermitian
    parts of Q, and the multipliers fold that split: N_k = m_k Q_k + conj(m_k Q_-k),
    m = -kappa_1 kappa_2 / 2 - i (kappa_1^2 - kappa_2^2) / 4 with kappa = 2 pi k. Reference: Basdevant (1983), Technical
    improvements for direct numerical simulation of homogeneous three-dimensional turbulence, J. Comput. Phys. 50.
    """

    def __init__(
        self, viscosity: float, resolution: int, forcing_amplitude: float, device: torch.device | str = "cpu"
    ) -> None:
        self.resolution = resolution
        self.k_max = spectral.max_wavenumber(resolution, dealiased=True)
        k1, k2 = (2 * math.pi * k for k in spectral.wavenumbers(self.k_max, device))
        squared = k1**2 + k2**2
        self.linear = -viscosity * squared
        # psi = w / |kappa|^2, u = i kappa_2 psi, v = -i kappa_1 psi, z = u + i v; the mean carries no velocity.
        inverse = torch.where(squared > 0, 1 / squared.clamp(min=1), 0.0)
        self._velocity = torch.complex(k1 * inverse, k2 * inverse)
        self._multiplier = torch.complex(-k1 * k2 / 2, -(k1**2 - k2**2) / 4)
        # A (sin t + cos t), t = 2 pi (x + y), has coefficient A (1 - i) / 2 at k = (1, 1).
        self._forcing = torch.zeros_like(self._velocity)
        self._forcing[1, 1] = torch.tensor(forcing_amplitude * (1 - 1j) / 2, dtype=torch.complex128)

    def velocity(self, w_hat: Complex[Tensor, "sample rows columns"]) -> Complex[Tensor, "sample n n"]:
        """u + i v on the solver's grid."""
        k, n = self.k_max, self.resolution
        half = self._velocity * w_hat
        mirrored = -self._velocity * w_hat.conj()  # the velocity symbol is odd in k
        z_hat = half.new_zeros(w_hat.shape[0], n, n)
        # Columns -k2 first, so that the column k2 = 0, which both halves hold, is taken from the stored half.
        mirrored = mirrored.flip(-1)[..., :k]
        z_hat[:, 0, n - k :] = mirrored[:, 0]
        z_hat[:, 1 : k + 1, n - k :] = mirrored[:, k + 1 :].flip(-2)
        z_hat[:, n - k :, n - k :] = mirrored[:, 1 : k + 1].flip(-2)
        z_hat[:, : k + 1, : k + 1] = half[:, : k + 1]
        z_hat[:, n - k :, : k + 1] = half[:, k + 1 :]
        return torch.fft.ifft2(z_hat, norm="forward")

    def nonlinear(self, w_hat: Complex[Tensor, "sample rows columns"], time: Tensor) -> Tensor:
        """-(u . grad w) + f, dealiased."""
        del time  # the flow is autonomous
        return self.advection(w_hat) + self._forcing

    def advection(self, w_hat: Complex[Tensor, "sample rows columns"]) -> Complex[Tensor, "sample rows columns"]:
        """-(u . grad w), dealiased."""
        k, n = self.k_max, self.resolution
        z = self.velocity(w_hat)
        q = torch.fft.fft2(z * z, norm="forward")
        here = torch.cat([q[:, : k + 1, : k + 1], q[:, n - k :, : k + 1]], dim=1)
        # Q at -k: rows 0, -1..-K, K..1 and columns 0, -1..-K.
        rows = torch.cat([q[:, :1], q[:, n - k :].flip(1), q[:, 1 : k + 1].flip(1)], dim=1)
        opposite = torch.cat([rows[..., :1], rows[..., n - k :].flip(-1)], dim=-1)
        return self._multiplier * here + (self._multiplier * opposite).conj()

    def stable_step(self, w_hat: Complex[Tensor, "sample rows columns"]) -> Float[Tensor, " sample"]:
        """Largest stable step of each sample: 2.8 / (2 pi k_max max(|u| + |v|)), with k_max = n/3 (CFL condition)."""
        z = self.velocity(w_hat)
        speed = (z.real.abs() + z.imag.abs()).flatten(1).amax(dim=1)
        return RK4_STABILITY / (2 * math.pi * self.resolution / 3 * speed.clamp(min=1e-12))


def _require(holds: bool, name: str, value: float, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.{name} must be {condition}, got {value}.")
