"""The Kuramoto-Sivashinsky equation: flame fronts, chaos in one dimension.

    u_t + steepening (u^2 / 2)_x + u_xx + u_xxxx = 0    on [0, length), periodic ("conservative")
    h_t + steepening (h_x)^2 / 2 + h_xx + h_xxxx = 0    ("gradient")

Waves longer than 2 pi grow, shorter ones decay. If h solves the second form, h_x solves the first. From a length of
about 20 on, solutions are chaotic: errors grow by about exp(0.09 t) on long boxes. Kuramoto (1978), Prog. Theor. Phys.
Suppl. 64; Sivashinsky (1977), Acta Astronautica 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from data_gen.random_fields import Parameter, TruncatedFourierSeries
from data_gen.semilinear import SemilinearProblem
from data_gen.spec import FieldSpec
from data_gen.spectral import Space


@dataclass(frozen=True, kw_only=True)
class KuramotoSivashinsky1D(SemilinearProblem):
    """Kuramoto-Sivashinsky as a dataset. The drawn waves evolve for ``warm_up`` until they are on the attractor.

    Attributes:
        form: conservative, of the slope u, or gradient, of the front's height h, whose mean falls.
        steepening: factor of the nonlinear term, positive. Solutions are inversely proportional to it.
    """

    form: Literal["conservative", "gradient"] = "conservative"
    steepening: Parameter = 1.0
    n_dims: int = 1
    length: float = 60.0
    resolution: int = 128
    interval: float = 1.0
    n_snapshots: int = 21
    initial: TruncatedFourierSeries = field(default_factory=TruncatedFourierSeries)
    warm_up: float = 100.0
    first_step: float = 0.025
    max_step: float = 0.025

    stem: ClassVar[str] = "ks"
    equation: ClassVar[str] = "∂ₜu + ∂ₓ(u²/2) + ∂ₓₓu + ∂ₓₓₓₓu = 0"
    reference: ClassVar[str] = "Kuramoto (1978), Prog. Theor. Phys. Suppl. 64, 346"
    state: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("slope", "slope of the front u"),)
    degree: ClassVar[int] = 2
    positive: ClassVar[tuple[str, ...]] = ("steepening",)

    def linear(self, space: Space) -> Tensor:
        return -space.laplacian - space.laplacian**2

    def nonlinear(self, u_hat: Tensor, space: Space) -> Tensor:
        if self.form == "gradient":
            return -self.steepening / 2 * space.coefficients(space.values(space.derivative(u_hat, 0)).square_())
        return -self.steepening / 2 * space.derivatives[0] * space.coefficients(space.values(u_hat).square_())
