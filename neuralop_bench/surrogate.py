"""An operator with units: physical fields in, physical fields out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuralop_bench.batch import TIME, Batch, Field, Trajectory
from neuralop_bench.normalization import Normalizer
from neuralop_bench.rollout import rollout


class Surrogate(nn.Module):
    """decode . operator . encode: the one place of normalisation and of the layout of time in channels.

    The operator sees [B, K C + C_s, *S]: the normalised history, oldest frame first, then the normalised static fields.
    It returns [B, b C, *S], the bundle of b steps predicted per call.

    Args:
        operator: an ``nn.Module`` that maps fields to fields.
        normalizer: statistics of the training split.
        bundle: steps per call, b. 1 is autoregressive; the horizon predicts the whole trajectory at once.
        residual: predict increments: step j of a bundle is the last history frame plus increment_std[j] times the
            output.

    Raises:
        ValueError: in ``forward``, ``residual`` without a history; an operator whose output has another shape.
    """

    def __init__(self, operator: nn.Module, normalizer: Normalizer, *, bundle: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.operator = operator
        self.normalizer = normalizer
        self.bundle = bundle
        self.residual = residual

    def forward(self, history: Trajectory, static: Field) -> Trajectory:
        """The next bundle, [B, b, C, *S], in physical units."""
        if self.residual and history.shape[TIME] == 0:
            raise ValueError(
                "surrogate.residual=true predicts an increment over the last history frame, but the history is empty. "
                "Use surrogate.residual=false for a steady problem."
            )
        output = self.operator(self.encode(history, static))
        n_channels = len(self.normalizer.state_mean)
        expected = (history.shape[0], self.bundle * n_channels, *static.shape[2:])
        if output.shape != expected:
            raise ValueError(f"The operator returned fields of shape {tuple(output.shape)}, expected {expected}.")
        bundle = output.unflatten(1, (self.bundle, n_channels))
        if self.residual:
            return history[:, -1:] + self.normalizer.decode_increment(bundle)
        return self.normalizer.decode_state(bundle)

    def encode(self, history: Trajectory, static: Field) -> Field:
        """The operator's input, [B, K C + C_s, *S]."""
        states = self.normalizer.encode_state(history).flatten(1, 2)
        return torch.cat([states, self.normalizer.encode_static(static)], dim=1)

    @torch.no_grad()
    def predict(self, batch: Batch, n_steps: int) -> Trajectory:
        """Free-running prediction of ``n_steps`` snapshots, [B, n_steps, C, *S], in evaluation mode."""
        was_training = self.training
        self.eval()
        try:
            return rollout(self, batch.history, batch.static, n_steps)
        finally:
            self.train(was_training)

    @property
    def n_parameters(self) -> int:
        """Trainable real numbers; a complex parameter counts as two."""
        return sum(_real_numbers(p) for p in self.operator.parameters() if p.requires_grad)


def _real_numbers(parameter: Tensor) -> int:
    return parameter.numel() * (2 if parameter.is_complex() else 1)
