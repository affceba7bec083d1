"""Laws of random permeabilities on the closed unit square, evaluated at the nodes of n x n grids.

The random numbers are drawn in an order that doesn't depend on the grid, so the same generator gives the same function
on any grid. Permeabilities are positive and finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.fft
from numpy.typing import NDArray

# Cosine modes per axis of every random field on any grid: as many as 421 nodes can distinguish.
N_MODES = 421
# Beyond this contrast, double precision doesn't determine the pressure.
MAX_CONTRAST = 1e8


@runtime_checkable
class PermeabilityLaw(Protocol):
    """A law of random permeabilities."""

    def parameters(self) -> Mapping[str, float | str]:
        """The law's name, as ``law``, and its scalar parameters."""
        ...

    def draw(self, rng: np.random.Generator, n_nodes: int) -> NDArray[np.float64]:
        """One permeability at the nodes (i, j) / (n_nodes - 1), [n_nodes, n_nodes]."""
        ...


def cosine_series(coefficients: NDArray[np.float64], n_nodes: int) -> NDArray[np.float64]:
    """Sum over k of coefficients[k1, k2] cos(pi k1 x) cos(pi k2 y) at the nodes, [n_nodes, n_nodes].

    It is exact on any grid. Modes that the grid can't distinguish add up: k and 2 (n_nodes - 1) - k agree at all nodes.
    """
    n_modes = len(coefficients)
    if n_nodes < n_modes:
        cosines = _cosines(n_modes, n_nodes)
        return cosines @ coefficients @ cosines.T
    # A type I cosine transform counts all modes twice except the first and the last.
    padded = np.zeros((n_nodes, n_nodes))
    padded[:n_modes, :n_modes] = coefficients
    padded[1:-1] /= 2
    padded[:, 1:-1] /= 2
    return np.asarray(scipy.fft.dctn(padded, type=1, overwrite_x=True))


@lru_cache(maxsize=8)
def _cosines(n_modes: int, n_nodes: int) -> NDArray[np.float64]:
    # Reduced as integers, so that two grids get the same cosine at a node that they share.
    angle = np.outer(np.arange(n_nodes), np.arange(n_modes)) % (2 * (n_nodes - 1))
    cosines = np.cos(np.pi * angle / (n_nodes - 1))
    cosines.flags.writeable = False
    return cosines


