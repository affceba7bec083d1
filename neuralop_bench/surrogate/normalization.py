"""Per-channel standardisation, fitted on the training split in float64."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from data_gen.single_precision import LARGEST, SMALLEST, remark
from data_gen.spec import DatasetSpec
from neuralop_bench.batch import CHANNEL, TIME, Batch, Field, Trajectory
from neuralop_bench.metrics.metric import own_or_smallest


class Normalizer(nn.Module):
    """Means and standard deviations per channel. Statistics per pixel would tie a model to one grid.

    Attributes:
        state_mean, state_std: statistics of the state fields over all samples, frames and points, [C].
        static_mean, static_std: statistics of the static fields, [C_s].
        increment_std: root mean square of state(t + j) - state(t) for j = 1 ... bundle, [bundle, C]; empty for steady
            problems.

    A channel that never varies has a standard deviation of 0. It is encoded as 0 and decoded as its mean, whatever an
    operator returns: any other scale would depend on the field's units.
    """

    state_mean: Tensor
    state_std: Tensor
    static_mean: Tensor
    static_std: Tensor
    increment_std: Tensor

    def __init__(
        self,
        state_mean: Float64[Tensor, " channel"],
        state_std: Float64[Tensor, " channel"],
        static_mean: Float64[Tensor, " static"],
        static_std: Float64[Tensor, " static"],
        increment_std: Float64[Tensor, "lag channel"],
    ) -> None:
        super().__init__()
        # Stored in float64 and cast to the data's precision when used.
        self.register_buffer("state_mean", state_mean)
        self.register_buffer("state_std", state_std)
        self.register_buffer("static_mean", static_mean)
        self.register_buffer("static_std", static_std)
        self.register_buffer("increment_std", increment_std)

    @classmethod
    def fit(cls, batches: Iterable[Batch], *, bundle: int) -> Normalizer:
        """Statistics of whole trajectories (history and target together), accumulated batch by batch in float64.

        Args:
            batches: the training split, each trajectory once.
            bundle: number of increments j to measure.

        Raises:
            ValueError: values of a field aren't finite, or so small or large that single precision can't hold them.
        """
        state, static = Moments(), Moments()
        squares: list[Tensor] = []
        counts: list[int] = []
        for batch in batches:
            frames = torch.cat([batch.history, batch.target], dim=TIME).double()
            state.add(frames.transpose(0, 2).flatten(1))
            static.add(batch.static.double().transpose(0, 1).flatten(1))
            lags = range(1, min(bundle, frames.shape[TIME] - 1) + 1)
            increments = [(frames[:, lag:] - frames[:, :-lag]).transpose(0, 2).flatten(1) for lag in lags]
            if not squares:
                squares, counts = [torch.zeros(len(frames[0, 0]), dtype=torch.float64) for _ in lags], [0 for _ in lags]
            for j, increment in enumerate(increments):
                squares[j] += increment.square().sum(dim=1)
                counts[j] += increment.shape[1]
        state_mean, state_std = state.result()
        static_mean, static_std = static.result()
        rows = [(total / count).sqrt() for total, count in zip(squares, counts, strict=True)]
        increment_std = torch.stack(rows) if rows else torch.zeros(0, len(state_mean), dtype=torch.float64)
        for size in torch.hypot(torch.cat([state_mean, static_mean]), torch.cat([state_std, static_std])).tolist():
            if not size < LARGEST or 0 < size < SMALLEST:
                raise ValueError(
                    f"A field of the training data has the size {size:.3g} (root mean square). It isn't finite, or "
                    "single precision can't hold it. Import the data again with this field in other units."
                )
        return cls(state_mean, state_std, static_mean, static_std, increment_std)

    @classmethod
    def none(cls, spec: DatasetSpec, *, bundle: int) -> Normalizer:
        """Leaves fields in their own units; increments, too."""
        one = torch.ones(len(spec.state), dtype=torch.float64)
        static = torch.ones(len(spec.static), dtype=torch.float64)
        return cls(0 * one, one, 0 * static, static, one.expand(bundle, -1).clone())

    @property
    def scale(self) -> Float64[Tensor, " channel"]:
        """Root mean square of each state field, [C], in its units; positive (``own_or_smallest``)."""
        size = torch.hypot(self.state_mean, self.state_std)
        return torch.from_numpy(own_or_smallest(size.cpu().numpy())).to(size)

    def remarks(self, spec: DatasetSpec) -> dict[str, str]:
        """By field of the training data: that it never varies, or what single precision loses of it."""
        names = [*(field.name for field in (*spec.state, *spec.static)), *(entry.channel for entry in spec.channels)]
        means, deviations = torch.cat([self.state_mean, self.static_mean]), torch.cat([self.state_std, self.static_std])
        found = {
            name: remark(name, *statistics)
            for name, *statistics in zip(names, means.tolist(), deviations.tolist(), strict=True)
        }
        return {name: text for name, text in found.items() if text}

    def encode_state(self, states: Trajectory) -> Trajectory:
        return (states - _as(self.state_mean, states)) / _divisor(_as(self.state_std, states))

    def decode_state(self, encoded: Trajectory) -> Trajectory:
        return encoded * _as(self.state_std, encoded) + _as(self.state_mean, encoded)

    def encode_static(self, static: Field) -> Field:
        return (static - _as(self.static_mean, static, 1)) / _divisor(_as(self.static_std, static, 1))

    def encode_increment(self, increments: Trajectory) -> Trajectory:
        """Inverse of ``decode_increment``."""
        return increments / _divisor(self._increment_std(increments))

    def decode_increment(self, encoded: Trajectory) -> Trajectory:
        """Increments over the last history frame, in physical units, for the first steps of a bundle.

        Raises:
            ValueError: the bundle has more steps than increments were measured for.
        """
        return encoded * self._increment_std(encoded)

    def _increment_std(self, increments: Trajectory) -> Tensor:
        n_steps, n_measured = increments.shape[TIME], len(self.increment_std)
        if n_steps > n_measured:
            raise ValueError(
                f"Increments were measured over {n_measured} steps, so a bundle of {n_steps} can't be decoded. "
                "Lower surrogate.bundle or raise dataset.horizon."
            )
        return _as(self.increment_std[:n_steps], increments)


class Moments:
    """Mean and standard deviation per row, from batches, by Chan's pairwise update, which avoids cancellation."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Add values, [row, value]."""
        if values.shape[0] == 0:
            self._mean = self._squares = values.new_zeros(0)
            return
        count, mean = values.shape[1], values.mean(dim=1)
        squares = (values - mean[:, None]).square().sum(dim=1)
        total = self._count + count
        shift = mean - self._mean
        self._squares = self._squares + squares + shift.square() * (self._count * count / total)
        self._mean = self._mean + shift * (count / total)
        self._count = total

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of all values so far, [row] each."""
        return self._mean, (self._squares / max(self._count, 1)).sqrt()


def _as(statistics: Tensor, fields: Tensor, channel_axis: int = CHANNEL) -> Tensor:
    """Statistics [..., C], reshaped and cast to broadcast with fields whose channels are on the given axis."""
    return statistics.to(fields).view(*statistics.shape, *(1,) * (fields.ndim - 1 - channel_axis))


def _divisor(std: Tensor) -> Tensor:
    return torch.where(std > 0, std, torch.inf)
