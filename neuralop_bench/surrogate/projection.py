"""What a predicted state is projected onto before it is given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from data_gen.grids import Nodes
from data_gen.spec import DatasetSpec
from neuralop_bench.batch import CHANNEL, Field, Trajectory, space_axes
from neuralop_bench.layers.band_limited import resample_series
from neuralop_bench.layers.options import Inapplicable


def mask_channel(spec: DatasetSpec) -> int | None:
    """The static field that is positive where the equation holds; None if it holds everywhere."""
    return [field.name for field in spec.static].index(spec.mask) if spec.mask else None


def masked(trajectory: Trajectory, static: Field, channel: int) -> Trajectory:
    """The trajectory [B, T, C, *S], set to 0 where a channel of the static fields [B, C_s, *S] isn't positive."""
    return torch.where(static[:, channel, None, None] > 0, trajectory, 0)


@dataclass(frozen=True)
class Projection:
    """Removes from every predicted state the smallest scales, the drift of means that the equation conserves, and what
    lies where the equation doesn't hold.

    Errors at the smallest scales are fed back at every step, where products of the network turn them into errors at
    larger scales. Without the smallest scales there is nothing to feed back: McCabe et al. (2023), Towards stability of
    autoregressive neural operators, arXiv 2306.10619.

    Attributes:
        nodes: where points lie, for each axis.
        points: waves are kept that so many points on an axis can hold; None keeps all.
        channels: state fields whose mean stays that of the last given frame.
        mask: channel of the static fields. Where it isn't positive, predictions are 0.
    """

    nodes: tuple[Nodes, ...]
    points: tuple[int, ...] | None
    channels: Sequence[int]
    mask: int | None = None

    @classmethod
    def of(cls, spec: DatasetSpec, *, cutoff: float, conserve: bool) -> Projection | None:
        """The projection for a dataset, or None if it would change nothing.

        Args:
            spec: of the training data: the same waves are kept on other grids.
            cutoff: fraction of each axis's points that could hold the waves that are kept; 1 keeps all.
            conserve: whether means that the spec names as conserved stay as they are.

        Raises:
            Inapplicable: the spec names no mean as conserved, or the problem is steady.
        """
        names = [f"mean_{field.name}" for field in spec.state]
        kept = {channel for channel, name in enumerate(names) if name in spec.conserved}
        if "mean" in spec.conserved:
            kept.add(0)
        if conserve and (spec.is_steady or not kept):
            raise Inapplicable(
                f"surrogate.conserve=true keeps means that the equation conserves, but {spec.name} names none. Use "
                "surrogate.conserve=false."
            )
        mask = mask_channel(spec)
        if cutoff == 1 and not conserve and mask is None:
            return None
        points = None if cutoff == 1 else tuple(max(2, round(cutoff * n)) for n in spec.grid.shape)
        return cls(spec.grid.nodes, points, sorted(kept) if conserve else (), mask)

    def __call__(self, history: Trajectory, static: Field, predicted: Trajectory) -> Trajectory:
        """The projected bundle, [B, b, C, *S]."""
        axes = space_axes(predicted)
        if self.points is not None:
            shape = predicted.shape[-len(axes) :]
            coarse = [min(n, kept) for n, kept in zip(shape, self.points, strict=True)]
            predicted = resample_series(resample_series(predicted, self.nodes, coarse), self.nodes, shape)
        if self.channels:
            drift = self._mean(predicted) - self._mean(history[:, -1:])
            keeps = predicted.new_zeros(predicted.shape[CHANNEL])
            keeps[list(self.channels)] = 1
            predicted = predicted - keeps.view(-1, *(1,) * len(axes)) * drift
        return predicted if self.mask is None else masked(predicted, static, self.mask)

    def _mean(self, values: Trajectory) -> Trajectory:
        """Means over space, as the metric ``conserved`` takes them."""
        axes = space_axes(values)
        for axis, nodes in zip(axes, self.nodes, strict=True):
            if nodes == "closed":  # means over neighbours: the ends then count half
                n = values.shape[axis] - 1
                values = (values.narrow(axis, 0, n) + values.narrow(axis, 1, n)) / 2
        return values.mean(dim=axes, keepdim=True)