@dataclass(frozen=True)
class CosineGaussianField:
    """Gaussian random field of zero mean with covariance scale (-Laplacian + tau^2)^-exponent, the Laplacian with
    zero normal derivative on the boundary.

    phi(x, y) = sum over 0 <= k1, k2 <= 420, k != 0, of c_k sqrt(lambda_k) xi_k cos(pi k1 x) cos(pi k2 y) with standard
    normal xi_k, lambda_k = scale (pi^2 |k|^2 + tau^2)^-exponent, and c_k = sqrt 2 per nonzero index. The default is the
    law of Li et al. (2021), Fourier Neural Operator, section 5.2, in the scale of their released generator.

    Attributes:
        scale: factor of the covariance; it has no effect if only the sign of the field is used.
        tau: inverse correlation length.
        exponent: decay of the covariance spectrum.
    """

    scale: float = 9.0
    tau: float = 3.0
    exponent: float = 2.0

    def __post_init__(self) -> None:
        _require(0 < self.scale < math.inf, "field.scale", self.scale, "positive")
        _require(0 <= self.tau < math.inf, "field.tau", self.tau, "at least 0")
        # At 1 and below, the variance diverges with the number of modes.
        _require(1 < self.exponent < math.inf, "field.exponent", self.exponent, "above 1")

    def eigenvalues(self, k1: NDArray[np.integer], k2: NDArray[np.integer]) -> NDArray[np.float64]:
        """lambda_k; any broadcastable shapes."""
        return self.scale * (np.pi**2 * (k1**2.0 + k2**2.0) + self.tau**2) ** -self.exponent

    def coefficients(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Coefficients of one field's cosine series, [421, 421]."""
        values = rng.standard_normal((N_MODES, N_MODES))
        values *= _amplitudes(self)
        return values

    def draw(self, rng: np.random.Generator, n_nodes: int) -> NDArray[np.float64]:
        """One field at the nodes, [n_nodes, n_nodes]."""
        return cosine_series(self.coefficients(rng), n_nodes)


@lru_cache(maxsize=4)
def _amplitudes(law: CosineGaussianField) -> NDArray[np.float64]:
    """c_k sqrt(lambda_k)."""
    k = np.arange(N_MODES)
    with np.errstate(divide="ignore"):  # in the mode (0, 0) if tau = 0; it is set to 0 below
        amplitudes = np.sqrt(law.eigenvalues(k[:, None], k[None, :]))
    amplitudes[1:] *= math.sqrt(2)
    amplitudes[:, 1:] *= math.sqrt(2)
    amplitudes[0, 0] = 0
    amplitudes.flags.writeable = False
    return amplitudes


@dataclass(frozen=True)
class TwoPhase:
    """``low * contrast`` where a Gaussian field is at least zero, else ``low``.

    The default is the permeability 12 / 3 of Li et al. (2021), Fourier Neural Operator, section 5.2. (Their released
    generator says 12 / 4, their files hold 12 / 3.)

    Attributes:
        low: the lower permeability.
        contrast: ratio of the two permeabilities, 1 to 1e8.
        field: law of the field whose sign selects the permeability.
    """

    low: float = 3.0
    contrast: float = 4.0
    field: CosineGaussianField = field(default_factory=CosineGaussianField)

    def __post_init__(self) -> None:
        _require(0 < self.low < math.inf, "low", self.low, "positive")
        _require(1 <= self.contrast <= MAX_CONTRAST, "contrast", self.contrast, f"from 1 to {MAX_CONTRAST:g}")

    def parameters(self) -> Mapping[str, float | str]:
        return {
            "law": "two_phase",
            "low": self.low,
            "contrast": self.contrast,
            "tau": self.field.tau,
            "exponent": self.field.exponent,
        }

    def draw(self, rng: np.random.Generator, n_nodes: int) -> NDArray[np.float64]:
        return np.where(self.field.draw(rng, n_nodes) >= 0, self.low * self.contrast, self.low)


@dataclass(frozen=True)
class LogNormal:
    """exp(phi) of a Gaussian field phi; with the default law max a / min a is about 4.

    Attributes:
        field: law of the logarithm.
    """

    field: CosineGaussianField = field(default_factory=CosineGaussianField)

    def parameters(self) -> Mapping[str, float | str]:
        return {"law": "log_normal", "scale": self.field.scale, "tau": self.field.tau, "exponent": self.field.exponent}

    def draw(self, rng: np.random.Generator, n_nodes: int) -> NDArray[np.float64]:
        return _require_finite(np.exp(self.field.draw(rng, n_nodes)), "field.scale", self.field.scale)


@dataclass(frozen=True)
class SmoothHighContrast:
    """exp(phi) of an analytic Gaussian field phi, scaled such that max a / min a = ``contrast`` in every sample.

    phi is a cosine series with the spectrum exp(-(pi |k| length)^2 / 2) of the covariance exp(-r^2 / (2 length^2)). It
    is shifted and scaled such that a runs from contrast^-1/2 to contrast^1/2 over the nodes of a fixed 421 x 421 grid.
    Other grids evaluate the same function, which may slightly exceed these values between the nodes of the fixed grid.
    Follows Trifonov et al. (2024), ConDiff: a challenging dataset for neural solvers of partial differential equations,
    arXiv 2406.04709, which measures difficulty by exp(max phi - min phi).

    Attributes:
        contrast: max a / min a, 1 to 1e8.
        length: correlation length, at least 0.02.
    """

    contrast: float = 1e3
    length: float = 0.1

    def __post_init__(self) -> None:
        _require(1 <= self.contrast <= MAX_CONTRAST, "contrast", self.contrast, f"from 1 to {MAX_CONTRAST:g}")
        _require(0.02 <= self.length <= 1, "length", self.length, "from 0.02 to 1")

    def parameters(self) -> Mapping[str, float | str]:
        return {"law": "smooth_high_contrast", "contrast": self.contrast, "length": self.length}

    def draw(self, rng: np.random.Generator, n_nodes: int) -> NDArray[np.float64]:
        # Amplitudes fall as exp(-(pi k length)^2 / 4): that of the last mode kept is 1e-14 times the first.
        n_modes = min(N_MODES, math.ceil(2 * math.sqrt(14 * math.log(10)) / (math.pi * self.length)) + 1)
        k = np.arange(n_modes)
        amplitude = np.exp(-((np.pi * self.length * k) ** 2) / 4)
        amplitude[1:] *= math.sqrt(2)
        values = rng.standard_normal((n_modes, n_modes)) * amplitude[:, None] * amplitude[None, :]
        values[0, 0] = 0
        fixed = cosine_series(values, N_MODES)
        low, high = float(fixed.min()), float(fixed.max())
        phi = fixed if n_nodes == N_MODES else cosine_series(values, n_nodes)
        return np.exp((phi - (low + high) / 2) * (math.log(self.contrast) / (high - low)))


@dataclass(frozen=True)
class MultiscaleTrigonometric:
    """Products of waves of many lengths, from about 1 down to 2^-n_scales.

    a(x, y) = product over k = 1 ... n_scales of (1 + cos(a_k pi (x + y)) / 2) (1 + sin(a_k pi (y - 3 x)) / 2) with a_k
    uniform on [2^(k-1), 1.5 * 2^(k-1)]. The law of He et al. (2024), MgNO: efficient parameterization of linear
    operators via multigrid, section 5.1, there with 6 scales on 1023 points.

    Attributes:
        n_scales: 1 to 8.
    """

    n_scales: int = 6

    def __post_init__(self) -> None:
        _require(1 <= self.n_scales <= 8, "n_scales", self.n_scales, "from 1 to 8")

    def parameters(self) -> Mapping[str, float | str]:
        return {"law": "multiscale_trigonometric", "n_scales": self.n_scales}

    def draw(self, rng: np.random.Generator, n_nodes: int) -> NDArray[np.float64]:
        x = np.arange(n_nodes)[:, None] / (n_nodes - 1)
        y = x.T
        a = np.ones((n_nodes, n_nodes))
        for scale in 2.0 ** np.arange(self.n_scales):
            wavenumber = np.pi * rng.uniform(scale, 1.5 * scale)
            a *= 1 + np.cos(wavenumber * (x + y)) / 2
            a *= 1 + np.sin(wavenumber * (y - 3 * x)) / 2
        return a


def _require(holds: bool, name: str, value: float, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.permeability.{name} must be {condition}, got {value}.")


def _require_finite(a: NDArray[np.float64], name: str, value: float) -> NDArray[np.float64]:
    largest = float(a.max())
    if not (np.isfinite(largest) and a.min() > 0 and largest / float(a.min()) <= MAX_CONTRAST):
        raise ValueError(
            f"dataset.problem.permeability.{name}={value} gave a permeability from {a.min():.3g} to {largest:.3g}, a "
            f"contrast above {MAX_CONTRAST:g}. Lower it."
        )
    return a
