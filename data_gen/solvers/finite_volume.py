"""Finite volumes for systems of conservation laws u_t + div F(u) = 0 on a uniform box in one, two or three dimensions.

MUSCL reconstruction of the primitive variables with van Leer's limiter (van Leer 1979, Towards the ultimate
conservative difference scheme V, J. Comput. Phys. 32), a Riemann solver at each face, and strong-stability-preserving
Runge-Kutta steps (Shu & Osher 1988, J. Comput. Phys. 77). Second order where the solution is smooth, first order at
shocks. What leaves a cell enters its neighbour, so sums over a periodic box change by rounding alone.

The solver works for any system: it takes the maps between conserved and primitive variables, a numerical flux and the
speeds of the waves.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_gen.spec import SolverError

# What is beyond an end of an axis: the other end, the same state, or its mirror image.
Wall = Literal["periodic", "outflow", "reflecting"]
WALLS: tuple[Wall, ...] = get_args(Wall)

# Runge-Kutta steps of second and third order as convex combinations of Euler steps: the shares of the Euler step.
_SHARES = {2: (1.0, 0.5), 3: (1.0, 0.25, 2 / 3)}

# Cells of samples that are solved together: few enough for what is computed from them to stay in the cache.
_CELLS_TOGETHER = 2**14

_MAX_STEPS = 100_000
_GHOSTS = 2


class Law(Protocol):
    """A system of conservation laws. States are [sample, field, *space]; a scalar per cell or face is [sample, *space].
    Momenta and velocities along the axes are the fields 1 ... of a state."""

    # Primitive fields that must be positive, by their places, with their names.
    positive_fields: ClassVar[Mapping[int, str]]

    def primitive(self, u: Tensor) -> Tensor:
        """The primitive variables of conserved ones, as a new tensor."""
        ...

    def conserved(self, w: Tensor) -> Tensor:
        """The conserved variables of primitive ones, as a new tensor."""
        ...

    def flux(self, w: Tensor, u: Tensor, axis: int) -> Tensor:
        """F(u) along an axis."""
        ...

    def numerical_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The flux through faces between two primitive states."""
        ...

    def speed(self, w: Tensor, axis: int) -> Tensor:
        """Speed of the fastest wave along an axis."""
        ...

    def turned_by_walls(self, axis: int) -> tuple[int, ...]:
        """Primitive fields that change their signs in a mirror normal to an axis."""
        ...


def rusanov(law: Law, left: Tensor, right: Tensor, axis: int) -> Tensor:
    """The flux of Rusanov (1961): the mean of both sides, and dissipation at the speed of the fastest wave.

    For any law, and more dissipative than a Riemann solver that knows the waves.
    """
    u_left, u_right = law.conserved(left), law.conserved(right)
    fastest = torch.maximum(law.speed(left, axis), law.speed(right, axis)).unsqueeze(1)
    both = law.flux(left, u_left, axis) + law.flux(right, u_right, axis)
    return both.sub_(u_right.sub_(u_left).mul_(fastest)).mul_(0.5)


