"""Transformations of training batches: to other solutions, or to inputs with errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from data_gen.spec import DatasetSpec, even_step
from neuralop_bench.batch import TIME, Batch, space_axes


class Augmentation(Protocol):
    def __call__(self, batch: Batch, before: int = 0, after: int = 0) -> Batch:
        """A batch of the same shapes. Random numbers come from torch's global stream, whose state is in checkpoints.

        Args:
            batch: this process's part of a batch.
            before, after: number of samples that other processes hold before and after this part. Their random numbers
                are drawn here, too, so that those of a sample don't depend on the process.
        """
        ...


def none(spec: DatasetSpec) -> Augmentation:
    """Leave batches as they are."""
    del spec
    return lambda batch, before=0, after=0: batch  # noqa: ARG005


class Symmetries:
    """Map every sample by a random element of the symmetry group that the dataset's spec declares.

    The equation, its forcing and the distribution of its inputs are invariant under these maps, so an augmented
    trajectory is a trajectory of the same problem. Supported are:

    - ``translation``, ``translation_along_x``, ``translation_along_y``: by any number of points along periodic axes
    - ``reflections_and_turns``: the maps of a periodic cube to itself that permute and reflect its axes, for scalars:
      2 in one dimension, 8 in two, 48 in three
    - ``reflections_and_turns_of_a_vector``: the same for the components of a vector, which are permuted and change
      their signs with the axes
    - ``quarter_turn``: w(y, -x) and its powers, for a scalar in a doubly periodic square
    - ``odd_reflection``: -u(-x), for a velocity on a periodic interval
    - ``square_symmetries``: the eight maps of the closed square to itself, for the solution and its coefficients
    - ``reflection_across_channel``: (u, -v, p)(x, Ly - y) for a flow with walls at y = 0 and y = Ly
    - ``reflections_and_turns_of_scalars_and_a_vector``: the maps of a line, square or cube with walls to itself, for a
      state that begins with a scalar and the components of a vector; other fields are scalars

    and for vorticity with a force of the form f(x + y), f(s + 1/2) = -f(s), f(1/4 - s) = f(s):

    - ``translation_along_antidiagonal``: w(x + a, y - a)
    - ``rotation_by_pi``: w(1/4 - x, -y)
    - ``reflection_with_sign``: -w(y + 1/2, x), which is also a symmetry without a force

    Other names are ignored: what is left is still a set of symmetries.

    Args:
        spec: spec of the training data.

    Raises:
        ValueError: the spec declares no supported symmetry, or one of them can't map its grid or static fields.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        known = {name: _MAPS[name] for name in spec.symmetries if name in _MAPS}
        if not known:
            raise ValueError(
                f"{spec.name} declares the symmetries {spec.symmetries}, but augmentation=symmetries supports none of "
                "them. Use augmentation=none."
            )
        shape = spec.grid.shape
        for name, entry in known.items():
            if entry.is_of_cube and (len({*shape}) > 1 or len({*spec.grid.lengths}) > 1 or not spec.grid.is_periodic):
                raise ValueError(
                    f"augmentation=symmetries needs a periodic grid with equal axes for the symmetry {name}, got "
                    f"{spec.grid}. Use augmentation=none or change the grid."
                )
            if entry.has_scalar_and_vector and len({*shape}) > 1:
                raise ValueError(
                    f"augmentation=symmetries needs as many points along every axis for the symmetry {name}, got "
                    f"{shape}. Use augmentation=none or change the resolution."
                )
            if entry.has_scalar_and_vector and len(spec.state) <= len(shape):
                raise ValueError(
                    f"augmentation=symmetries needs a scalar and {len(shape)} components of a vector for the symmetry "
                    f"{name}, but {spec.name} has {len(spec.state)} state fields. Use augmentation=none."
                )
            if entry.is_of_vector and len(spec.state) != len(shape):
                raise ValueError(
                    f"augmentation=symmetries needs {len(shape)} components of a vector for the symmetry {name}, but "
                    f"{spec.name} has {len(spec.state)} state fields. Use augmentation=none."
                )
            if entry.divisor and (len(set(shape)) > 1 or len(shape) != 2 or shape[0] % entry.divisor):
                points = f" with a multiple of {entry.divisor} points per axis" if entry.divisor > 1 else ""
                raise ValueError(
                    f"augmentation=symmetries needs a square grid{points} for the symmetry {name}, got {shape}. Use "
                    "augmentation=none or change the resolution."
                )
            if spec.static and not entry.moves_static:
                raise ValueError(
                    f"augmentation=symmetries can't map the static fields of {spec.name} by {name}. Use "
                    "augmentation=none."
                )
        self._draws = [entry.draw for entry in known.values()]

    def __call__(self, batch: Batch, before: int = 0, after: int = 0) -> Batch:
        n_history = batch.history.shape[1]
        frames = torch.cat([batch.history, batch.target], dim=1)
        self._pass_over(before, frames.shape[3:])
        moved = [self._move(*sample) for sample in zip(frames, batch.static, strict=True)]
        self._pass_over(after, frames.shape[3:])
        frames, static = (torch.stack(fields) for fields in zip(*moved, strict=True))
        return batch._replace(history=frames[:, :n_history], static=static, target=frames[:, n_history:])

    def _pass_over(self, n_samples: int, space: torch.Size) -> None:
        for _ in range(n_samples):
            for draw in self._draws:
                draw(space)

    def _move(self, frames: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
        for draw in self._draws:
            element = draw(frames.shape[2:])
            frames, static = element.of_state(element.move(frames)), element.move(static)
        return frames, static


class Noise:
    """Add normally distributed noise to the given frames and leave the target as it is, so that a model learns to
    remove errors of the size of its own (Sanchez-Gonzalez et al. 2020, arXiv 2002.09405, section 4.2; Tran et al. 2023,
    arXiv 2111.13802, section 3).

    Args:
        spec: spec of the training data.
        size: standard deviation of the noise, relative to the root mean square of the field over the frames of a
            sample.
        symmetries: whether the sample is mapped by a random symmetry before (``Symmetries``).

    Raises:
        ValueError: ``size`` isn't positive, the problem is steady, or ``symmetries`` can't be had.
    """

    def __init__(self, spec: DatasetSpec, *, size: float = 0.01, symmetries: bool = False) -> None:
        if not 0 < size < math.inf:
            raise ValueError(f"augmentation.size must be positive, got {size}. It is the size of the noise.")
        if spec.is_steady:
            raise ValueError(
                f"augmentation=noise adds noise to given frames, but {spec.name} has none: it is steady. Use "
                "augmentation=symmetries or none."
            )
        self._size = size
        self._moved = Symmetries(spec) if symmetries else none(spec)

    def __call__(self, batch: Batch, before: int = 0, after: int = 0) -> Batch:
        batch = self._moved(batch, before, after)
        history = batch.history
        # One after another on the CPU, so that the numbers of a sample depend neither on the process nor on the device.
        draws = [torch.randn(history.shape[1:]) for _ in range(before + len(history) + after)]
        noise = torch.stack(draws[before : before + len(history)]).to(history)
        scale = history.square().mean(dim=(TIME, *space_axes(history)), keepdim=True).sqrt()
        return batch._replace(history=history + self._size * scale * noise)


class Boosts:
    """Map every sample to a frame of reference that moves at a random speed: where u(x, t) solves an equation with the
    transport term a u u_x, so does u(x - a c t, t) + c for every c. One of the Lie point symmetries of Brandstetter,
    Welling & Worrall (2022), Lie point symmetry data augmentation for neural PDE solvers, arXiv 2202.07643.

    Unlike ``Symmetries``, boosts change the distribution of the inputs: their mean. The shift between grid points is
    that of the Fourier series.

    Args:
        spec: spec of the training data.
        transport: the factor a: 1 for Burgers and Kuramoto-Sivashinsky, 6 for Korteweg-de Vries.
        size: standard deviation of c, relative to the root mean square of the sample.
        symmetries: whether the sample is mapped by a random symmetry before (``Symmetries``).

    Raises:
        ValueError: a number is out of range, the state isn't one field on a periodic interval at even times, or
            ``symmetries`` can't be had.
    """

    def __init__(
        self, spec: DatasetSpec, *, transport: float = 1.0, size: float = 0.5, symmetries: bool = False
    ) -> None:
        step, grid = even_step(spec.times), spec.grid
        if not 0 < size < math.inf:
            raise ValueError(f"augmentation.size must be positive, got {size}. It is the size of the boosts.")
        if not 0 < abs(transport) < math.inf:
            raise ValueError(f"augmentation.transport must be finite and not 0, got {transport}.")
        if step is None or grid.n_dims > 1 or not grid.is_periodic or len(spec.state) > 1 or spec.static:
            raise ValueError(
                "augmentation=boosts needs one field on a periodic interval at even times, without coefficient fields, "
                f"which {spec.name} hasn't. Use augmentation=symmetries or none."
            )
        self._shift = transport * step / grid.lengths[0]  # per frame and speed, relative to the interval
        self._size = size
        self._moved = Symmetries(spec) if symmetries else none(spec)

    def __call__(self, batch: Batch, before: int = 0, after: int = 0) -> Batch:
        batch = self._moved(batch, before, after)
        n_history = batch.history.shape[TIME]
        frames = torch.cat([batch.history, batch.target], dim=TIME)
        # On the CPU, so that the numbers of a sample depend neither on the process nor on the device.
        draws = torch.randn(before + len(frames) + after)[before : before + len(frames)].to(frames)
        speeds = draws.view(-1, 1, 1, 1) * self._size * frames.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        n, n_frames = frames.shape[-1], frames.shape[TIME]
        k = torch.arange(n // 2 + 1, device=frames.device)
        turns = self._shift * speeds * torch.arange(n_frames, device=frames.device).view(-1, 1, 1) * k
        phases = torch.polar(torch.ones_like(turns), -2 * math.pi * turns)
        boosted = torch.fft.irfft(torch.fft.rfft(frames) * phases, n) + speeds
        return batch._replace(history=boosted[:, :n_history], target=boosted[:, n_history:])


def _same(field: Tensor) -> Tensor:
    return field


class _Element(NamedTuple):
    """One element of a symmetry group: how it moves a scalar field, space axes last, and what it then does to the
    values of the state, [time, field, *space]."""

    move: Callable[[Tensor], Tensor]
    of_state: Callable[[Tensor], Tensor] = _same


class _Map(NamedTuple):
    """How elements are drawn for a grid's shape, and what they require."""

    draw: Callable[[torch.Size], _Element]
    moves_static: bool
    divisor: int = 0  # the grid must be square, with a multiple of this many points per axis; 0 for any grid
    is_of_cube: bool = False  # the grid must be periodic, with equal axes
    is_of_vector: bool = False  # the state must be the components of a vector
    has_scalar_and_vector: bool = False  # the state must begin with a scalar and a vector, on equal axes


def _rolled(*axes: int) -> Callable[[torch.Size], _Element]:
    def draw(space: torch.Size) -> _Element:
        shifts = [int(torch.randint(space[axis], ())) for axis in axes]
        dims = [axis - len(space) for axis in axes]
        return _Element(lambda field: torch.roll(field, shifts, dims))

    return draw


def _translate(space: torch.Size) -> _Element:
    return _rolled(*range(len(space)))(space)


def _reflect_and_turn(space: torch.Size) -> _Element:
    n_dims = len(space)
    order = torch.randperm(n_dims).tolist()
    signs = [1 if draw < 0.5 else -1 for draw in torch.rand(n_dims).tolist()]

    def move(field: Tensor) -> Tensor:
        lead = field.ndim - n_dims
        field = field.permute(*range(lead), *(lead + axis for axis in order))
        reflected = [axis - n_dims for axis in range(n_dims) if signs[axis] < 0]
        # Index -i is n - i, so a flip is followed by a roll of one point.
        return torch.roll(field.flip(reflected), [1] * len(reflected), reflected) if reflected else field

    def turn(vector: Tensor) -> Tensor:
        return vector[:, order] * vector.new_tensor(signs).view(-1, *(1,) * n_dims)

    return _Element(move, turn)


def _reflect_and_turn_scalars(space: torch.Size) -> _Element:
    return _reflect_and_turn(space)._replace(of_state=_same)


def _translate_along_antidiagonal(space: torch.Size) -> _Element:
    shift = int(torch.randint(space[-1], ()))
    return _Element(lambda w: torch.roll(w, (-shift, shift), dims=(-2, -1)))


def _turn(space: torch.Size) -> _Element:
    del space
    turns = int(torch.randint(4, ()))

    def move(w: Tensor) -> Tensor:
        for _ in range(turns):  # w(y, -x): index -i is n - i, so a flip is followed by a roll of one point
            w = torch.roll(w.transpose(-2, -1).flip(-2), 1, dims=-2)
        return w

    return _Element(move)


def _rotate_by_pi(space: torch.Size) -> _Element:
    if torch.rand(()) < 0.5:
        return _Element(_same)
    # Flipping maps index i to n - 1 - i; rolling by one cell more than the shift makes that (shift - i) mod n.
    return _Element(lambda w: torch.roll(w.flip(-2, -1), (1 + space[-2] // 4, 1), dims=(-2, -1)))


def _reflect_with_sign(space: torch.Size) -> _Element:
    if torch.rand(()) < 0.5:
        return _Element(_same)
    # w(y + 1/2, x): the first argument of w takes the second index.
    return _Element(lambda w: torch.roll(w, -space[-2] // 2, dims=-2).transpose(-2, -1), torch.neg)


def _reflect_odd(space: torch.Size) -> _Element:
    del space
    if torch.rand(()) < 0.5:
        return _Element(_same)
    return _Element(lambda u: torch.roll(u.flip(-1), 1, dims=-1), torch.neg)


def _move_square(space: torch.Size) -> _Element:
    del space
    flipped = [axis for axis in (-2, -1) if torch.rand(()) < 0.5]
    transposed = bool(torch.rand(()) < 0.5)
    return _Element(lambda u: (u.transpose(-2, -1) if transposed else u).flip(flipped))


def _reflect_channel(space: torch.Size) -> _Element:
    del space
    if torch.rand(()) < 0.5:
        return _Element(_same)
    return _Element(lambda field: field.flip(-1), lambda state: state * state.new_tensor([1, -1, 1]).view(-1, 1, 1))


def _reflect_and_turn_between_walls(space: torch.Size) -> _Element:
    n_dims = len(space)
    order = torch.randperm(n_dims).tolist()
    signs = [1 if draw < 0.5 else -1 for draw in torch.rand(n_dims).tolist()]

    def move(field: Tensor) -> Tensor:
        lead = field.ndim - n_dims
        field = field.permute(*range(lead), *(lead + axis for axis in order))
        return field.flip([axis - n_dims for axis in range(n_dims) if signs[axis] < 0])

    def turn(state: Tensor) -> Tensor:
        scalar, vector, rest = state.split([1, n_dims, state.shape[1] - 1 - n_dims], dim=1)
        turned = vector[:, order] * vector.new_tensor(signs).view(-1, *(1,) * n_dims)
        return torch.cat([scalar, turned, rest], dim=1)

    return _Element(move, turn)


_MAPS: dict[str, _Map] = {
    "translation": _Map(_translate, moves_static=True),
    "translation_along_x": _Map(_rolled(0), moves_static=False),
    "translation_along_y": _Map(_rolled(1), moves_static=False),
    "reflections_and_turns": _Map(_reflect_and_turn_scalars, moves_static=True, is_of_cube=True),
    "reflections_and_turns_of_a_vector": _Map(
        _reflect_and_turn, moves_static=False, is_of_cube=True, is_of_vector=True
    ),
    "quarter_turn": _Map(_turn, moves_static=True, divisor=1),
    "odd_reflection": _Map(_reflect_odd, moves_static=False),
    "square_symmetries": _Map(_move_square, moves_static=True, divisor=1),
    "reflection_across_channel": _Map(_reflect_channel, moves_static=True),
    "reflections_and_turns_of_scalars_and_a_vector": _Map(
        _reflect_and_turn_between_walls, moves_static=True, has_scalar_and_vector=True
    ),
    "translation_along_antidiagonal": _Map(_translate_along_antidiagonal, moves_static=False),
    "rotation_by_pi": _Map(_rotate_by_pi, moves_static=False, divisor=4),
    "reflection_with_sign": _Map(_reflect_with_sign, moves_static=False, divisor=2),
}
