"""What the values of imported samples show that would make errors on them mean little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_gen.spec import DatasetSpec, Samples
from data_gen.store import Fields

# Rounding to single precision, relative to the standard deviation of a field, beyond which the field is spoilt.
_SPOILT = 1e-3
_N_SHOWN = 4


@dataclass
class _Constant:
    """Samples of a field with snapshots that are constant in space: those that are zero, constant, or partly so."""

    zero: list[int] = field(default_factory=list)
    constant: list[int] = field(default_factory=list)
    partly: list[int] = field(default_factory=list)


class Remarks:
    """Collects, over the samples of a split, fields and samples that vanish, and fields that single precision spoils.

    Args:
        split: its name, for the messages.
        spec: of the data.
    """

    def __init__(self, split: str, spec: DatasetSpec) -> None:
        self._split, self._spec, self._n = split, spec, 0
        self._constant: dict[str, _Constant] = {}
        self._spoilt: dict[str, tuple[float, float, float]] = {}

    def look(self, found: Samples, fields: Fields) -> None:
        """Look at the next samples: as read, and as they are stored."""
        for name, values in fields.items():
            if values.ndim > 1:  # a field, not a number per sample
                self._find_constant(name, values)
        for names, values, axis in ((self._spec.static, found.static, 1), (self._spec.state, found.trajectory, 2)):
            if values.dtype == np.float64:
                for channel, entry in enumerate(names):
                    self._find_spoilt(entry.name, np.take(values, channel, axis=axis))
        self._n += len(found.trajectory)

    def _find_constant(self, name: str, values: NDArray[np.floating]) -> None:
        is_static = any(name == entry.name for entry in self._spec.static)
        flat = values.reshape(*values.shape[: values.ndim - self._spec.grid.n_dims], -1)
        flat = flat.reshape(len(flat), -1, flat.shape[-1])  # [sample, snapshot, point]
        constant = flat.max(axis=-1) == flat.min(axis=-1)
        zero = constant & (flat[..., 0] == 0)
        entry = self._constant.setdefault(name, _Constant())
        # A coefficient may well be uniform.
        for index in np.flatnonzero((zero if is_static else constant).any(axis=1)):
            kind = entry.zero if zero[index].all() else entry.constant if constant[index].all() else entry.partly
            kind.append(self._n + int(index))

    def _find_spoilt(self, name: str, values: NDArray[np.float64]) -> None:
        spread = float(values.std())
        lost = float(np.sqrt(np.square(values - values.astype(np.float32)).mean()))
        if lost > _SPOILT * spread > 0 and lost / spread > self._worst(name):
            self._spoilt[name] = (lost, spread, float(values.mean()))

    def _worst(self, name: str) -> float:
        lost, spread, _ = self._spoilt.get(name, (0.0, 1.0, 0.0))
        return lost / spread

    def warnings(self) -> list[str]:
        """One sentence or two for each finding."""
        found = []
        for name, (lost, spread, mean) in self._spoilt.items():
            found.append(
                f"{name} of {self._split} doesn't fit single precision, in which data are stored: its values vary by "
                f"{spread:.2g} around {mean:.10g}, and rounding changes them by {lost:.2g}. Subtract a constant, or "
                "use another unit, and import again."
            )
        for name, entry in self._constant.items():
            kinds: Mapping[str, Sequence[int]] = {
                "is zero": entry.zero,
                "is constant in space": entry.constant,
                "has snapshots that are constant in space": entry.partly,
            }
            found += [
                f"{name} of {self._split} {what} {self._where(samples)}." for what, samples in kinds.items() if samples
            ]
        return found

    def _where(self, samples: Sequence[int]) -> str:
        if len(samples) == self._n:
            return "in all samples"
        shown = ", ".join(map(str, samples[:_N_SHOWN])) + (", ..." if len(samples) > _N_SHOWN else "")
        return f"in {len(samples)} of {self._n} samples ({shown})"
