"""The Allen-Cahn equation: two phases separate and coarsen.

    u_t = width^2 u_xx + u - u^3    on [0, length), periodic

The walls between the phases u = 1 and u = -1 are tanh(x / (sqrt(2) width)), and stand almost still. Allen & Cahn
(1979), A microscopic theory for antiphase boundary motion, Acta Metall. 27.
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
class AllenCahn1D(SemilinearProblem):
    """Allen-Cahn as a dataset.

    Attributes:
        width: of a wall between phases, positive.
    """

    width: Parameter = 0.02
    n_dims: int = 1
    resolution: int = 256
    interval: float = 0.25
    n_snapshots: int = 21
    initial: TruncatedFourierSeries = field(default_factory=TruncatedFourierSeries)
    first_step: float = 5e-3
    max_step: float = 2.5e-2

    stem: ClassVar[str] = "allen_cahn"
    equation: ClassVar[str] = "∂ₜu = ε² ∂ₓₓu + u − u³"
    reference: ClassVar[str] = "Allen & Cahn (1979), Acta Metall. 27, 1085"
    state: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("phase", "order parameter u"),)
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "reflections_and_turns")
    degree: ClassVar[int] = 3
    positive: ClassVar[tuple[str, ...]] = ("width",)

    def linear(self, space: Space) -> Tensor:
        return self.width**2 * space.laplacian + 1

    def nonlinear(self, u_hat: Tensor, space: Space) -> Tensor:
        u = space.values(u_hat)
        return space.coefficients((u * u).mul_(u)).neg_()
