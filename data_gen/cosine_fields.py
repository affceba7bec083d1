"""Laws of random fields on a box with walls: cosine series, whose normal derivative vanishes on the boundary.

Random numbers are drawn in an order that doesn't depend on the grid, so a generator gives the same field on any grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from data_gen.cosines import CosineSpace
from data_gen.permeability import cosine_series


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


@dataclass(frozen=True)
class SmoothMedium:
    """A positive field between walls, typical exp(deviation g). g is Gaussian and smooth, with mean 0 over the box and
    mean square 1 in expectation.

    Far from walls, the covariance of g falls with the distance r about as exp(-r^2 / (2 scale^2)); its eigenvalue for
    cos(pi k_1 x_1) cos(pi k_2 x_2) is proportional to exp(-(pi |k| scale)^2 / 2).

    Attributes:
        typical: median of the field.
        deviation: standard deviation of its logarithm; at 0 the field is constant.
        scale: correlation length, as a fraction of the box's side, at least 0.02.
    """

    typical: float = 1.0
    deviation: float = 0.2
    scale: float = 0.15

    def __post_init__(self) -> None:
        if not (0 < self.typical < np.inf and 0 <= self.deviation < np.inf and 0.02 <= self.scale <= 1):
            raise ValueError(
                "A smooth medium needs typical > 0, deviation >= 0 and scale from 0.02 to 1, got "
                f"{self}. Change dataset.problem.medium."
            )

    def draw(self, rng: np.random.Generator, n_nodes: int) -> NDArray[np.float64]:
        """One field at the nodes of the square, [n_nodes, n_nodes]."""
        k = np.arange(math.ceil(_LAST / (np.pi * self.scale)))
        squares = k[:, None] ** 2.0 + k[None, :] ** 2.0
        variance = np.exp(-0.5 * (np.pi * self.scale) ** 2 * squares)
        variance[0, 0] = 0
        amplitude = np.sqrt(variance / variance.sum())
        amplitude[1:] *= math.sqrt(2)
        amplitude[:, 1:] *= math.sqrt(2)
        return self.typical * np.exp(
            self.deviation * cosine_series(amplitude * rng.standard_normal(amplitude.shape), n_nodes)
        )


# Amplitudes exp(-(pi k scale)^2 / 4) of wavenumbers above _LAST / (pi scale) are below rounding.
_LAST = 12.5


@dataclass(frozen=True)
class WallPulses:
    """Sum of Gaussian bumps at random places between walls, each with its mirror images, so that slopes vanish there.

    Attributes:
        n_pulses: bumps per sample.
        narrowest, widest: standard deviations are uniform between these fractions of the box's side.
        weakest: heights are uniform in [weakest, 1], with a random sign.
    """

    n_pulses: int = 3
    narrowest: float = 0.05
    widest: float = 0.1
    weakest: float = 0.5

    def __post_init__(self) -> None:
        widths = 0 < self.narrowest <= self.widest <= 0.25
        if not (self.n_pulses >= 1 and widths and 0 <= self.weakest <= 1):
            raise ValueError(
                "Pulses need n_pulses >= 1, 0 < narrowest <= widest <= 0.25 and weakest from 0 to 1, got "
                f"{self}. Change the law in dataset.problem."
            )

    def draw(self, rng: np.random.Generator, n_nodes: int) -> NDArray[np.float64]:
        """One field at the nodes of the square, [n_nodes, n_nodes]."""
        x = np.linspace(0, 1, n_nodes)
        total = np.zeros((n_nodes, n_nodes))
        for _ in range(self.n_pulses):
            width, height = rng.uniform(self.narrowest, self.widest), rng.uniform(self.weakest, 1)
            height *= rng.choice([-1.0, 1.0])
            # Images further away than these are below rounding.
            places = [
                np.array([side * at + 2 * period for side in (1, -1) for period in (-1, 0, 1)])
                for at in rng.uniform(size=2)
            ]
            bumps = [np.exp(-0.5 * ((x[:, None] - at) / width) ** 2).sum(axis=1) for at in places]
            total += height * np.multiply.outer(*bumps)
        return total
