"""A point of a solver's curve of error against time, as records keep it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """One point of the solver's curve of error against time.

    resolution: of the solver's grid, as 48x48.
    relaxation: factor by which its steps are longer, or its iterations looser, than the dataset's own.
    rel_l2: relative L2 error, mean over samples.
    latency_seconds: time of one trajectory alone.
    seconds: time per trajectory at the best batch size.
    inputs: how static fields were brought to the solver's grid: picked at its nodes, or a mean over its cells or faces;
        empty if there are none, and in older records.
    batch_size: the best; 0 in older records.
    precision: of its arithmetic, float64 or float32.
    """

    resolution: str
    relaxation: float
    rel_l2: float
    latency_seconds: float
    seconds: float
    inputs: str = ""
    batch_size: int = 0
    precision: str = "float64"

    @property
    def name(self) -> str:
        """Its grid, its inputs, and single precision, for tables."""
        return ", ".join(filter(None, (self.resolution, self.inputs, self.precision.replace("float64", ""))))
