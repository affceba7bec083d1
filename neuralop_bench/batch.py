"""The common shape of examples for loader, trainer, rollout and metrics."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Field = Float[Tensor, "batch channel *space"]
Trajectory = Float[Tensor, "batch time channel *space"]

# Axes of a Trajectory.
TIME = 1
CHANNEL = 2
# Axes of a Trajectory before its space axes.
N_LEADING = 3


class Batch(NamedTuple):
    """A batch of examples, in physical units.

    A steady problem is a trajectory with an empty history (K = 0) and one step, so Darcy, Burgers and Navier-Stokes
    share all code that handles batches.

    history: [B, K, C, *S], the snapshots a model is given.
    static: [B, C_s, *S], coefficients and forcing, then the parameters that the model is given, each constant in space;
        may have 0 channels.
    target: [B, T, C, *S], the snapshots to predict.
    parameters: [B, P], the parameters that differ between samples (``spec.varying``), for solvers.
    """

    history: Trajectory
    static: Field
    target: Trajectory
    parameters: Float64[Tensor, "batch parameter"] = torch.empty(0, 0, dtype=torch.float64)

    @classmethod
    def given(cls, history: Trajectory, static: Field | None = None) -> Batch:
        """A batch for prediction: with an empty target, and without static fields unless they are given."""
        if static is None:
            static = history.new_zeros(history.shape[0], 0, *history.shape[N_LEADING:])
        return cls(history, static, history[:, :0])


class Predictor(Protocol):
    """A model for the evaluator: a Surrogate, or a coarse solver."""

    def predict(self, batch: Batch, n_steps: int) -> Trajectory:
        """The ``n_steps`` snapshots [B, n_steps, C, *S] that follow the history, in physical units.

        The target isn't used.
        """
        ...


def space_axes(x: Tensor, n_leading: int = N_LEADING) -> tuple[int, ...]:
    """The space axes of a trajectory (3 leading axes) or of a field (2)."""
    return tuple(range(n_leading, x.ndim))
