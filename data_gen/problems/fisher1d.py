"""The Fisher-KPP equation: a population spreads and saturates.

    u_t = diffusivity u_xx + growth u (1 - u)    on [0, length), periodic

States between 0 and 1 stay there. Fronts run into empty space at a speed of 2 sqrt(diffusivity growth); one of speed
5 sqrt(diffusivity growth / 6) is known exactly. Fisher (1937), Ann. Eugenics 7; Ablowitz & Zeppetella (1979), Bull.
Math. Biol. 41.
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
class FisherKPP1D(SemilinearProblem):
    """Fisher-KPP as a dataset.

    Attributes:
        diffusivity: in units of length^2 / time, positive.
        growth: rate at which a small population grows.
    """

    diffusivity: Parameter = 1e-3
    growth: Parameter = 2.0
    n_dims: int = 1
    resolution: int = 128
    interval: float = 0.1
    n_snapshots: int = 21
    initial: TruncatedFourierSeries = field(default_factory=lambda: TruncatedFourierSeries(largest=0.2, offset=0.2))
    first_step: float = 0.01
    max_step: float = 0.01

    stem: ClassVar[str] = "fisher"
    equation: ClassVar[str] = "∂ₜu = D ∂ₓₓu + r u (1 − u)"
    reference: ClassVar[str] = "Fisher (1937), Ann. Eugenics 7, 355"
    state: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("population", "population density u"),)
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "reflections_and_turns")
    degree: ClassVar[int] = 2
    positive: ClassVar[tuple[str, ...]] = ("diffusivity", "growth")

    def linear(self, space: Space) -> Tensor:
        return self.diffusivity * space.laplacian + self.growth

    def nonlinear(self, u_hat: Tensor, space: Space) -> Tensor:
        return -self.growth * space.coefficients(space.values(u_hat).square_())
