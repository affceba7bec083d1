"""Where the curve of a training goes besides curve.csv."""

from __future__ import annotations

from typing import Protocol


class Tracker(Protocol):
    def log(self, row: dict[str, float]) -> None:
        """Take the numbers of one epoch: epoch, train_loss, valid_rel_l2, learning_rate, seconds."""
        ...


class NoTracker:
    """Files alone."""

    def log(self, row: dict[str, float]) -> None:
        del row
