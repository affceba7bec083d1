"""Errors by scale: energy spectra over shells of the wavenumber, and relative errors in bands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray

from data_gen.grids import Grid
from neuralop_bench.batch import Batch, Trajectory
from neuralop_bench.metrics.bands import BAND_EDGES, BANDS, BELOW_ROUNDING
from neuralop_bench.metrics.metric import (
    FLOOR,
    MetricContext,
    floor_of,
    mean,
    mean_over_samples,
    own_or_smallest,
    sample_pairs,
)

# Edges of the bands that move with the training grid, as fractions of its Nyquist wavenumber.
BAND_FRACTIONS = (1 / 8, 1 / 2)
# Below this, most structures of a shell's size are in the wrong place.
COHERENT = 0.5
_RESAMPLINGS = 1000


class Spectra:
    """Energy spectra, and relative errors in three bands of the wavenumber. Small scales hardly matter in rel_l2.

        spec_band = sqrt(sum E_e / sum E_u),    sums over the modes of the band, over n, t and c

    The spatial mean is removed. Periodic axes are Fourier transformed, in all quadrants, with wavenumbers kappa = k/L.
    The transform of closed axes, with nodes at both ends, is the cosine transform DCT-I (a DCT-II would leak there),
    that of cell centres the DCT-II, both with kappa = k/(2L). With amplitudes P and U, the energies of a mode are
    E_p = |P|^2, E_u = |U|^2 and E_e = |P - U|^2.

    The bands are fixed in wavenumbers |kappa| max L, cycles per longest side of the domain: low is 1 to 3, mid is 4 to
    11, high is 12 and above (edges 3.5 and 11.5). A band with less than 1e-10 of the reference's energy holds rounding
    errors of float32, not signal. It isn't measured, and its columns are empty.

    The spectra are stored in finer shells: shell b holds the modes with b = floor(|kappa| / delta + 1/2), where delta
    is 1 / max L if all axes are periodic and 1 / (2 max L) otherwise. Shells run from 1 to the smallest Nyquist
    wavenumber B. One more, the corner, holds all modes beyond. Shells and corner add up to the variance over the points
    (with trapezoid weights on closed axes). The real part of P conj(U) is stored beside the energies.

    Range: 0 for an exact prediction, 1 for predicting a band as zero, without upper bound.

    Columns:
        spec_low, spec_mid, spec_high: the ratio with sums over all samples.
        spec_low_mean, spec_mid_mean, spec_high_mean: the mean over samples and channels of the ratio, with sums over
            modes and steps only, and the reference's energy bounded below by 1e-10 of its total. If this total is below
            1e-4 of the channel's mean over samples, the energy of a band is bounded by 1e-4 of the channel's mean, too.
        n_floored_spec_low, n_floored_spec_mid, n_floored_spec_high: number of (sample, channel) at that bound.
    """

    name: ClassVar[str] = "spectra"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "energy_target": ("sample", "time", "channel", "shell"),
        "energy_prediction": ("sample", "time", "channel", "shell"),
        "energy_error": ("sample", "time", "channel", "shell"),
        "cross_spectrum": ("sample", "time", "channel", "shell"),
        "band_energy_target": ("sample", "time", "channel", "band"),
        "band_energy_error": ("sample", "time", "channel", "band"),
    }

    def __init__(self, context: MetricContext) -> None:
        self._grid = context.spec.grid
        self._shells = Shells(self._grid)

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name in self.variables}
        for p, u in sample_pairs(prediction, batch):
            finite = np.asarray(np.isfinite(p).reshape(*p.shape[:2], -1).all(axis=-1))
            p_hat, u_hat = (amplitudes(np.where(np.isfinite(x), x, 0.0), self._grid) for x in (p, u))
            energy_u = squared_magnitude(u_hat)
            # A non-finite snapshot has no spectrum: its error is infinite in every shell.
            energy_p, energy_e = (
                np.where(_expand(finite, e), e, np.inf)
                for e in (squared_magnitude(p_hat), squared_magnitude(p_hat - u_hat))
            )
            cross = np.where(_expand(finite, u_hat), p_hat.real * u_hat.real + p_hat.imag * u_hat.imag, 0.0)
            rows["energy_target"].append(self._shells.sum(energy_u))
            rows["energy_prediction"].append(self._shells.sum(energy_p))
            rows["energy_error"].append(self._shells.sum(energy_e))
            rows["cross_spectrum"].append(self._shells.sum(cross))
            rows["band_energy_target"].append(self._shells.sum_bands(energy_u))
            rows["band_energy_error"].append(self._shells.sum_bands(energy_e))
        return {name: np.stack(values) for name, values in rows.items()}

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        error, target = measured["band_energy_error"], measured["band_energy_target"]
        total = mean(target.values)
        totals = target.sum(("time", "band")).transpose("sample", "channel").values
        vanishes = totals < floor_of(totals)
        columns: dict[str, float] = {}
        for index, band in enumerate(BANDS):
            band_error, band_target = error.isel(band=index), target.isel(band=index)
            pooled = mean(band_target.values)
            measurable = pooled > BELOW_ROUNDING * total * len(BANDS)
            columns[f"spec_{band}"] = math.sqrt(mean(band_error.values) / pooled) if measurable else math.nan
            energies = band_target.sum("time").transpose("sample", "channel").values
            floor = np.where(vanishes, floor_of(energies), BELOW_ROUNDING * totals)
            band_errors = band_error.sum("time").transpose("sample", "channel").values
            ratio = np.sqrt(band_errors / np.maximum(energies, floor))
            columns[f"spec_{band}_mean"] = mean(ratio) if measurable else math.nan
            columns[f"n_floored_spec_{band}"] = float((energies < floor).sum())
        return columns


class NormalizedBands:
    """Relative errors in three bands that move with the training grid: at which of its own scales a model fails.

        specn_band = sqrt(sum E_e / sum E_u),    sums over the shells of the band, over n, t and c

    Spectra, shells and energies are those of ``spectra``. The bands are fractions of the training grid's smallest
    Nyquist wavenumber: low is up to 1/8 of it, mid up to 1/2, high above, including the corner. A shell belongs to the
    band that contains its centre. A band with less than 1e-10 of the reference's energy isn't measured.

    Range: 0 for an exact prediction, 1 for predicting a band as zero, without upper bound.

    Columns:
        specn_low, specn_mid, specn_high: the ratio with sums over all samples.
    """

    name: ClassVar[str] = "specn"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = Spectra.variables

    def __init__(self, context: MetricContext) -> None:
        self._spectra = Spectra(context)
        kappa = Shells(context.spec.grid).wavenumbers
        # Centres are whole multiples of the shells' width. The tolerance keeps one that lies on an edge below it.
        edges = np.array(BAND_FRACTIONS) * nyquist(context.train_grid) * (1 + 1e-9)
        self._band = np.append(np.digitize(kappa, edges, right=True), len(BANDS) - 1)  # the corner last

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        return self._spectra.measure(prediction, batch)

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        error, target = measured["energy_error"].values, measured["energy_target"].values
        total = math.fsum(target.ravel())
        columns: dict[str, float] = {}
        for index, band in enumerate(BANDS):
            inside = self._band == index
            band_error, band_target = (math.fsum(x[..., inside].ravel()) for x in (error, target))
            measurable = band_target > BELOW_ROUNDING * total
            columns[f"specn_{band}"] = math.sqrt(band_error / band_target) if measurable else math.nan
        return columns


class LogSpectralDistance:
    """Error of the energy spectrum in decibels, regardless of phases: does a prediction have the right amount of small
    structure, even if it is in the wrong place?

        lsd_db = sqrt(mean_b (10 log10((E_p(b) + f) / (E_u(b) + f)))^2),    f = 1e-10 max_b E_u(b)

    E_p(b) and E_u(b) are the energies of shell b (``spectra``), summed over t and averaged over n. The mean over b
    takes shells 1 to B, without the corner. The distance is averaged over c. For a channel that vanishes in the
    reference, f is 1e-4 of the smallest max_b E_u of the others.

    Range: 0 for the right spectrum, 3 if every shell holds twice or half its energy, without upper bound. Noise with
    the right spectrum scores 0, too: see ``coherence``.

    Columns:
        lsd_db: the distance.
        lsd_db_lo, lsd_db_hi: 95 % percentile interval from 1000 resamplings of the samples; infinite if a sample
            diverged.
    """

    name: ClassVar[str] = "lsd"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = Spectra.variables

    def __init__(self, context: MetricContext) -> None:
        self._spectra = Spectra(context)

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        return self._spectra.measure(prediction, batch)

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        p, u = (measured[f"energy_{name}"].sum("time").values[..., :-1] for name in ("prediction", "target"))
        floor = _rounding(mean_over_samples(u))
        columns = {"lsd_db": _distance_db(mean_over_samples(p), mean_over_samples(u), floor)}
        if not np.isfinite(p).all():
            return {**columns, "lsd_db_lo": math.inf, "lsd_db_hi": math.inf}
        # Sorted by value, so that the draws don't depend on the order of the samples.
        order = np.lexsort(np.concatenate([u, p], axis=-1).reshape(len(u), -1).T)
        chosen = np.random.default_rng(0).integers(len(u), size=(_RESAMPLINGS, len(u)))
        weights = np.stack([np.bincount(row, minlength=len(u)) for row in chosen]) / len(u)
        resampled = [np.tensordot(weights, x[order], axes=1) for x in (p, u)]
        # A draw of samples that all vanish has no energy to measure by.
        drawn = [
            _distance_db(p_mean, u_mean, np.maximum(BELOW_ROUNDING * u_mean.max(axis=-1), FLOOR * floor))
            for p_mean, u_mean in zip(*resampled, strict=True)
        ]
        low, high = np.percentile(drawn, [2.5, 97.5])
        return {**columns, "lsd_db_lo": float(low), "lsd_db_hi": float(high)}


class Coherence:
    """Down to which scale a prediction has structures in the right place, at the last predicted step.

        coherence(b) = Re sum P conj(U) / sqrt(sum |P|^2 sum |U|^2),    sums over the modes of shell b and over n
        k_eff        = the first wavenumber with coherence(b) < 0.5

    A prediction that invents texture has the right energy but no coherence. Shells with less than 1e-10 of the
    reference's energy hold rounding errors of float32 and are skipped.

    Range: 1 where phases agree, 0 where they are unrelated, -1 where they are opposite.

    Columns:
        k_eff: in cycles per longest side of the domain, mean over the channels that don't vanish. The largest measured
            wavenumber where the coherence never falls below 0.5.
        k_eff_is_bound: number of channels where it never does, so that k_eff is a lower bound.
    """

    name: ClassVar[str] = "coherence"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = Spectra.variables

    def __init__(self, context: MetricContext) -> None:
        self._spectra = Spectra(context)
        self._cycles = Shells(context.spec.grid).wavenumbers * max(context.spec.grid.lengths)

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        return self._spectra.measure(prediction, batch)

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        found, n_bounds = [], 0
        target = mean_over_samples(measured["energy_target"].isel(time=-1).values)
        for values, energy in zip(coherence(measured).values, target, strict=True):
            signal = np.flatnonzero(energy[:-1] > BELOW_ROUNDING * energy.sum())
            lost = [shell for shell in signal if values[shell] < COHERENT]
            if len(signal):
                n_bounds += not lost
                found.append(self._cycles[lost[0] if lost else signal[-1]])
        return {"k_eff": mean(np.array(found)) if found else math.nan, "k_eff_is_bound": float(n_bounds)}


def coherence(measured: xr.Dataset) -> xr.DataArray:
    """Re sum P conj(U) / sqrt(sum |P|^2 sum |U|^2) at the last step, pooled over samples: [channel, shell], shells
    1 ... B without the corner. 0 where a sum vanishes or isn't finite."""
    last = measured.isel(time=-1, shell=slice(None, -1))
    cross, p, u = (
        mean_over_samples(last[name].values) for name in ("cross_spectrum", "energy_prediction", "energy_target")
    )
    size = np.sqrt(p) * np.sqrt(u)
    known = np.isfinite(size) & (size > 0)
    return xr.DataArray(np.divide(cross, size, out=np.zeros_like(cross), where=known), dims=("channel", "shell"))


