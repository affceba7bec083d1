"""Decaying turbulence: the incompressible Navier-Stokes equations of a velocity in a periodic cube.

    u_t + (u . grad) u + grad p = viscosity Laplacian u,    div u = 0    on [0, length)^3, periodic

In the rotational form, u_t = viscosity Laplacian u + P(u x curl u), where P takes out the gradient part (the Leray
projection) and with it the pressure. Without aliasing, this form conserves energy and helicity if the viscosity is 0.

The initial law gives the energy a single hump at large scales, with random phases. Vortex stretching then fills the
smaller scales, and the dissipation grows until it drains the energy. Orszag & Patterson (1972), Numerical simulation of
three-dimensional homogeneous isotropic turbulence, Phys. Rev. Lett. 28, computed such a decay on 32^3 points, with
Reynolds numbers of about 35 on the Taylor scale.

In space it can be trusted if Kolmogorov's length (viscosity^3 / dissipation)^(1/4) times the largest wavenumber is at
least 1.5. With the default law this takes a viscosity of 0.04 on 32^3 points and of 0.015 on 64^3, and the errors are
up to 3e-3 and 1e-3. A product of 0.85 cost an error of 4e-2. In time, steps that are too long for the speed of the flow
are refused: slightly unstable ones spoil some samples by a few per cent, which no other diagnostic shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from data_gen.random_fields import Parameter, SolenoidalField
from data_gen.semilinear import SemilinearProblem
from data_gen.spec import FieldSpec, Samples, SolverError
from data_gen.spectral import Space

_CYCLES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


@dataclass(frozen=True, kw_only=True)
class NavierStokes3D(SemilinearProblem):
    """The decay of a random velocity in three dimensions as a dataset.

    Attributes:
        viscosity: in units of length^2 / time, positive.
    """

    viscosity: Parameter = 0.04
    n_dims: int = 3
    length: float = 2 * math.pi
    resolution: int = 32
    interval: float = 0.2
    n_snapshots: int = 11
    initial: SolenoidalField = field(default_factory=SolenoidalField)
    first_step: float = 0.04
    max_step: float = 0.04
    inner_batch: int = 1

    stem: ClassVar[str] = "ns"
    equation: ClassVar[str] = "∂ₜu + (u·∇)u + ∇p = ν ∇²u, ∇·u = 0"
    reference: ClassVar[str] = "Orszag & Patterson (1972), Phys. Rev. Lett. 28, 76"
    state: ClassVar[tuple[FieldSpec, ...]] = (
        FieldSpec("velocity_x", "velocity along x", "length/time"),
        FieldSpec("velocity_y", "velocity along y", "length/time"),
        FieldSpec("velocity_z", "velocity along z", "length/time"),
    )
    conserved: ClassVar[tuple[str, ...]] = (
        "mean_velocity_x",
        "mean_velocity_y",
        "mean_velocity_z",
        "incompressibility",
    )
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "reflections_and_turns_of_a_vector")
    measured: ClassVar[tuple[FieldSpec, ...]] = (
        FieldSpec("divergence", "norm of the divergence relative to that of the gradient, largest of the stored times"),
    )
    # Largest step times wavenumber times |u| + |v| + |w|. Of twelve samples at the default viscosity, with steps of
    # 0.05 and 0.0625, five were unstable. All five had more than this, and so had one stable sample.
    largest_courant: ClassVar[float] = 5.9
    degree: ClassVar[int] = 2
    positive: ClassVar[tuple[str, ...]] = ("viscosity",)

    def linear(self, space: Space) -> Tensor:
        return self.viscosity * space.laplacian

    def nonlinear(self, u_hat: Tensor, space: Space) -> Tensor:
        curl = [
            space.derivative(u_hat[:, third], second) - space.derivative(u_hat[:, second], third)
            for _, second, third in _CYCLES
        ]
        values = space.values(torch.cat([u_hat, torch.stack(curl, dim=1)], dim=1))
        products = torch.empty_like(values[:, :3])
        for first, second, third in _CYCLES:
            torch.mul(values[:, second], values[:, 3 + third], out=products[:, first])
            products[:, first].addcmul_(values[:, third], values[:, 3 + second], value=-1)
        del values  # the largest array
        force = space.coefficients(products)
        laplacian = space.laplacian.clone()
        laplacian[0, 0, 0] = 1.0  # the mean has no divergence
        potential = _divergence(force, space).div_(laplacian)
        for axis in range(3):
            force[:, axis] -= space.derivative(potential, axis)
        return force

    def measure(self, u_hat: Tensor, space: Space) -> Tensor:
        weights = space.multiplicity.sqrt()
        steepness = (-space.laplacian).sqrt() * weights
        gradient = (u_hat * steepness).flatten(1).abs().square().sum(dim=1).sqrt()
        divergence = (_divergence(u_hat, space) * weights).flatten(1).abs().square().sum(dim=1).sqrt()
        return (divergence / gradient.clamp(min=torch.finfo(gradient.dtype).tiny))[None]

    def _run(self, *given: Any, **options: Any) -> Samples:
        # Whether steps are stable depends on the sample, and a certificate looks at four samples alone.
        samples = super()._run(*given, **options)
        step = min(self.max_step, self.interval) / (2 if options.get("halve") else 1)
        frames = np.concatenate([samples.history, samples.trajectory], axis=1)
        speed = np.abs(frames).sum(axis=2).max(axis=(1, 2, 3, 4))
        courant = step * 2 * math.pi / self.length * self._space.k_max * speed
        worst = int(np.argmax(courant))
        if courant[worst] > self.largest_courant:
            raise SolverError(
                f"Sample {worst} of the batch is so fast that steps of {step:g} may be unstable: step times wavenumber "
                f"times speed is {courant[worst]:.1f}, above {self.largest_courant}. Lower dataset.problem.max_step "
                f"below {step * self.largest_courant / courant[worst]:.2g}."
            )
        return samples


def _divergence(u_hat: Tensor, space: Space) -> Tensor:
    return sum((space.derivative(u_hat[:, axis], axis) for axis in range(1, 3)), space.derivative(u_hat[:, 0], 0))
