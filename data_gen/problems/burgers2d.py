"""The viscous Burgers equation of a velocity with two components.

    u_t + (u . grad) u = viscosity Laplacian u    on [0, length)^2, periodic

A velocity that is a gradient stays one; the Cole-Hopf transform then gives the exact solution.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from data_gen.random_fields import Parameter, TruncatedFourierSeries
from data_gen.semilinear import SemilinearProblem
from data_gen.spec import FieldSpec
from data_gen.spectral import Space


@dataclass(frozen=True, kw_only=True)
class Burgers2D(SemilinearProblem):
    """Burgers' equation in two dimensions as a dataset.

    Attributes:
        viscosity: in units of length^2 / time, positive.
    """

    viscosity: Parameter = 1e-2
    n_dims: int = 2
    resolution: int = 64
    interval: float = 0.05
    n_snapshots: int = 11
    initial: TruncatedFourierSeries = field(default_factory=lambda: TruncatedFourierSeries(n_waves=3))
    first_step: float = 2.5e-3
    max_step: float = 1e-2
    inner_batch: int = 16

    stem: ClassVar[str] = "burgers"
    equation: ClassVar[str] = "∂ₜu + (u·∇)u = ν ∇²u"
    reference: ClassVar[str] = "Koehler et al. (2024), APEBench, arXiv 2411.00180"
    state: ClassVar[tuple[FieldSpec, ...]] = (
        FieldSpec("velocity_x", "velocity along x", "length/time"),
        FieldSpec("velocity_y", "velocity along y", "length/time"),
    )
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "reflections_and_turns_of_a_vector")
    degree: ClassVar[int] = 2
    positive: ClassVar[tuple[str, ...]] = ("viscosity",)

    def linear(self, space: Space) -> Tensor:
        return self.viscosity * space.laplacian

    def nonlinear(self, u_hat: Tensor, space: Space) -> Tensor:
        # (u . grad) u = grad |u|^2 / 2 - u x (curl u) takes six transforms, the derivatives themselves eight.
        curl = space.derivative(u_hat[:, 1:], 0) - space.derivative(u_hat[:, :1], 1)
        values = space.values(torch.cat([u_hat, curl], dim=1))
        products, (u, v, w) = torch.empty_like(values), values.unbind(1)
        torch.mul(v, w, out=products[:, 0])
        torch.mul(u, -w, out=products[:, 1])
        torch.add(u * u, v * v, out=products[:, 2]).mul_(0.5)
        *turned, energy = space.coefficients(products).unbind(1)
        return torch.stack([turned[axis] - space.derivative(energy, axis) for axis in range(2)], dim=1)