def _rounding(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Energies that are added to those of spectra [channel, shell], [channel]."""
    largest = u.max(axis=-1)
    return np.where(largest > 0, BELOW_ROUNDING, FLOOR) * own_or_smallest(largest)


def _distance_db(p: NDArray[np.float64], u: NDArray[np.float64], floor: NDArray[np.float64]) -> float:
    """Log-spectral distance of spectra [channel, shell], mean over channels."""
    decibels = 10 * np.log10((p + floor[:, None]) / (u + floor[:, None]))
    return mean(np.sqrt(np.mean(decibels**2, axis=-1)))


def nyquist(grid: Grid) -> float:
    """The smallest of the axes' Nyquist wavenumbers, in cycles per unit length."""
    return min(0.5 / h for h in grid.spacing)


class Shells:
    """The partition of a grid's modes into shells and bands."""

    def __init__(self, grid: Grid) -> None:
        kappa = np.sqrt(sum(np.square(k) for k in np.meshgrid(*_wavenumbers(grid), indexing="ij")))
        longest = max(grid.lengths)
        self.width = 1 / longest if grid.is_periodic else 1 / (2 * longest)
        self.n_shells = int(nyquist(grid) / self.width + 1e-9)
        shell = np.floor(kappa / self.width + 0.5).astype(int)
        self._shell = _Partition(np.minimum(shell, self.n_shells + 1) - 1, self.n_shells + 1)
        band = np.digitize(kappa * longest, BAND_EDGES)
        self._band = _Partition(np.where(shell == 0, -1, band), len(BANDS))

    @property
    def wavenumbers(self) -> NDArray[np.float64]:
        """Centre |kappa| of shells 1 ... B, in cycles per unit length."""
        return np.arange(1, self.n_shells + 1, dtype=np.float64) * self.width

    def sum(self, energy: NDArray[np.float64]) -> NDArray[np.float64]:
        """[time, channel, *modes] to [time, channel, shell], the corner last."""
        return self._shell.sum(energy)

    def sum_bands(self, energy: NDArray[np.float64]) -> NDArray[np.float64]:
        """[time, channel, *modes] to [time, channel, band]."""
        return self._band.sum(energy)


class _Partition:
    """Sums over groups of modes. Modes labelled -1 are left out."""

    def __init__(self, labels: NDArray[np.int_], n_groups: int) -> None:
        flat = labels.ravel()
        order = np.argsort(flat, kind="stable")
        self._order = order[flat[order] >= 0]
        kept = flat[self._order]
        self._groups, self._starts = np.unique(kept, return_index=True)
        self._n_groups = n_groups

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = values.reshape(*values.shape[:2], -1)[..., self._order]
        sums = np.zeros((*values.shape[:2], self._n_groups))
        sums[..., self._groups] = np.add.reduceat(flat, self._starts, axis=-1)
        return sums


def amplitudes(values: NDArray[np.float64], grid: Grid) -> NDArray[np.complexfloating]:
    """Mode amplitudes c of [time, channel, *space], scaled so that sum |c|^2 is the mean square over the points
    (with trapezoid weights on closed axes). Those of k and -k are conjugate: one of them is kept, times sqrt(2)."""
    for axis, nodes in enumerate(grid.nodes, start=2):
        n = values.shape[axis]
        if nodes == "centres":
            values = np.asarray(scipy.fft.dct(values, 2, axis=axis, norm="ortho")) / math.sqrt(n)
        elif nodes == "closed":
            # x_j = sum_k a_k cos(pi j k / m) with a = y/m, halved at both ends: mean square
            # a_0^2 + a_m^2 + sum a_k^2 / 2.
            scale = np.full(n, math.sqrt(0.5) / (n - 1))
            scale[[0, -1]] = 0.5 / (n - 1)
            shape = [1] * values.ndim
            shape[axis] = n
            values = np.asarray(scipy.fft.dct(values, 1, axis=axis)) * scale.reshape(shape)
    periodic = [axis for axis, nodes in enumerate(grid.nodes, start=2) if nodes == "periodic"]
    if not periodic:
        return values.astype(complex)
    half = np.asarray(scipy.fft.rfftn(values, axes=periodic, norm="forward"))
    n = values.shape[periodic[-1]]
    np.moveaxis(half, periodic[-1], 0)[1 : (n + 1) // 2] *= math.sqrt(2)
    return half


def squared_magnitude(values: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """|c|^2, without the square root of ``abs``."""
    return np.square(values.real) + np.square(values.imag)


def _wavenumbers(grid: Grid) -> list[NDArray[np.float64]]:
    """Wavenumbers of each axis of ``amplitudes``, in cycles per unit length."""
    last = max((axis for axis, nodes in enumerate(grid.nodes) if nodes == "periodic"), default=None)
    found = []
    for axis, (n, length, nodes) in enumerate(zip(grid.shape, grid.lengths, grid.nodes, strict=True)):
        if nodes == "periodic":
            k = (np.fft.rfftfreq if axis == last else np.fft.fftfreq)(n, length / n)
        else:
            k = np.arange(n) / (2 * length)
        found.append(np.asarray(k, np.float64))
    return found


def _expand(flags: NDArray[np.bool_], like: NDArray[np.generic]) -> NDArray[np.bool_]:
    return flags.reshape(*flags.shape, *(1,) * (like.ndim - flags.ndim))
