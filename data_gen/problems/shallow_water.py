"""The shallow-water equations over a flat bottom, without rotation and friction.

    h_t + div m = 0
    m_t + div(m m / h + g h^2 / 2 I) = 0

for the depth h and the momentum m = h (u, v) of water per area and unit of density. Waves steepen into bores, which
are shocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from data_gen.conservation_laws import ConservationLaw, cell_averages
from data_gen.random_fields import Parameter
from data_gen.solvers.finite_volume import Wall
from data_gen.spec import FieldSpec


@dataclass(frozen=True)
class CircularDam:
    """Deep water at rest inside a circle of random radius in the middle of a square, shallower water outside.

    Radial dam break of Takamoto et al. (2022), PDEBench, arXiv 2210.07182, appendix D: the square is [-2.5, 2.5]^2, the
    radius uniform in [0.3, 0.7], the depths are 2 and 1. Averages over cells are exact; PDEBench takes values at
    the cells' centres, where circles of nearly the same radius are one and the same.

    Attributes:
        smallest, largest: radius, relative to the side of the square.
        inside, outside: depth of the water.
    """

    smallest: float = 0.06
    largest: float = 0.14
    inside: float = 2.0
    outside: float = 1.0

    symmetries: ClassVar[tuple[str, ...]] = ("reflections_and_turns_of_scalars_and_a_vector",)

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest < 0.5:
            raise ValueError(
                "dataset.problem.initial needs 0 < smallest <= largest < 0.5, relative to the side of the square, got "
                f"{self.smallest} and {self.largest}."
            )
        for name in ("inside", "outside"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"dataset.problem.initial.{name} must be positive, because a dry bed has no solver here, got "
                    f"{getattr(self, name)}."
                )

    def draw(
        self, rng: np.random.Generator, n: int, n_dims: int, conserved: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, " field *n"]:
        edges = np.linspace(-0.5, 0.5, n + 1)
        below = _disk_below(edges[:, None], edges[None, :], rng.uniform(self.smallest, self.largest))
        share = np.diff(np.diff(below, axis=0), axis=1) * n**2
        w = np.zeros((1, 1 + n_dims, n, n))
        w[:, 0] = self.outside + (self.inside - self.outside) * np.clip(share, 0, 1)
        return conserved(torch.from_numpy(w))[0]


def _disk_below(x: NDArray[np.float64], y: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Area of the part of a disk around 0 that lies below and to the left of points (x, y)."""

    def half(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Integral of sqrt(radius^2 - x^2) from 0."""
        return (x * np.sqrt(np.maximum(radius**2 - x**2, 0)) + radius**2 * np.arcsin(x / radius)) / 2

    x, y = np.clip(x, -radius, radius), np.clip(y, -radius, radius)
    end = np.sqrt(np.maximum(radius**2 - y**2, 0))  # half the chord at height y
    x_on = np.clip(x, -end, end)
    cap = half(x_on) - half(-end) - np.abs(y) * (x_on + end)  # between the chord and the circle, left of x
    return np.where(y < 0, cap, 2 * (half(x) - half(np.array(-radius))) - cap)


@dataclass(frozen=True)
class SmoothSurface:
    """Water at rest with a smooth random surface: a sum of standing waves of random sign and size.

        h = depth (1 + sum over 0 <= k_i <= n_waves of a_k cos(pi k_1 x) cos(pi k_2 y)),    a_k normal

    without the constant. The waves have no slope at walls. The amplitudes of each sample are scaled so that the largest
    deviation is uniform between two bounds; it is computed on a fixed grid, so it doesn't depend on the solver's.

    Averages over cells are integrated by Gauss' quadrature.

    Attributes:
        depth: mean depth.
        n_waves: largest number of half waves along an axis.
        smallest, largest: bounds of the largest deviation from the mean depth, relative to it; below 1.
    """

    depth: float = 1.0
    n_waves: int = 4
    smallest: float = 0.1
    largest: float = 0.3

    symmetries: ClassVar[tuple[str, ...]] = ("reflections_and_turns_of_scalars_and_a_vector",)

    def __post_init__(self) -> None:
        if not (0 < self.depth < math.inf and self.n_waves >= 1 and 0 <= self.smallest <= self.largest < 1):
            raise ValueError(
                "A smooth surface needs depth > 0, n_waves >= 1 and 0 <= smallest <= largest < 1 (water everywhere), "
                f"got {self}. Change dataset.problem.initial."
            )

    def draw(
        self, rng: np.random.Generator, n: int, n_dims: int, conserved: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, " field *n"]:
        amplitudes = torch.from_numpy(rng.standard_normal((self.n_waves + 1,) * n_dims))
        amplitudes[(0,) * n_dims] = 0
        share = rng.uniform(self.smallest, self.largest)
        k = torch.from_numpy(np.pi * np.arange(self.n_waves + 1))

        def waves(*coordinates: Tensor) -> Tensor:
            total = amplitudes
            for x in coordinates:
                total = torch.einsum("k...,kx->...x", total, torch.cos(k[:, None] * x.ravel()))
            return total

        largest = waves(*[torch.from_numpy(np.linspace(0, 1, 65))] * n_dims).abs().max()
        w = np.zeros((1, 1 + n_dims, *(n,) * n_dims))
        w[:, 0] = self.depth * (1 + share / largest * cell_averages(waves, n, n_dims))
        return conserved(torch.from_numpy(w))[0]


@dataclass(frozen=True, kw_only=True)
class ShallowWater(ConservationLaw):
    """The shallow-water equations as a dataset in one or two dimensions.

    HLL fluxes (Harten, Lax & van Leer 1983) of depth and momentum, with the speeds of Einfeldt (1988); the momentum
    along a face moves with the water through it (HLLC). The bottom is wet everywhere.

    Attributes:
        gravity: acceleration g, positive.
    """

    gravity: Parameter = 1.0
    n_dims: int = 2
    length: float = 5.0
    resolution: int = 64
    solver_resolution: int = 256
    interval: float = 0.1
    n_snapshots: int = 21
    initial: CircularDam | SmoothSurface = field(default_factory=CircularDam)
    walls: Wall = "reflecting"

    stem: ClassVar[str] = "shallow_water"
    equation: ClassVar[str] = "∂ₜh + ∇·m = 0, ∂ₜm + ∇·(m⊗m/h + ½gh²I) = 0"
    reference: ClassVar[str] = "Takamoto et al. (2022), PDEBench, arXiv 2210.07182; LeVeque (2002), section 13"
    scalars_before: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("depth", "depth of the water h"),)
    momentum: ClassVar[str] = "momentum per area and unit of density"
    positive_fields: ClassVar[Mapping[int, str]] = {0: "depth"}
    positive: ClassVar[tuple[str, ...]] = ("gravity",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_dims == 3:
            raise ValueError("dataset.problem.n_dims must be 1 or 2, because depth is a field, got 3.")
        if isinstance(self.initial, CircularDam) and self.n_dims != 2:
            raise ValueError(f"dataset.problem.initial=CircularDam needs n_dims=2, got n_dims={self.n_dims}.")

    def primitive(self, u: Tensor) -> Tensor:
        w = torch.empty_like(u)
        w[:, 0] = u[:, 0]
        torch.div(u[:, 1:], u[:, :1], out=w[:, 1:])
        return w

    def conserved(self, w: Tensor) -> Tensor:
        u = torch.empty_like(w)
        u[:, 0] = w[:, 0]
        torch.mul(w[:, 1:], w[:, :1], out=u[:, 1:])
        return u

    def flux(self, w: Tensor, u: Tensor, axis: int) -> Tensor:
        f = u * w[:, 1 + axis : 2 + axis]
        f[:, 1 + axis].addcmul_(w[:, 0] * (0.5 * self.gravity), w[:, 0])
        return f

    def speed(self, w: Tensor, axis: int) -> Tensor:
        return (w[:, 0] * self.gravity).sqrt_().add_(w[:, 1 + axis].abs())

    def numerical_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The HLLC flux."""
        (h_l, u_l), (h_r, u_r) = ((w[:, 0], w[:, 1 + axis]) for w in (left, right))
        c_l, c_r = (h_l * self.gravity).sqrt_(), (h_r * self.gravity).sqrt_()
        # Slowest and fastest wave, from the sides and from Roe's averages, as far as they cross the face.
        mean = (c_l * u_l).addcmul_(c_r, u_r).div_(c_l + c_r)
        spread = (h_l + h_r).mul_(0.5 * self.gravity).sqrt_()
        s_l = torch.minimum(c_l.neg_().add_(u_l), mean - spread).clamp_(max=0)
        s_r = torch.maximum(c_r.add_(u_r), mean.add_(spread)).clamp_(min=0)
        width, product = s_r - s_l, s_l * s_r
        m_l, m_r = h_l * u_l, h_r * u_r
        half = 0.5 * self.gravity
        push_l, push_r = (h_l * half).mul_(h_l).addcmul_(m_l, u_l), (h_r * half).mul_(h_r).addcmul_(m_r, u_r)
        f = torch.empty_like(left)
        mass = (s_r * m_l).addcmul_(s_l, m_r, value=-1).addcmul_(product, h_r - h_l).div_(width)
        f[:, 0] = mass
        push = push_l.mul_(s_r).addcmul_(s_l, push_r, value=-1)
        f[:, 1 + axis] = push.addcmul_(product, m_r.sub_(m_l)).div_(width)
        # 1 where the water comes from the left: this picks a side exactly, in a fraction of the time of torch.where.
        side = torch.ge(mass, 0, out=torch.empty_like(mass))
        for other in range(1, left.shape[1]):
            if other != 1 + axis:
                f[:, other] = torch.lerp(right[:, other], left[:, other], side).mul_(mass)
        return f
