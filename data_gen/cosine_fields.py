"""Laws of random fields on a box with walls: cosine series, whose normal derivative vanishes on the boundary.

Random numbers are drawn in an order that doesn't depend on the grid, so a generator gives the same field on any grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_gen.cosines import CosineSpace


@dataclass(frozen=True)
class CosineNoise:
    """The long waves of noise that is independent in each of ``n_cells`` cells per axis.

    Each wave cos(pi k_1 x_1) ... with k_i <= n_waves has a normal amplitude, whose mean square over the box is
    (deviation^2 / n_cells^d). Without the cut at ``n_waves`` these would be all waves of white noise on ``n_cells``
    cells. Cut, the field has a standard deviation of about deviation (n_waves / n_cells)^(d/2), and doesn't depend on
    the grid.

    Attributes:
        n_waves: largest wavenumber along each axis; a wave of wavenumber 1 is half a wave long.
        n_cells: cells per axis of the noise.
        deviation: standard deviation of the noise in a cell.
    """

    n_waves: int = 32
    n_cells: int = 128
    deviation: float = 1.0

    boundary: ClassVar[Literal["neumann"]] = "neumann"

    def __post_init__(self) -> None:
        if not (1 <= self.n_waves < self.n_cells and self.deviation > 0):
            raise ValueError(
                f"Noise between walls needs 1 <= n_waves < n_cells and deviation > 0, got {self}. Change "
                "dataset.problem.initial."
            )

    def draw(
        self, rngs: Sequence[np.random.Generator], n_fields: int, space: CosineSpace
    ) -> Float[Tensor, "sample field *k"]:
        """Independent fields, one state per generator, as the coefficients that ``space`` holds."""
        own = CosineSpace(self.n_waves + 1, space.n_dims, 1.0, degree=1)
        scale = self.deviation * self.n_cells ** (-space.n_dims / 2) / own.multiplicity.cpu().numpy() ** 0.5
        drawn = np.stack([scale * rng.standard_normal((n_fields, *own.shape)) for rng in rngs])
        return own.moved(torch.as_tensor(drawn, device="cpu"), space)
