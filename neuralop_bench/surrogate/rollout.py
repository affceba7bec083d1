"""Free-running prediction: a model is fed its own output until the horizon is reached."""

from __future__ import annotations

from collections.abc import Callable

import torch

from neuralop_bench.batch import TIME, Field, Trajectory

# Maps a history [B, K, C, *S] and static fields to the next b snapshots, a bundle [B, b, C, *S].
Step = Callable[[Trajectory, Field], Trajectory]


def rollout(step: Step, history: Trajectory, static: Field, n_steps: int) -> Trajectory:
    """The ``n_steps`` snapshots that follow ``history``, [B, n_steps, C, *S]; the last bundle is cut to fit.

    A steady problem has an empty history (K = 0) and takes a single call.

    Raises:
        ValueError: an empty history would need several calls, which would all give the same.
    """
    bundles: list[Trajectory] = []
    n_done = 0
    while n_done < n_steps:
        prediction = step(history, static)
        n_new = prediction.shape[TIME]
        if history.shape[TIME] == 0 and n_new < n_steps:
            raise ValueError(
                f"With an empty history a model can only predict {n_new} steps, not {n_steps}. Raise surrogate.bundle."
            )
        bundles.append(prediction)
        n_done += n_new
        history = torch.cat([history, prediction], dim=TIME)[:, n_new:]
    return torch.cat(bundles, dim=TIME)[:, :n_steps]
