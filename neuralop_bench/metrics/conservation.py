"""Whether predictions conserve or balance what the equation does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec
from neuralop_bench.batch import Batch, Trajectory
from neuralop_bench.metrics.metric import FLOOR, MetricContext, mean, mean_over_samples, sample_pairs
from neuralop_bench.metrics.spectral import squared_magnitude

Array = NDArray[np.float64]


class Conserved:
    """Error in quantities that the equation conserves or balances, relative to the reference. The dataset's spec names
    them; for a vorticity on a periodic plane, kinetic energy and enstrophy are always among them.

        conserved_q = mean over n and t of |q(p) - q(u)| / s

    q is one number per snapshot. s is its scale for the sample: the largest |q(u)| over t, unless stated otherwise, and
    at least 1e-4 of the scale's mean over samples. So 1 means an error as large as the quantity itself. Where nothing
    else is said, the quantities are those of the first state field:

    - ``mean``, or ``mean_<field>`` for a field by its name: mean over the points, by the trapezoidal rule along axes
      whose nodes include both ends. It may vanish, so s is the largest root mean square of the field.
    - ``energy``: half the mean square, summed over all state fields.
    - ``enstrophy``: half the mean square.
    - ``kinetic_energy``: half the mean square of the velocity that has this vorticity, on a periodic plane.
    - ``flux_balance``: outflow through the boundary, which balances the source: the integral of -a du/dn, with the
      first static field a and one-sided differences of second order. On the file's grid the balance isn't exact for the
      reference either.
    - ``positivity``: depth of the deepest undershoot below 0; s is the largest |u|.
    - ``maximum_principle``: fraction of interior points that lie below all their neighbours along the axes; s is 1.
      With a positive source the minimum lies on the boundary, so the reference has no such point.
    - ``drag``: force along the first axis on obstacles in a channel, by the balance of momentum: what enters through
      the first faces between cells, less what leaves through the last ones, and less the friction at the walls at both
      ends of the second axis. The first state fields are the velocity, the last is the pressure, and the viscosity is
      ``diameter / reynolds``, two parameters.
    - ``incompressibility``: norm of the divergence over that of the gradient, of the velocity whose components are the
      first state fields, on a periodic grid; s is 1. The derivatives are those of the Fourier series. A random vector
      field in d dimensions has about 1 / sqrt(d).

    Range: 0 for an exact prediction, without upper bound. Empty for quantities that the dataset doesn't name, and for
    those whose scale vanishes in all samples.

    Columns:
        conserved_mean, conserved_mean_vorticity, conserved_energy, conserved_kinetic_energy, conserved_enstrophy: as
            above.
        conserved_flux_balance, conserved_positivity, conserved_maximum_principle, conserved_incompressibility,
            conserved_drag: as above.
    """

    name: ClassVar[str] = "conserved"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "conserved_prediction": ("sample", "time", "quantity"),
        "conserved_target": ("sample", "time", "quantity"),
        "conserved_scale": ("sample", "quantity"),
    }

    def __init__(self, context: MetricContext) -> None:
        self._grid = context.spec.grid
        self._fixed = context.spec.parameters
        self._varying = [entry.name for entry in context.spec.varying]
        self._names = quantities(context.spec)
        fields = [field.name for field in context.spec.state]
        # Each quantity, and the state fields whose values of it are added up.
        self._known = {name: (known, [0]) for name, known in _QUANTITIES.items()}
        self._known |= {f"mean_{name}": (_QUANTITIES["mean"], [channel]) for channel, name in enumerate(fields)}
        self._known["energy"] = (_QUANTITIES["energy"], list(range(len(fields))))
        if self._grid.is_periodic and len(fields) >= self._grid.n_dims:
            self._known["incompressibility"] = (_INCOMPRESSIBILITY, list(range(self._grid.n_dims)))
        if {"diameter", "reynolds"} <= self._fixed.keys():
            self._known["drag"] = (_DRAG, list(range(len(fields))))
        unknown = [name for name in self._names if name not in self._known]
        if unknown:
            raise ValueError(
                f"The metric conserved can't measure {unknown} of {context.spec.name}, only {sorted(self._known)}. "
                "Add them in neuralop_bench/metrics/conservation.py, or leave the metric out of evaluator.metrics."
            )

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        rows: dict[str, list[Array]] = {name: [] for name in self.variables}
        parameters = batch.parameters.tolist() or repeat([])
        for (p, u), static, own in zip(sample_pairs(prediction, batch), batch.static, parameters, strict=False):
            known = {**self._fixed, **dict(zip(self._varying, own, strict=False))}
            given = _Given(static.cpu().double().numpy(), known, self._grid)
            finite = np.isfinite(p).reshape(len(p), -1).all(axis=-1)
            p = np.where(finite.reshape(-1, 1, *(1,) * self._grid.n_dims), p, 0.0)
            known = [self._known[name] for name in self._names]
            values = {
                "prediction": [np.where(finite, self._total(*entry, p, given), np.inf) for entry in known],
                "target": [self._total(*entry, u, given) for entry in known],
            }
            scales = [
                q.scale(u[:, fields[0]], reference)
                for (q, fields), reference in zip(known, values["target"], strict=True)
            ]
            for name, columns in values.items():
                rows[f"conserved_{name}"].append(np.array(columns).reshape(len(known), len(u)).T)
            rows["conserved_scale"].append(np.array(scales, dtype=np.float64))
        return {name: np.stack(entries) for name, entries in rows.items()}

    def _total(self, quantity: _Quantity, fields: Sequence[int], values: Array, given: _Given) -> Array:
        """The sum over state fields of a quantity of snapshots [time, channel, *space], [time]."""
        if quantity.is_of_vector:
            return quantity.of(values[:, fields], given)
        return np.sum([quantity.of(values[:, channel], given) for channel in fields], axis=0)

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        prediction, target, scale = (measured[name].values for name in self.variables)
        scale = np.maximum(scale, FLOOR * mean_over_samples(scale))[:, None]
        unknown = np.full_like(prediction, np.nan)
        relative = np.divide(np.abs(prediction - target), scale, out=unknown, where=scale > 0)
        return {f"conserved_{name}": mean(relative[..., index]) for index, name in enumerate(self._names)}


def quantities(spec: DatasetSpec) -> tuple[str, ...]:
    """Names of the quantities that are measured for a dataset."""
    is_vorticity = spec.state[0].name == "vorticity" and spec.grid.is_periodic and spec.grid.n_dims == 2
    return (*spec.conserved, *(("kinetic_energy", "enstrophy") if is_vorticity else ()))


class _Given(NamedTuple):
    """What a sample has besides its state: static fields [C_s, *space], parameters and the grid."""

    static: Array
    parameters: Mapping[str, Any]
    grid: Grid


class _Quantity(NamedTuple):
    """``of`` maps snapshots [time, *space] and what is given to one number per snapshot, [time]; the snapshots of a
    vector are [time, field, *space]. ``scale`` maps the reference's snapshots and numbers to the number that errors are
    relative to."""

    of: Callable[[Array, _Given], Array]
    scale: Callable[[Array, Array], float]
    is_of_vector: bool = False


def _mean(values: Array, given: _Given) -> Array:
    for axis, nodes in enumerate(given.grid.nodes, start=1):
        if nodes == "closed":  # means over neighbours: the ends then count half
            along = np.moveaxis(values, axis, -1)
            values = np.moveaxis((along[..., 1:] + along[..., :-1]) / 2, -1, axis)
    return values.reshape(len(values), -1).mean(axis=-1)


def _half_mean_square(values: Array, given: _Given) -> Array:
    return 0.5 * _mean(values**2, given)


def _kinetic_energy(vorticity: Array, given: _Given) -> Array:
    grid = given.grid
    axes = tuple(range(1, vorticity.ndim))
    squares = squared_magnitude(np.asarray(scipy.fft.rfftn(vorticity, axes=axes, norm="forward")))
    n = grid.shape[-1]
    squares[..., 1 : (n + 1) // 2] *= 2  # the modes of -k aren't computed
    kappa = [np.fft.fftfreq(m, length / m) for m, length in zip(grid.shape, grid.lengths, strict=True)]
    kappa[-1] = kappa[-1][: n // 2 + 1]
    wavenumber_squared = np.sum([np.square(2 * np.pi * k) for k in np.meshgrid(*kappa, indexing="ij")], axis=0)
    wavenumber_squared[(0,) * grid.n_dims] = np.inf  # the mean drives no flow on the torus
    return 0.5 * np.sum(squares / wavenumber_squared, axis=axes)


def _outflow(values: Array, given: _Given) -> Array:
    """The outflow of -a grad u through all faces of a box whose nodes include both ends of every axis."""
    grid = given.grid
    static = given.static[0] if len(given.static) else np.ones(grid.shape)
    total = np.zeros(len(values))
    for axis in range(grid.n_dims):
        u, a = np.moveaxis(values, 1 + axis, 1), np.moveaxis(static, axis, 0)
        steps = [h for other, h in enumerate(grid.spacing) if other != axis]
        for side, near in ((0, (0, 1, 2)), (-1, (-1, -2, -3))):
            inward = (-3 * u[:, near[0]] + 4 * u[:, near[1]] - u[:, near[2]]) / (2 * grid.spacing[axis])
            flux = a[side] * inward
            for h in reversed(steps):
                flux = np.trapezoid(flux, dx=h, axis=-1)
            total += flux
    return total


def _undershoot(values: Array, _given: _Given) -> Array:
    return np.maximum(0.0, -values.reshape(len(values), -1).min(axis=-1))


def _interior_minima(values: Array, given: _Given) -> Array:
    inside = (slice(None), *(slice(1, -1),) * given.grid.n_dims)
    centre = values[inside]
    lowest = np.ones_like(centre, dtype=bool)
    for axis in range(1, values.ndim):
        for shift in (-1, 1):
            lowest &= centre < np.roll(values, shift, axis=axis)[inside]
    return lowest.mean(axis=tuple(range(1, values.ndim)))


def _relative_divergence(velocity: Array, given: _Given) -> Array:
    grid = given.grid
    axes = tuple(range(2, velocity.ndim))
    u_hat = np.asarray(scipy.fft.rfftn(velocity, axes=axes, norm="forward"))
    n = grid.shape[-1]
    u_hat[..., 1 : (n + 1) // 2] *= math.sqrt(2)  # the modes of -k aren't computed
    kappa = [np.fft.fftfreq(m, length / m) for m, length in zip(grid.shape, grid.lengths, strict=True)]
    for k, m in zip(kappa, grid.shape, strict=True):
        if m % 2 == 0:
            k[m // 2] = 0.0  # the highest mode has no derivative at the points
    kappa[-1] = kappa[-1][: n // 2 + 1]
    waves = np.meshgrid(*kappa, indexing="ij", sparse=True)
    along = [u_hat[:, axis] * k for axis, k in enumerate(waves)]
    divergence = squared_magnitude(np.sum(along, axis=0)).reshape(len(velocity), -1).sum(axis=-1)
    steepness = np.sum([np.square(k) for k in np.broadcast_arrays(*waves)], axis=0)
    gradient = (squared_magnitude(u_hat) * steepness).reshape(len(velocity), -1).sum(axis=-1)
    return np.sqrt(np.divide(divergence, gradient, out=np.zeros_like(gradient), where=gradient > 0))


def _drag(fields: Array, given: _Given) -> Array:
    viscosity = given.parameters["diameter"] / given.parameters["reynolds"]
    along, across = given.grid.spacing
    u, pressure = fields[:, 0], fields[:, -1]

    def flux(cell: int) -> Array:
        """Momentum through the faces behind a column of cells."""
        (u0, u1), (p0, p1) = ((field[:, cell], field[:, cell + 1]) for field in (u, pressure))
        density = (p0 + p1) / 2 + ((u0 + u1) / 2) ** 2 - viscosity * (u1 - u0) / along
        return across * density.sum(axis=-1)

    between = u[:, 1:-1]
    # One-sided differences of second order from the wall, where u is 0, and the next two centres.
    slopes = (9 * (between[..., 0] + between[..., -1]) - between[..., 1] - between[..., -2]) / (3 * across)
    return flux(0) - flux(-2) - viscosity * along * slopes.sum(axis=-1)


def _own(_field: Array, quantity: Array) -> float:
    return float(np.abs(quantity).max())


_QUANTITIES: dict[str, _Quantity] = {
    **dict.fromkeys(
        ("mean", "mean_vorticity"),
        _Quantity(_mean, lambda field, _: float(np.sqrt((field.reshape(len(field), -1) ** 2).mean(axis=-1)).max())),
    ),
    **dict.fromkeys(("energy", "enstrophy"), _Quantity(_half_mean_square, _own)),
    "kinetic_energy": _Quantity(_kinetic_energy, _own),
    "flux_balance": _Quantity(_outflow, _own),
    "positivity": _Quantity(_undershoot, lambda field, _: float(np.abs(field).max())),
    "maximum_principle": _Quantity(_interior_minima, lambda *_: 1.0),
}
_INCOMPRESSIBILITY = _Quantity(_relative_divergence, lambda *_: 1.0, is_of_vector=True)
_DRAG = _Quantity(_drag, _own, is_of_vector=True)
