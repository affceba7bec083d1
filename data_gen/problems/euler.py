"""The compressible Euler equations of an ideal gas.

    rho_t + div m = 0
    m_t + div(m m / rho + p I) = 0
    E_t + div(m (E + p) / rho) = 0,    p = (gamma - 1) (E - |m|^2 / (2 rho))

for the density rho, the momentum m and the total energy E per volume, of a gas without viscosity. Discontinuities form
and persist: shocks, contacts, and vortex sheets, which roll up.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_gen.conservation_laws import ConservationLaw, cell_averages, shares_below
from data_gen.random_fields import Parameter
from data_gen.solvers.finite_volume import Wall
from data_gen.spec import FieldSpec


@dataclass(frozen=True)
class RandomStates:
    """Constant states side by side, in two dimensions with four of them around a corner (a Riemann problem).

    The cut along each axis is uniform in the middle of the box. Density and pressure of each state are log-uniform, its
    velocities uniform. In one dimension there are ``n_pieces`` states: a shock tube has two.

    In two dimensions, Lax & Liu (1998), Solution of two-dimensional Riemann problems of gas dynamics by positive
    schemes, SIAM J. Sci. Comput. 19, chose the states such that one wave starts at each cut. Here they are random, as
    in Ohana et al. (2024), The Well, arXiv 2412.00568, and up to three waves start at each.

    Averages over cells are exact.

    Attributes:
        n_pieces: states along an axis, at least 2.
        margin: distance of the cuts from the ends of the box, relative to its side.
        density, pressure: least and largest.
        speed: largest magnitude of each velocity.
    """

    n_pieces: int = 2
    margin: float = 0.3
    density: tuple[float, float] = (0.125, 1.0)
    pressure: tuple[float, float] = (0.1, 1.0)
    speed: float = 0.5

    symmetries: ClassVar[tuple[str, ...]] = ("reflections_and_turns_of_scalars_and_a_vector",)

    def __post_init__(self) -> None:
        for name in ("density", "pressure"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ValueError(
                    f"dataset.problem.initial.{name} must be two positive numbers, the least first, got "
                    f"[{low}, {high}]."
                )
        if not 0 <= self.speed < math.inf:
            raise ValueError(f"dataset.problem.initial.speed must be at least 0, got {self.speed}.")
        if not self.n_pieces >= 2:
            raise ValueError(f"dataset.problem.initial.n_pieces must be at least 2, got {self.n_pieces}.")
        if not 0 <= self.margin < 0.5:
            raise ValueError(f"dataset.problem.initial.margin must be in [0, 0.5), got {self.margin}.")

    def draw(
        self, rng: np.random.Generator, n: int, n_dims: int, conserved: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, " field *n"]:
        cuts = np.sort(rng.uniform(self.margin, 1 - self.margin, (n_dims, self.n_pieces - 1)), axis=1)
        scalars = rng.uniform(size=(2, *(self.n_pieces,) * n_dims))
        velocities = rng.uniform(-self.speed, self.speed, (n_dims, *(self.n_pieces,) * n_dims))
        density, pressure = (
            low * (high / low) ** share
            for (low, high), share in zip((self.density, self.pressure), scalars, strict=True)
        )
        u = conserved(torch.from_numpy(np.stack([density, *velocities, pressure]))[None])[0]
        for axis, own in enumerate(cuts):
            below = torch.stack([shares_below(cut, n) for cut in (0.0, *own, 1.0)])
            # Piece by piece, so that all pieces of one state give this state to the last digit.
            shares = (below[1:] - below[:-1]).view(self.n_pieces, *(1,) * axis, n, *(1,) * (n_dims - 1 - axis))
            pieces = zip(u.unbind(1 + axis), shares, strict=True)
            u = functools.reduce(torch.add, [piece.unsqueeze(1 + axis) * share for piece, share in pieces])
        return u


@dataclass(frozen=True)
class ShearLayers:
    """Two layers of gas that slide along each other, in a periodic box: the Kelvin-Helmholtz instability.

    A band of half the box's height moves in the direction of x against the rest, and is denser. Across the smooth
    edges of the band, density and velocity change as tanh(distance / width). The pressure is constant. Waves of small
    random amplitude and phase in the velocity across the band start the instability. Smooth edges of a stated width
    make it well-posed: McNally, Lyra & Passy (2012), A well-posed Kelvin-Helmholtz instability test and comparison,
    Astrophys. J. Suppl. 201.

    Averages over cells are integrated by Gauss' quadrature.

    Attributes:
        shear: least and largest difference of the velocities; either direction is as likely.
        contrast: least and largest ratio of the densities; the lighter gas has the density 1.
        width: least and largest width of an edge, relative to the box's side.
        pressure: of both layers.
        n_waves: wavenumbers 1 ... n_waves of the perturbation.
        amplitude: its root mean square, relative to the shear.
    """

    shear: tuple[float, float] = (0.8, 1.2)
    contrast: tuple[float, float] = (1.0, 2.0)
    width: tuple[float, float] = (0.025, 0.035)
    pressure: float = 1.0
    n_waves: int = 4
    amplitude: float = 0.1

    symmetries: ClassVar[tuple[str, ...]] = ("translation",)

    def __post_init__(self) -> None:
        for name in ("shear", "contrast", "width"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ValueError(
                    f"dataset.problem.initial.{name} must be two positive numbers, the least first, got "
                    f"[{low}, {high}]."
                )
        if not (self.pressure > 0 and self.n_waves >= 1 and self.amplitude >= 0):
            raise ValueError(
                "Shear layers need pressure > 0, n_waves >= 1 and amplitude >= 0, got "
                f"{self}. Change dataset.problem.initial."
            )

    def draw(
        self, rng: np.random.Generator, n: int, n_dims: int, conserved: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, " field *n"]:
        shear, contrast, width = (rng.uniform(*limits) for limits in (self.shear, self.contrast, self.width))
        shear *= rng.choice([-1.0, 1.0])
        middle = rng.uniform()
        waves = rng.standard_normal((self.n_waves, 2))
        waves *= self.amplitude * abs(shear) / math.sqrt(self.n_waves)
        k = torch.from_numpy(2 * np.pi * np.arange(1, self.n_waves + 1))

        def state(x: Tensor, y: Tensor) -> Tensor:
            # (1 + tanh(s)) / 2. Near an edge s is the distance over the width, and it is smooth across the whole box.
            band = torch.sigmoid(torch.cos(2 * math.pi * (y - middle)) / (math.pi * width))
            cosines, sines = torch.from_numpy(waves.T)
            across = torch.cos(x[..., None] * k) @ cosines + torch.sin(x[..., None] * k) @ sines
            ones = torch.ones_like(x + y)
            w = [1 + (contrast - 1) * band * ones, shear * (band - 0.5) * ones, across * ones, self.pressure * ones]
            return conserved(torch.stack(w)[None])[0]

        return cell_averages(state, n, n_dims)


@dataclass(frozen=True, kw_only=True)
class Euler(ConservationLaw):
    """The Euler equations as a dataset in one, two or three dimensions.

    HLLC fluxes (Toro, Spruce & Speares 1994, Restoration of the contact surface in the HLL Riemann solver, Shock Waves
    4) with the speeds of Einfeldt (1988), On Godunov-type methods for gas dynamics, SIAM J. Numer. Anal. 25.

    The file has the conserved fields density, momentum and energy, as The Well does (PDEBench has density, velocity and
    pressure). Averages over cells are averages of these: their sums balance exactly, also across shocks, while the mean
    of a velocity over a cell has no such meaning.

    Attributes:
        gamma: ratio of specific heats, above 1: 1.4 in air, 5/3 in a gas of single atoms.
    """

    gamma: Parameter = 1.4
    n_dims: int = 1
    resolution: int = 128
    solver_resolution: int = 1024
    interval: float = 0.01
    n_snapshots: int = 21
    initial: RandomStates | ShearLayers = field(default_factory=RandomStates)
    walls: Wall = "outflow"

    stem: ClassVar[str] = "euler"
    equation: ClassVar[str] = (
        "∂ₜρ + ∇·m = 0, ∂ₜm + ∇·(m⊗m/ρ + pI) = 0, ∂ₜE + ∇·(m(E + p)/ρ) = 0, p = (γ−1)(E − |m|²/2ρ)"
    )
    reference: ClassVar[str] = "Toro (2009), Riemann Solvers and Numerical Methods for Fluid Dynamics, Springer"
    scalars_before: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("density", "density ρ"),)
    scalars_after: ClassVar[tuple[FieldSpec, ...]] = (FieldSpec("energy", "total energy per volume E"),)
    positive_fields: ClassVar[Mapping[int, str]] = {0: "density", -1: "pressure"}
    positive: ClassVar[tuple[str, ...]] = ("gamma",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.initial, ShearLayers) and (self.n_dims, self.walls) != (2, "periodic"):
            raise ValueError(
                "dataset.problem.initial=ShearLayers needs dataset.problem.n_dims=2 and walls=periodic, got "
                f"n_dims={self.n_dims} and walls={self.walls}."
            )
        least = getattr(self.gamma, "low", self.gamma)
        if not least > 1:
            raise ValueError(f"dataset.problem.gamma must be above 1, where pressures are positive, got {self.gamma}.")

    def primitive(self, u: Tensor) -> Tensor:
        w = torch.empty_like(u)
        rho, m = u[:, 0], u[:, 1:-1]
        w[:, 0] = rho
        torch.div(m, rho.unsqueeze(1), out=w[:, 1:-1])
        kinetic = m[:, 0] * w[:, 1]
        for axis in range(1, m.shape[1]):
            kinetic.addcmul_(m[:, axis], w[:, 1 + axis])
        w[:, -1] = kinetic.mul_(-0.5).add_(u[:, -1]).mul_(self.gamma - 1)
        return w

    def conserved(self, w: Tensor) -> Tensor:
        u = torch.empty_like(w)
        u[:, 0] = w[:, 0]
        torch.mul(w[:, 1:-1], w[:, :1], out=u[:, 1:-1])
        u[:, -1] = self._energy(w)
        return u

    def _energy(self, w: Tensor) -> Tensor:
        squares = w[:, 1].square()
        for axis in range(2, w.shape[1] - 1):
            squares.addcmul_(w[:, axis], w[:, axis])
        return squares.mul_(w[:, 0]).mul_(0.5).add_(w[:, -1] / (self.gamma - 1))

    def flux(self, w: Tensor, u: Tensor, axis: int) -> Tensor:
        f = u * w[:, 1 + axis : 2 + axis]
        f[:, 1 + axis] += w[:, -1]
        f[:, -1].addcmul_(w[:, -1], w[:, 1 + axis])
        return f

    def speed(self, w: Tensor, axis: int) -> Tensor:
        return (w[:, -1] / w[:, 0]).mul_(self.gamma).sqrt_().add_(w[:, 1 + axis].abs())

    def numerical_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The HLLC flux."""
        (rho_l, u_l, p_l), (rho_r, u_r, p_r) = ((w[:, 0], w[:, 1 + axis], w[:, -1]) for w in (left, right))
        # Slowest and fastest wave, from the sides and from averages between them with weights sqrt(rho).
        square_l, square_r = (p_l / rho_l).mul_(self.gamma), (p_r / rho_r).mul_(self.gamma)
        root_l, root_r = rho_l.sqrt(), rho_r.sqrt()
        share = root_l.div_(root_r.add_(root_l))
        jump = u_r - u_l
        mean = torch.addcmul(u_r, share, jump, value=-1)
        square = (square_l - square_r).mul_(share).add_(square_r)
        spread = (share - share.square()).mul_(0.5).mul_(jump).mul_(jump).add_(square).sqrt_()
        s_l = torch.minimum(u_l - square_l.sqrt_(), mean - spread)
        s_r = torch.maximum(square_r.sqrt_().add_(u_r), mean.add_(spread))
        # The contact, and the side of it on which the face lies.
        q_l, q_r = (s_l - u_l).mul_(rho_l), (s_r - u_r).mul_(rho_r)
        contact = (p_r - p_l).addcmul_(q_l, u_l).addcmul_(q_r, u_r, value=-1).div_(q_l - q_r)
        # 1 on the left of it, 0 on the right: this picks a side exactly, in a fraction of the time of torch.where.
        side = torch.ge(contact, 0, out=torch.empty_like(contact))
        w = torch.lerp(right, left, side.unsqueeze(1))
        s, q = torch.lerp(s_r, s_l, side), torch.lerp(q_r, q_l, side)
        rho, u, p, energy = w[:, 0], w[:, 1 + axis], w[:, -1], self._energy(w)
        # The state between this side's fastest wave, at speed s, and the contact.
        gap = s - contact
        rho_star = q / gap
        p_star = torch.addcmul(p, q, contact - u)
        energy_star = ((s - u) * energy).addcmul_(p_star, contact).addcmul_(p, u, value=-1).div_(gap)
        # F + s (U* - U), or F if all waves move away from this side.
        s = torch.lerp(s_r.clamp_(min=0), s_l.clamp_(max=0), side)
        flow = rho * u
        f = torch.empty_like(w)
        f[:, 1 + axis] = (rho_star * contact).sub_(flow).mul_(s).add_(p).addcmul_(flow, u)
        mass = rho_star.sub_(rho).mul_(s).add_(flow)
        f[:, 0] = mass
        for other in range(1, w.shape[1] - 1):
            if other != 1 + axis:
                torch.mul(mass, w[:, other], out=f[:, other])
        f[:, -1] = energy_star.sub_(energy).mul_(s).addcmul_(energy + p, u)
        return f
