"""The Gray-Scott equations: two substances react and form spots, stripes and waves.

    u_t = diffusivity_u Laplacian u - u v^2 + feed (1 - u)
    v_t = diffusivity_v Laplacian v + u v^2 - (feed + kill) v    on [0, length)^d, periodic

Pearson (1993), Complex patterns in a simple system, Science 261, has the map of patterns by feed and kill.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from data_gen.random_fields import GaussianBlobs, Parameter
from data_gen.semilinear import SemilinearProblem
from data_gen.spec import FieldSpec
from data_gen.spectral import Space


@dataclass(frozen=True, kw_only=True)
class GrayScott(SemilinearProblem):
    """Gray-Scott as a dataset in one, two or three dimensions.

    Attributes:
        diffusivity_u, diffusivity_v: in units of length^2 / time, positive.
        feed, kill: rates, positive.
    """

    diffusivity_u: Parameter = 2e-5
    diffusivity_v: Parameter = 1e-5
    feed: Parameter = 0.04
    kill: Parameter = 0.06
    n_dims: int = 2
    length: float = 0.64
    resolution: int = 64
    interval: float = 20.0
    n_snapshots: int = 21
    initial: GaussianBlobs = field(default_factory=lambda: GaussianBlobs(heights=(-0.5, 0.25), offsets=(1.0, 0.0)))
    first_step: float = 1.0
    max_step: float = 2.0
    inner_batch: int = 16

    stem: ClassVar[str] = "gray_scott"
    equation: ClassVar[str] = "∂ₜu = Dᵤ ∇²u − u v² + F (1 − u), ∂ₜv = Dᵥ ∇²v + u v² − (F + k) v"
    reference: ClassVar[str] = "Pearson (1993), Science 261, 189"
    state: ClassVar[tuple[FieldSpec, ...]] = (
        FieldSpec("fuel", "concentration u"),
        FieldSpec("catalyst", "concentration v"),
    )
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "reflections_and_turns")
    degree: ClassVar[int] = 3
    positive: ClassVar[tuple[str, ...]] = ("diffusivity_u", "diffusivity_v", "feed", "kill")

    def linear(self, space: Space) -> Tensor:
        return torch.stack(
            [
                self.diffusivity_u * space.laplacian - self.feed,
                self.diffusivity_v * space.laplacian - (self.feed + self.kill),
            ]
        )

    def nonlinear(self, u_hat: Tensor, space: Space) -> Tensor:
        u, v = space.values(u_hat).split(1, dim=1)
        reaction = space.coefficients((v * v).mul_(u))
        result = torch.cat([-reaction, reaction], dim=1)
        mean_u = (slice(None), slice(0, 1), *[slice(0, 1)] * space.n_dims)
        result[mean_u] += self.feed
        return result
