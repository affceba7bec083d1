"""Decaying turbulence: the incompressible Navier-Stokes equations of a velocity in a periodic cube.

    u_t + (u . grad) u + grad p = viscosity Laplacian u,    div u = 0    on [0, length)^3, periodic

In the rotational form, u_t = viscosity Laplacian u + P(u x curl u), where P takes out the gradient part (the Leray
projection) and with it the pressure. Without aliasing, this form conserves energy and helicity if the viscosity is 0.

The initial law gives the energy a single hump at large scales, with random phases. Vortex stretching then fills the
smaller scales, and the dissipation grows until it drains the energy. Orszag & Patterson (1972), Numerical simulation of
three-dimensional homogeneous isotropic turbulence, Phys. Rev. Lett. 28, computed such a decay on 32^3 points, with
Reynolds numbers of about 35 on the Taylor scale.

Where it can be trusted: in space, if Kolmogorov's length (viscosity^3 / dissipation)^(1/4) times the largest wavenumber
is at least 1.5. With the default law this takes a viscosity of 0.04 on 32^3 points and of 0.015 on 64^3; the error at
t = 2 is then up to 3e-3. A product of 0.85 cost an error of 4e-2. In time, if the steps are stable: 0.05 was on all
of twelve samples at viscosities of 0.03 and 0.04, 0.0625 on half of them. Unstable steps show in ``spectrum_tail``, which
is 0.015 at most otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from data_gen.random_fields import Parameter, SolenoidalField
from data_gen.semilinear import SemilinearProblem
from data_gen.spec import FieldSpec
from data_gen.spectral import Space


@dataclass(frozen=True, kw_only=True)
class NavierStokes3D(SemilinearProblem):
    """The decay of a random velocity in three dimensions as a dataset.

    Attributes:
        viscosity: in units of length^2 / time, positive.
    """

    viscosity: Parameter = 0.03
    n_dims: int = 3
    length: float = 2 * math.pi
    resolution: int = 32
    interval: float = 0.25
    n_snapshots: int = 7
    initial: SolenoidalField = field(default_factory=SolenoidalField)
    first_step: float = 0.05
    max_step: float = 0.0625
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
    degree: ClassVar[int] = 2
    positive: ClassVar[tuple[str, ...]] = ("viscosity",)

    def linear(self, space: Space) -> Tensor:
        return self.viscosity * space.laplacian

    def nonlinear(self, u_hat: Tensor, space: Space) -> Tensor:
        both = u_hat.new_empty(len(u_hat), 6, *space.shape)  # velocity and vorticity
        both[:, :3] = u_hat
        for axis in range(3):
            second, third = (axis + 1) % 3, (axis + 2) % 3
            both[:, 3 + axis] = space.derivative(u_hat[:, third], second) - space.derivative(u_hat[:, second], third)
        values = space.values(both)
        products = torch.empty_like(values[:, :3])
        for axis in range(3):
            second, third = (axis + 1) % 3, (axis + 2) % 3
            torch.mul(values[:, second], values[:, 3 + third], out=products[:, axis])
            products[:, axis].addcmul_(values[:, third], values[:, 3 + second], value=-1)
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


def _divergence(u_hat: Tensor, space: Space) -> Tensor:
    return sum((space.derivative(u_hat[:, axis], axis) for axis in range(1, 3)), space.derivative(u_hat[:, 0], 0))
