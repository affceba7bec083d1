"""The Cahn-Hilliard equation: a mixture separates into two phases; each keeps its volume.

    u_t = mobility Laplacian (u^3 - u - width^2 Laplacian u)    on [0, length)^2, periodic

It conserves the mean of u, and its free energy never grows. Cahn & Hilliard (1958), Free energy of a nonuniform system,
J. Chem. Phys. 28.
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
class CahnHilliard2D(SemilinearProblem):
    """Cahn-Hilliard as a dataset.

    Attributes:
        width: of a wall between phases, positive.
        mobility: factor of the rate, positive.
    """

    width: Parameter = 0.03
    mobility: Parameter = 1e-2
    n_dims: int = 2
    resolution: int = 64
    interval: float = 0.05
    n_snapshots: int = 21
    initial: TruncatedFourierSeries = field(default_factory=lambda: TruncatedFourierSeries(n_waves=6, largest=0.5))
    first_step: float = 1e-3
    max_step: float = 5e-3
    inner_batch: int = 16

    stem: ClassVar[str] = "cahn_hilliard"
    equation: ClassVar[str] = "∂ₜu = M ∇²(u³ − u − ε² ∇²u)"
    reference: ClassVar[str] = "Cahn & Hilliard (1958), J. Chem. Phys. 28, 258"
    state: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("phase", "order parameter u"),)
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "reflections_and_turns")
    conserved: ClassVar[tuple[str, ...]] = ("mean",)
    degree: ClassVar[int] = 3
    positive: ClassVar[tuple[str, ...]] = ("width", "mobility")

    def linear(self, space: Space) -> Tensor:
        return -self.mobility * (space.laplacian + (self.width * space.laplacian) ** 2)

    def nonlinear(self, u_hat: Tensor, space: Space) -> Tensor:
        u = space.values(u_hat)
        return self.mobility * space.laplacian * space.coefficients((u * u).mul_(u))