@dataclass(frozen=True)
class FiniteVolumes:
    """A solver of a law on cells of equal size.

    Every sample has steps of its own, so no result depends on another sample.

    Attributes:
        law: maps numbers of samples [n] to the law that these have; its parameters may differ between them.
        spacing: size of a cell along each axis.
        walls: at both ends of each axis.
        cfl: step relative to the time in which waves of all axes together cross a cell, at most 1.
        stages: of a Runge-Kutta step, 2 or 3; its order.
        limited: reconstruct slopes. Without them the scheme is of first order.
    """

    law: Callable[[Int[Tensor, " n"]], Law]
    spacing: tuple[float, ...]
    walls: tuple[Wall, ...]
    cfl: float = 0.5
    stages: int = 3
    limited: bool = True

    def march(
        self, u: Float[Tensor, "n field *space"], intervals: Sequence[float], first: int = 0
    ) -> Iterator[tuple[Float[Tensor, "n field *space"], Int[Tensor, " n"]]]:
        """States after each interval, one after another, and the steps that the samples took for it.

        Args:
            u: cell averages of the conserved variables.
            intervals: of time, each positive.
            first: number of the first sample, for messages.

        Raises:
            SolverError: a field that must be positive isn't, a state isn't finite, or the steps become too short.
        """
        together = max(1, _CELLS_TOGETHER // math.prod(u.shape[2:]))
        time = 0.0
        for interval in intervals:
            rows = torch.arange(len(u), device=u.device).split(together)
            parts = [
                self._advanced(part, chosen, time, interval, first)
                for part, chosen in zip(u.split(together), rows, strict=True)
            ]
            time += interval
            u = torch.cat([states for states, _ in parts])
            yield u, torch.cat([steps for _, steps in parts])

    def _advanced(
        self, u: Tensor, rows: Tensor, start: float, interval: float, first: int
    ) -> tuple[Tensor, Int[Tensor, " n"]]:
        """States after an interval. Samples that have reached its end leave the batch."""
        result, taken = torch.empty_like(u), torch.zeros_like(rows)
        going, law = torch.arange(len(u), device=u.device), self.law(rows)
        left = torch.full((len(u),), interval, dtype=torch.float64, device=u.device)
        while len(going):
            w = law.primitive(u)
            time = start + interval - left
            _require_physical(law, w, time, rows[going] + first)
            n_steps = torch.ceil(left / self._longest_step(law, w) * (1 - 1e-12)).clamp(min=1)
            _require_few(n_steps, time, rows[going] + first)
            dt = left / n_steps
            u = self._step(law, u, w, dt.to(u.dtype).view(-1, *(1,) * (u.ndim - 1)))
            taken[going] += 1
            left = left - dt
            done = n_steps == 1
            if bool(done.any()):
                ended = going[done]
                its_law = self.law(rows[ended])
                _require_physical(its_law, its_law.primitive(u[done]), time[done] + dt[done], rows[ended] + first)
                result[ended] = u[done]
                u, left, going = u[~done], left[~done], going[~done]
                law = self.law(rows[going])
        return result, taken

    def _longest_step(self, law: Law, w: Tensor) -> Float[Tensor, " n"]:
        rates = [law.speed(w, axis).mul_(1 / h) for axis, h in enumerate(self.spacing)]
        return self.cfl / functools.reduce(torch.Tensor.add_, rates).flatten(1).amax(dim=1).double()

    def _step(self, law: Law, u: Tensor, w: Tensor, dt: Tensor) -> Tensor:
        stage = u
        for number, share in enumerate(_SHARES[self.stages]):
            # An Euler step from the stage, mixed with the state at the beginning.
            euler = self._rate(law, law.primitive(stage) if number else w).mul_(dt).add_(stage)
            stage = euler if share == 1.0 else torch.lerp(u, euler, share)
        return stage

    def _rate(self, law: Law, w: Tensor) -> Tensor:
        """-div F."""
        total = torch.zeros_like(w)
        for axis, (h, wall) in enumerate(zip(self.spacing, self.walls, strict=True)):
            along, n = 2 + axis, w.shape[2 + axis]
            cells = _padded(w, axis, wall, law.turned_by_walls(axis))
            left, right = cells.narrow(along, 1, n + 1), cells.narrow(along, 2, n + 1)
            if self.limited:
                half = _half_differences(cells, along)
                left, right = left + half.narrow(along, 0, n + 1), right - half.narrow(along, 1, n + 1)
            flux = law.numerical_flux(left, right, axis)
            total.sub_(flux.narrow(along, 1, n).sub(flux.narrow(along, 0, n)), alpha=1 / h)
        return total


def block_means(u: Tensor, factor: int, n_dims: int) -> Tensor:
    """Averages over the cells of a grid ``factor`` times as coarse along each of the last ``n_dims`` axes."""
    for along in range(-n_dims, 0):
        # Cell after cell, because the order within a reduction may depend on the size of the batch.
        u = functools.reduce(torch.add, u.unflatten(along, (-1, factor)).unbind(along)) / factor
    return u


def _half_differences(cells: Tensor, along: int) -> Tensor:
    """Half the limited difference across each cell but the first and the last: ab / (a + b) of the differences a and b
    to both neighbours, which is half their harmonic mean, or 0 at an extremum. Values at faces then lie between those
    of the two cells."""
    n = cells.shape[along]
    steps = cells.narrow(along, 1, n - 1) - cells.narrow(along, 0, n - 1)
    a, b = steps.narrow(along, 0, n - 2), steps.narrow(along, 1, n - 2)
    # 0 / 0 where all three cells are equal. What is undefined in the cells themselves stays so.
    return (a * b).clamp_(min=0).div_(a + b).nan_to_num_(nan=0.0)


def _padded(w: Tensor, axis: int, wall: Wall, turned: tuple[int, ...]) -> Tensor:
    """The cells of an axis, and two ghost cells beyond each of its ends."""
    along, n = 2 + axis, w.shape[2 + axis]
    shape = list(w.shape)
    shape[along] = n + 2 * _GHOSTS
    cells = w.new_empty(shape)
    cells.narrow(along, _GHOSTS, n).copy_(w)
    for ghost in range(_GHOSTS):
        below, above = {
            "periodic": (n - 1 - ghost, ghost),
            "outflow": (0, n - 1),
            "reflecting": (ghost, n - 1 - ghost),
        }[wall]
        for place, source in ((_GHOSTS - 1 - ghost, below), (_GHOSTS + n + ghost, above)):
            cells.select(along, place).copy_(w.select(along, source))
            if wall == "reflecting":
                for field in turned:
                    cells.select(along, place)[:, field].neg_()
    return cells


def _require_physical(law: Law, w: Tensor, time: Tensor, samples: Tensor) -> None:
    for place, name in law.positive_fields.items():
        least = w[:, place].flatten(1).amin(dim=1)  # NaN if one of the values is
        wrong = ~(least > 0)
        if bool(wrong.any()):
            worst = int(wrong.int().argmax())
            raise SolverError(
                f"Sample {int(samples[worst])} of the batch has a {name} of {float(least[worst]):.3g} at "
                f"t={float(time[worst]):.4g}, where it must be positive. Lower dataset.problem.cfl, raise "
                "dataset.problem.solver_resolution, or choose a milder law of initial states."
            )


def _require_few(n_steps: Tensor, time: Tensor, samples: Tensor) -> None:
    wrong = ~(n_steps <= _MAX_STEPS)
    if bool(wrong.any()):
        worst = int(wrong.int().argmax())
        raise SolverError(
            f"Sample {int(samples[worst])} of the batch needs {float(n_steps[worst]):.3g} steps from "
            f"t={float(time[worst]):.4g} to the next stored time, more than {_MAX_STEPS}: a state isn't finite, or its "
            "waves are too fast. Shorten dataset.problem.interval, or choose a milder law of initial states."
        )
