"""Transformations of training batches that map solutions to solutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from data_gen.spec import DatasetSpec
from neuralop_bench.batch import Batch


class Augmentation(Protocol):
    def __call__(self, batch: Batch) -> Batch:
        """A batch of the same shapes; random numbers come from torch's global stream, which checkpoints hold."""
        ...


def none(spec: DatasetSpec) -> Augmentation:
    """Leave batches as they are."""
    del spec
    return lambda batch: batch


class Symmetries:
    """Move every sample by a random element of the symmetry group that the dataset's spec declares.

    The equation and its forcing are invariant under these maps, so an augmented trajectory is a trajectory of the same
    problem. Known: those of Navier-Stokes on the unit torus with a force of the form f(x + y), f(s + 1/2) = -f(s),
    f(1/4 - s) = f(s):

    - ``translation_along_antidiagonal``: w(x + a, y - a)
    - ``rotation_by_pi``: w(1/4 - x, -y)
    - ``reflection_with_sign``: -w(y + 1/2, x)

    Every state field is moved as a vorticity is: it changes its sign under reflection.

    Args:
        spec: of the training data.

    Raises:
        ValueError: the spec declares no symmetry that is known here, or a grid that some of them don't map to itself.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        self._maps = [_MAPS[name] for name in spec.symmetries if name in _MAPS]
        if not self._maps:
            raise ValueError(
                f"{spec.name} declares the symmetries {spec.symmetries}, none of which augmentation=symmetries knows. "
                "Use augmentation=none."
            )
        n = spec.grid.shape[0]
        if spec.grid.shape != (n, n) or n % 4:
            raise ValueError(
                "augmentation=symmetries needs a square grid with a multiple of 4 points per axis, got "
                f"{spec.grid.shape}. Use augmentation=none or change the resolution."
            )
        if spec.static:
            raise ValueError(
                f"augmentation=symmetries can't move the static fields of {spec.name}. Use augmentation=none."
            )

    def __call__(self, batch: Batch) -> Batch:
        n_history = batch.history.shape[1]
        frames = torch.cat([batch.history, batch.target], dim=1)
        moved = torch.stack([self._move(sample) for sample in frames])
        return Batch(moved[:, :n_history], batch.static, moved[:, n_history:])

    def _move(self, sample: Tensor) -> Tensor:
        for transform in self._maps:
            sample = transform(sample)
        return sample


def _translate(w: Tensor) -> Tensor:
    n = w.shape[-1]
    shift = int(torch.randint(n, ()))
    return torch.roll(w, (-shift, shift), dims=(-2, -1))


def _rotate(w: Tensor) -> Tensor:
    if torch.rand(()) < 0.5:
        return w
    # Flipping maps index i to n - 1 - i; rolling by one more cell than the shift makes that (shift - i) mod n.
    return torch.roll(w.flip(-2, -1), (1 + w.shape[-2] // 4, 1), dims=(-2, -1))


def _reflect(w: Tensor) -> Tensor:
    if torch.rand(()) < 0.5:
        return w
    # w(y + 1/2, x): the first argument of w takes the second index.
    return -torch.roll(w, -w.shape[-2] // 2, dims=-2).transpose(-2, -1)


_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "translation_along_antidiagonal": _translate,
    "rotation_by_pi": _rotate,
    "reflection_with_sign": _reflect,
}
