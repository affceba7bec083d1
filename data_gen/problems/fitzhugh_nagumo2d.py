"""The FitzHugh-Nagumo equations between walls: an activator and an inhibitor that diffuses faster form patterns.

    u_t = diffusivity_u Laplacian u + u - u^3 - bias - v
    v_t = diffusivity_v Laplacian v + u - v                 on [0, length]^2, no flux through the walls

This is the two-dimensional diffusion-reaction equation of Takamoto et al. (2022), PDEBench, arXiv 2210.07182, after
Klaasen & Troy (1984), Stationary wave solutions of a system of reaction-diffusion equations derived from the
FitzHugh-Nagumo equations, SIAM J. Appl. Math. 44.

Two things differ from PDEBench. It starts from noise that is independent in each of 128 x 128 cells, so a finer grid
has another start. Here the start has the waves of this noise up to wavenumber ``n_waves`` with the same variance each,
on any grid. Shorter waves than these 32 decay by diffusion alone at rates above 2.5 and 13, and no wave grows faster
than at 1. So patterns have the same sizes, but not the same law: before its short waves decay, PDEBench's noise damps
the long ones through u^3. And PDEBench's fields are given at cell centres, ours at nodes, walls included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from data_gen.cosine_fields import CosineNoise
from data_gen.cosines import CosineSpace
from data_gen.random_fields import Parameter
from data_gen.semilinear import SemilinearProblem
from data_gen.spec import FieldSpec


@dataclass(frozen=True, kw_only=True)
class FitzHughNagumo2D(SemilinearProblem):
    """FitzHugh-Nagumo as a dataset.

    Attributes:
        diffusivity_u, diffusivity_v: in units of length^2 / time, positive.
        bias: constant loss of the activator.
    """

    diffusivity_u: Parameter = 1e-3
    diffusivity_v: Parameter = 5e-3
    bias: Parameter = 5e-3
    n_dims: int = 2
    length: float = 2.0
    resolution: int = 65
    interval: float = 0.25
    n_snapshots: int = 21
    initial: CosineNoise = field(default_factory=CosineNoise)
    first_step: float = 0.0625
    max_step: float = 0.125
    inner_batch: int = 16

    boundary: ClassVar[Literal["neumann"]] = "neumann"
    stem: ClassVar[str] = "fitzhugh_nagumo"
    equation: ClassVar[str] = "∂ₜu = Dᵤ ∇²u + u − u³ − k − v, ∂ₜv = Dᵥ ∇²v + u − v, ∂ₙu = ∂ₙv = 0 on the walls"
    reference: ClassVar[str] = "Takamoto et al. (2022), PDEBench, arXiv 2210.07182, 2D diffusion-reaction"
    state: ClassVar[tuple[FieldSpec, ...]] = (
        FieldSpec("activator", "concentration u"),
        FieldSpec("inhibitor", "concentration v"),
    )
    symmetries: ClassVar[tuple[str, ...]] = ("square_symmetries",)
    degree: ClassVar[int] = 3
    positive: ClassVar[tuple[str, ...]] = ("diffusivity_u", "diffusivity_v")

    def linear(self, space: CosineSpace) -> Tensor:
        # Growth and decay only: v in the first equation and u in the second aren't diagonal, so they belong to N.
        return torch.stack([self.diffusivity_u * space.laplacian + 1, self.diffusivity_v * space.laplacian - 1])

    def nonlinear(self, u_hat: Tensor, space: CosineSpace) -> Tensor:
        u, v = u_hat.split(1, dim=1)
        values = space.values(u)
        result = torch.cat([-space.coefficients(values**3) - v, u], dim=1)
        result[:, :1, :1, :1] -= self.bias
        return result
