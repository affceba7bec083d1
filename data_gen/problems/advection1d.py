"""Advection at a constant speed: every wave travels unchanged.

    u_t + speed u_x = 0    on [0, length), periodic

The solution u(x - speed t) is exact at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from data_gen.random_fields import Parameter, TruncatedFourierSeries
from data_gen.semilinear import InitialLaw, SemilinearProblem
from data_gen.spec import FieldSpec
from data_gen.spectral import Space


@dataclass(frozen=True, kw_only=True)
class Advection1D(SemilinearProblem):
    """Advection as a dataset.

    Attributes:
        speed: of the waves, in units of length / time.
    """

    speed: Parameter = 1.0
    n_dims: int = 1
    resolution: int = 128
    interval: float = 0.05
    n_snapshots: int = 21
    initial: InitialLaw = field(default_factory=TruncatedFourierSeries)

    stem: ClassVar[str] = "advection"
    equation: ClassVar[str] = "∂ₜu + c ∂ₓu = 0"
    state: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("density", "transported density u"),)
    conserved: ClassVar[tuple[str, ...]] = ("mean", "energy")

    def linear(self, space: Space) -> Tensor:
        return -self.speed * space.derivatives[0]
