"""What a record keeps for pictures: errors over time, spectra, and one predicted field, small enough for a JSON file.

All other statistics of a run's errors are in errors.nc beside its record. A board is made from records alone, on
machines that don't have that file.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralop_bench.records.foreign import MOST_NUMBERS

# Points kept per axis, by the number of axes: as many as a picture shows.
MOST_POINTS = {1: 512, 2: 96}
_CURVES = ("times", "step_errors", "cycles", "energy_target", "energy_prediction", "energy_error")
# Curves whose largest value lies between these keep enough in single precision.
_SINGLE = (1e-20, 1e38)
_LEVELS = {1: np.dtype("<u2"), 2: np.dtype("u1")}


class ProfileError(ValueError):
    """What a record keeps for pictures can't be read."""


@dataclass(frozen=True)
class Fields:
    """Reference and error of one sample at the last predicted step: the first channel, and in three dimensions the
    plane in the middle of the last axis.

    Attributes:
        name, unit: of the channel.
        time: of the snapshot; None for a steady problem.
        lengths: of the domain along the axes of the arrays.
        reference, error: [*S], at most ``MOST_POINTS`` points per axis, rounded to 256 levels (65536 of one dimension)
            between their extremes. ``error`` is prediction - reference; None if the prediction isn't finite.
    """

    name: str
    unit: str
    time: float | None
    lengths: tuple[float, ...]
    reference: NDArray[np.float64]
    error: NDArray[np.float64] | None

    @property
    def prediction(self) -> NDArray[np.float64] | None:
        return None if self.error is None else self.reference + self.error


@dataclass(frozen=True)
class Profile:
    """Curves and fields of a run on test.

    Attributes:
        times: of the predicted steps, [T].
        step_errors: relative L2 of each step, mean over channels, [sample, T]; infinite where a prediction diverged.
        cycles: wavenumbers of the shells, in cycles per longest side of the domain, [shell].
        energy_target, energy_prediction, energy_error: spectra of the last step, mean over samples and channels,
            [shell]. The last two are infinite if a prediction diverged.
        fields: of sample 0.
    """

    times: NDArray[np.float64]
    step_errors: NDArray[np.float64]
    cycles: NDArray[np.float64]
    energy_target: NDArray[np.float64]
    energy_prediction: NDArray[np.float64]
    energy_error: NDArray[np.float64]
    fields: Fields

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record. Numbers keep single precision, or double if they are too small or large for it."""
        fields = self.fields
        return {
            **{name: _packed(getattr(self, name), np.dtype("<f4")) for name in _CURVES},
            "fields": {
                "name": fields.name,
                "unit": fields.unit,
                "time": fields.time,
                "lengths": list(fields.lengths),
                "reference": _quantised(fields.reference),
                "error": None if fields.error is None else _quantised(fields.error),
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Profile:
        """Inverse of ``to_json``.

        Raises:
            ProfileError: ``to_json`` doesn't make such values.
        """
        try:
            fields = dict(values["fields"])
            fields["lengths"] = tuple(map(float, fields["lengths"]))
            fields["reference"] = _levels(fields["reference"])
            fields["error"] = None if fields["error"] is None else _levels(fields["error"])
            curves = {name: _unpacked(values[name]) for name in _CURVES}
            found = cls(**curves, fields=Fields(**fields))
            _require_drawable(found)
            return found
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise ProfileError(f"its curves and fields can't be read ({type(error).__name__}: {error})") from error


def _require_drawable(profile: Profile) -> None:
    """Raise ValueError if the parts don't fit each other, or if a curve can't be drawn."""
    n_steps, shells, fields = len(profile.times), profile.cycles, profile.fields
    spectra = (profile.energy_target, profile.energy_prediction, profile.energy_error)
    field_shapes = {fields.reference.shape} | (set() if fields.error is None else {fields.error.shape})
    fits = (
        profile.times.ndim == shells.ndim == 1
        and profile.step_errors.ndim == 2
        and profile.step_errors.shape[1] == n_steps
        and all(energy.shape == shells.shape for energy in spectra)
        and field_shapes == {fields.reference.shape}
        and len(fields.lengths) == fields.reference.ndim
        and max(fields.reference.shape) <= MOST_POINTS[fields.reference.ndim]
    )
    if not fits:
        raise ValueError("the shapes of its arrays don't fit each other")
    if not (np.isfinite(profile.times).all() and np.isfinite(shells).all() and np.isfinite(spectra[0]).all()):
        raise ValueError("a time, a wavenumber or the energy of the reference isn't finite")
    if not all((values >= 0).all() for values in (profile.step_errors, shells, *spectra)):
        raise ValueError("an error, a wavenumber or an energy is negative or no number")


def _packed(values: NDArray[np.float64], dtype: np.dtype[Any]) -> dict[str, Any]:
    values = np.asarray(values)
    largest = np.abs(values, where=np.isfinite(values), out=np.zeros(values.shape)).max(initial=0.0)
    if dtype.kind == "f" and not (largest == 0 or _SINGLE[0] < largest < _SINGLE[1]):
        dtype = np.dtype("<f8")
    array = values.astype(dtype)
    data = base64.b64encode(zlib.compress(array.tobytes(), 9)).decode("ascii")
    return {"shape": list(array.shape), "dtype": dtype.str, "zlib_base64": data}


def _unpacked(entry: Mapping[str, Any]) -> NDArray[np.float64]:
    dtype, n = np.dtype(entry["dtype"]), math.prod(entry["shape"])
    if n > MOST_NUMBERS:
        raise ValueError(f"an array has {n} numbers, more than {MOST_NUMBERS}")
    # A few bytes can unpack to gigabytes: take what the shape says and nothing more.
    unpacking = zlib.decompressobj()
    raw = unpacking.decompress(base64.b64decode(entry["zlib_base64"], validate=True), n * dtype.itemsize + 1)
    return np.frombuffer(raw, dtype).reshape(entry["shape"]).astype(np.float64)


def _quantised(values: NDArray[np.float64]) -> dict[str, Any]:
    dtype = _LEVELS[values.ndim]
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return {"low": low, "high": high, **_packed(np.rint(scaled * np.iinfo(dtype).max), dtype)}


def _levels(entry: Mapping[str, Any]) -> NDArray[np.float64]:
    low, high, most = float(entry["low"]), float(entry["high"]), np.iinfo(np.dtype(entry["dtype"])).max
    return low + (high - low) * _unpacked(entry) / most
