"""The heat equation: every wave decays by itself.

    u_t = diffusivity u_xx    on [0, length), periodic

The solution u_hat_k(0) exp(-diffusivity (2 pi k / length)^2 t) is exact at any time.
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
class Diffusion1D(SemilinearProblem):
    """Diffusion as a dataset.

    Attributes:
        diffusivity: in units of length^2 / time, positive.
    """

    diffusivity: Parameter = 2e-3
    n_dims: int = 1
    resolution: int = 128
    interval: float = 0.05
    n_snapshots: int = 21
    initial: TruncatedFourierSeries = field(default_factory=TruncatedFourierSeries)

    stem: ClassVar[str] = "diffusion"
    equation: ClassVar[str] = "∂ₜu = D ∂ₓₓu"
    state: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("temperature", "temperature u"),)
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "reflections_and_turns")
    conserved: ClassVar[tuple[str, ...]] = ("mean",)
    positive: ClassVar[tuple[str, ...]] = ("diffusivity",)

    def linear(self, space: Space) -> Tensor:
        return self.diffusivity * space.laplacian
