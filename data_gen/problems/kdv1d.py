"""The Korteweg-de Vries equation: waves that steepen and disperse into solitons.

    u_t + 6 u u_x + u_xxx = -hyper_viscosity u_xxxx    on [0, length), periodic

Without damping, the wave (c / 2) / cosh^2(sqrt(c) (x - c t) / 2) travels unchanged on the line. The equation conserves
the mean and the mean square of u. Zabusky & Kruskal (1965), Interaction of "solitons" in a collisionless plasma, Phys.
Rev. Lett. 15.
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
class KortewegDeVries1D(SemilinearProblem):
    """KdV as a dataset.

    Attributes:
        hyper_viscosity: damping of the shortest waves, at least 0.
    """

    hyper_viscosity: Parameter = 0.0
    n_dims: int = 1
    length: float = 20.0
    resolution: int = 128
    interval: float = 0.05
    n_snapshots: int = 21
    initial: TruncatedFourierSeries = field(default_factory=lambda: TruncatedFourierSeries(n_waves=3))
    first_step: float = 1e-3
    max_step: float = 2e-3

    stem: ClassVar[str] = "kdv"
    equation: ClassVar[str] = "∂ₜu + 6 u ∂ₓu + ∂ₓₓₓu = −ε ∂ₓₓₓₓu"
    reference: ClassVar[str] = "Zabusky & Kruskal (1965), Phys. Rev. Lett. 15, 240"
    state: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("elevation", "elevation u"),)
    conserved: ClassVar[tuple[str, ...]] = ("mean",)
    degree: ClassVar[int] = 2
    nonnegative: ClassVar[tuple[str, ...]] = ("hyper_viscosity",)

    def linear(self, space: Space) -> Tensor:
        return -(space.derivatives[0] ** 3) - self.hyper_viscosity * space.laplacian**2

    def nonlinear(self, u_hat: Tensor, space: Space) -> Tensor:
        return -3 * space.derivatives[0] * space.coefficients(space.values(u_hat).square_())
