"""The Swift-Hohenberg equation: stripes and hexagons of one wavelength emerge from noise.

    u_t = growth u - (1 + Laplacian)^2 u + asymmetry u^2 - u^3    on [0, length)^d, periodic

Its energy never grows. Swift & Hohenberg (1977), Hydrodynamic fluctuations at the convective instability, Phys. Rev. A
15.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from data_gen.random_fields import Parameter, TruncatedFourierSeries
from data_gen.semilinear import SemilinearProblem
from data_gen.spec import FieldSpec
from data_gen.spectral import Space


@dataclass(frozen=True, kw_only=True)
class SwiftHohenberg(SemilinearProblem):
    """Swift-Hohenberg as a dataset in one, two or three dimensions.

    Attributes:
        growth: rate of waves of length 2 pi.
        asymmetry: factor of u^2; above 0, bumps are preferred to stripes.
    """

    growth: Parameter = 0.7
    asymmetry: Parameter = 1.0
    n_dims: int = 2
    length: float = 37.69911184307752
    resolution: int = 64
    interval: float = 1.0
    n_snapshots: int = 21
    initial: TruncatedFourierSeries = field(default_factory=lambda: TruncatedFourierSeries(n_waves=5))
    first_step: float = 0.1
    max_step: float = 0.2
    inner_batch: int = 16

    stem: ClassVar[str] = "swift_hohenberg"
    equation: ClassVar[str] = "∂ₜu = r u − (1 + ∇²)² u + g u² − u³"
    reference: ClassVar[str] = "Swift & Hohenberg (1977), Phys. Rev. A 15, 319"
    state: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("pattern", "order parameter u"),)
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "reflections_and_turns")
    degree: ClassVar[int] = 3

    def linear(self, space: Space) -> Tensor:
        return self.growth - (1 + space.laplacian) ** 2

    def nonlinear(self, u_hat: Tensor, space: Space) -> Tensor:
        u = space.values(u_hat)
        return space.coefficients((self.asymmetry - u).mul_(u).mul_(u))
