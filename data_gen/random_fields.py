"""Laws of random fields and parameters. Each sample has a generator, which gives the same field at any resolution."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Complex
from numpy.typing import NDArray
from torch import Tensor

from data_gen.spec import ParameterSpec
from data_gen.spectral import Space

# Variance per wavenumber (k1, k2) of a field on the torus.
Eigenvalues = Callable[[NDArray[np.integer], NDArray[np.integer]], NDArray[np.float64]]


@dataclass(frozen=True)
class Uniform:
    """Law of a parameter: uniform between ``low`` and ``high``."""

    low: float
    high: float

    scale: ClassVar[Literal["linear", "log"]] = "linear"

    def value(self, share: float) -> float:
        """The value below which a share of all samples lies."""
        return self.low + share * (self.high - self.low)

    def __str__(self) -> str:
        return f"uniform from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class LogUniform:
    """Law of a parameter whose logarithm is uniform: every decade between ``low`` and ``high`` is as likely."""

    low: float
    high: float

    scale: ClassVar[Literal["linear", "log"]] = "log"

    def value(self, share: float) -> float:
        """The value below which a share of all samples lies."""
        return float(self.low * (self.high / self.low) ** share)

    def __str__(self) -> str:
        return f"log-uniform from {self.low:g} to {self.high:g}"


# A scalar of an equation that may have a value of its own in every sample. While samples are solved, it is a number or
# a tensor that broadcasts over them.
if TYPE_CHECKING:
    Parameter = float
else:
    Parameter = float | Uniform | LogUniform


def parameter_laws(problem: Any) -> dict[str, Uniform | LogUniform]:
    """The laws among the arguments of a problem, a dataclass, by name."""
    values = {entry.name: getattr(problem, entry.name) for entry in fields(problem)}
    return {name: value for name, value in values.items() if isinstance(value, Uniform | LogUniform)}


def varying(problem: Any) -> tuple[ParameterSpec, ...]:
    """The parameters of a problem that have a law, for its spec."""
    return tuple(ParameterSpec(name, law.scale) for name, law in parameter_laws(problem).items())


def in_words(problem: Any, name: str) -> float | str:
    """A parameter of a problem for its spec: a number, or its law."""
    value = getattr(problem, name)
    return str(value) if isinstance(value, Uniform | LogUniform) else value


def draw_parameters(problem: Any, rngs: Sequence[np.random.Generator]) -> dict[str, NDArray[np.float64]]:
    """Values of the parameters that have a law, [sample] each.

    Each comes from a stream of its own, derived from the sample's stream and the parameter's name. So a law changes
    neither the sample's initial state nor its other parameters, and another range keeps the order of the samples.
    """
    shares = {name: [_parameter_stream(rng, name).uniform() for rng in rngs] for name in parameter_laws(problem)}
    return {
        name: np.array([law.value(share) for share in shares[name]]) for name, law in parameter_laws(problem).items()
    }


def _parameter_stream(rng: np.random.Generator, name: str) -> np.random.Generator:
    own = rng.bit_generator.seed_seq
    assert isinstance(own, np.random.SeedSequence)
    derived = np.random.SeedSequence(own.entropy, spawn_key=(*own.spawn_key, *name.encode()))
    return np.random.Generator(np.random.Philox(derived))


def require_parameter(problem: Any, name: str, *, positive: str | None = None, nonnegative: bool = False) -> None:
    """Check a parameter of a problem: a finite number, or a law with bounds in order.

    Args:
        problem: a dataclass.
        name: of the parameter.
        positive: if it must be positive, why; perhaps an empty string.
        nonnegative: it must be at least 0.

    Raises:
        ValueError: it isn't; the message names the key.
    """
    value, key = getattr(problem, name), f"dataset.problem.{name}"
    numbers = {key: value}
    if isinstance(value, Uniform | LogUniform):
        numbers = {f"{key}.low": value.low, f"{key}.high": value.high}
        if not value.low < value.high:
            raise ValueError(f"{key}.low must be below {key}.high, got {value.low:g} and {value.high:g}. Swap them.")
        if isinstance(value, LogUniform) and not value.low > 0:
            raise ValueError(
                f"{key}.low must be positive, because a log-uniform law divides by it, got {value.low:g}. Raise it, or "
                "use data_gen.random_fields.Uniform."
            )
    for where, number in numbers.items():
        if not np.isfinite(number):
            raise ValueError(f"{where} must be finite, got {number}.")
        if positive is not None and not number > 0:
            raise ValueError(f"{where} must be positive{positive}, got {number}.")
        if nonnegative and number < 0:
            raise ValueError(f"{where} must be at least 0, got {number}.")


def given_parameters(
    problem: Any, parameters: Mapping[str, NDArray[np.floating]] | None, n_samples: int
) -> dict[str, NDArray[np.float64]]:
    """Values of the parameters that have a law, [sample] each, as a solver is given them.

    Raises:
        ValueError: some are missing, or aren't one finite number per sample.
    """
    wanted, found = list(parameter_laws(problem)), dict(parameters or {})
    if set(found) != set(wanted):
        raise ValueError(
            f"{type(problem).__name__}.solve needs the parameters {', '.join(wanted) or 'none'}, which differ between "
            f"samples, got {', '.join(found) or 'none'}."
        )
    values = {name: np.asarray(found[name], dtype=np.float64) for name in wanted}
    for name, numbers in values.items():
        if numbers.shape != (n_samples,) or not np.isfinite(numbers).all():
            raise ValueError(f"The parameter {name} must be {n_samples} finite numbers, one per sample, got {numbers}.")
    return values


@dataclass(frozen=True)
class PeriodicGaussianField:
    """Gaussian random field of zero mean on the unit torus with covariance scale (-Laplacian + tau^2 I)^-exponent.

    Its Karhunen-Loeve series has eigenvalues lambda_k = scale (4 pi^2 |k|^2 + tau^2)^-exponent; the constant mode is
    left out. The default is the law of Li et al. (2021), Fourier Neural Operator, section 5.3: 7^3 (-Laplacian + 49
    I)^-2.5, of variance 0.034311.

    Attributes:
        scale: factor of the covariance; 4 times the scale doubles the amplitude.
        tau: inverse correlation length.
        exponent: decay of the covariance spectrum.
    """

    scale: float = 343.0
    tau: float = 7.0
    exponent: float = 2.5

    def __post_init__(self) -> None:
        _require_law(self)

    def eigenvalues(self, k1: NDArray[np.integer], k2: NDArray[np.integer]) -> NDArray[np.float64]:
        """Eigenvalues lambda_k of the covariance at integer wavenumbers (any broadcastable shapes)."""
        return _eigenvalues(self, k1**2.0 + k2**2.0)

    def variance(self, k_max: int) -> float:
        """Variance at a point of the field cut off at |k_i| <= k_max."""
        return _variance(lambda k1, k2: _eigenvalues(self, k1**2.0 + k2**2.0, _portable_power), k_max)

    def draw(self, rngs: Sequence[np.random.Generator], k_max: int) -> Complex[Tensor, "sample rows columns"]:
        """One field per generator, as compact Fourier coefficients (``data_gen.spectral``) with |k_i| <= k_max.

        The field is the sum over a half plane of sqrt(2 lambda_k) (xi cos 2 pi k.x + eta sin 2 pi k.x). The normals are
        drawn in the order of max(|k1|, |k2|), then k1, then k2. A larger k_max continues the same stream, so it adds
        fine scales to the same coarse field.
        """
        return _draw(self.eigenvalues, rngs, k_max)


@dataclass(frozen=True)
class VortexBandField:
    """Vorticity of a random flow whose vortices are about as large as one wavelength of wavenumber ``peak``.

    Gaussian, with the energy spectrum of McWilliams (1984), The emergence of isolated coherent vortices in turbulent
    flow, J. Fluid Mech. 146: E(k) ~ k / (tau^2 + (k / peak)^4) per shell of integer wavenumbers, so each wavenumber's
    velocity has a variance ~ 1 / (tau^2 + (k / peak)^4), and its vorticity kappa^2 times that, kappa = 2 pi k / length.
    McWilliams scales each flow to a given kinetic energy. Here the law is scaled, so that a sample doesn't depend on
    where its spectrum is cut off; the energies of samples differ by a few per cent.

    Attributes:
        peak: wavenumber above which the spectrum falls steeply.
        tau: damping of the large scales; a larger value leaves less of them.
        kinetic_energy: mean of (u^2 + v^2) / 2 over the torus, in expectation.
        length: side of the torus.
    """

    peak: float = 4.0
    tau: float = 1.0
    kinetic_energy: float = 0.5
    length: float = 2 * np.pi

    def __post_init__(self) -> None:
        for name in ("peak", "tau", "kinetic_energy", "length"):
            if not getattr(self, name) > 0:
                raise ValueError(f"dataset.problem.initial.{name} must be positive, got {getattr(self, name)}.")

    def eigenvalues(self, k1: NDArray[np.integer], k2: NDArray[np.integer]) -> NDArray[np.float64]:
        """Variance of the vorticity per wavenumber (any broadcastable shapes); 0 for the constant mode."""
        kappa_squared = (2 * np.pi / self.length) ** 2 * (k1**2.0 + k2**2.0)
        scale = 2 * self.kinetic_energy / _velocity_sum(self.peak, self.tau)
        return scale * kappa_squared * self._velocity_spectrum(k1, k2)

    def variance(self, k_max: int) -> float:
        """Variance at a point of the field cut off at |k_i| <= k_max."""
        return _variance(self.eigenvalues, k_max)

    def draw(self, rngs: Sequence[np.random.Generator], k_max: int) -> Complex[Tensor, "sample rows columns"]:
        """See ``PeriodicGaussianField.draw``."""
        return _draw(self.eigenvalues, rngs, k_max)

    def _velocity_spectrum(self, k1: NDArray[np.integer], k2: NDArray[np.integer]) -> NDArray[np.float64]:
        """Variance of the velocity per wavenumber, up to a factor."""
        return (k1**2.0 + k2**2.0 > 0) / (self.tau**2 + (k1**2.0 + k2**2.0) ** 2 / self.peak**4)


@cache
def _velocity_sum(peak: float, tau: float) -> float:
    """Sum of ``VortexBandField._velocity_spectrum`` over all wavenumbers, to a relative error below 1e-4."""
    k = np.arange(-1024, 1025)
    return float(VortexBandField(peak, tau)._velocity_spectrum(k[:, None], k[None, :]).sum())


@dataclass(frozen=True)
class PeriodicGaussianField1D:
    """The law of ``PeriodicGaussianField`` on the unit circle: covariance scale (-d^2/dx^2 + tau^2)^-exponent, no
    constant mode.

    The default is the law of Li et al. (2021), Fourier Neural Operator, section 5.1: 625 (-Laplacian + 25 I)^-2, of
    variance 0.35238 (standard deviation 0.5936).

    Attributes:
        scale: factor of the covariance; 4 times the scale doubles the amplitude.
        tau: inverse correlation length.
        exponent: decay of the covariance spectrum; at 2 the field has one derivative, but not quite two.

    >>> round(PeriodicGaussianField1D().variance(1000) ** 0.5, 4)
    0.5936
    """

    scale: float = 625.0
    tau: float = 5.0
    exponent: float = 2.0

    def __post_init__(self) -> None:
        _require_law(self)

    def eigenvalues(self, k: NDArray[np.integer]) -> NDArray[np.float64]:
        """Eigenvalues lambda_k of the covariance at integer wavenumbers."""
        return _eigenvalues(self, k**2.0)

    def variance(self, k_max: int) -> float:
        """Variance at a point of the field cut off at |k| <= k_max."""
        return float(2 * _eigenvalues(self, np.arange(1, k_max + 1) ** 2.0, _portable_power).sum())

    def draw(self, rngs: Sequence[np.random.Generator], k_max: int) -> Complex[Tensor, "sample modes"]:
        """One field per generator, as Fourier coefficients k = 0 ... k_max.

        The field is the sum over k = 1 ... k_max of sqrt(2 lambda_k) (xi cos 2 pi k x + eta sin 2 pi k x). The normals
        are drawn in the order of k, so a larger k_max continues the same stream.
        """
        amplitude = np.sqrt(2 * self.eigenvalues(np.arange(1, k_max + 1))) / 2
        u_hat = np.zeros((len(rngs), k_max + 1), dtype=np.complex128)
        for sample, rng in zip(u_hat, rngs, strict=True):
            xi, eta = rng.standard_normal((k_max, 2)).T
            sample[1:] = amplitude * (xi - 1j * eta)
        return torch.from_numpy(u_hat)


@dataclass(frozen=True)
class TruncatedFourierSeries:
    """Sum of all waves up to a wavenumber, with random amplitudes and phases, of zero mean.

    The waves are amplitude cos(2 pi k.x + phase), |k_i| <= n_waves, with an amplitude uniform in [-1, 1] and a phase
    uniform in [0, 2 pi]. Each field is then divided by its largest absolute value. Initial law of Koehler et al.
    (2024), APEBench, arXiv 2411.00180, appendix; there with 5 waves.

    Attributes:
        n_waves: largest wavenumber along each axis.
        largest: largest absolute value of a field (on a grid of 32 points per shortest wave in one dimension, 16 in
            two and 8 in three).
        offset: added to every field after that.
    """

    n_waves: int = 5
    largest: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (self.n_waves >= 1 and self.largest > 0):
            raise ValueError(
                f"A Fourier series needs n_waves >= 1 and largest > 0, got n_waves={self.n_waves}, "
                f"largest={self.largest}. Change dataset.problem.initial."
            )

    def draw(
        self, rngs: Sequence[np.random.Generator], n_fields: int, space: Space
    ) -> Complex[Tensor, "sample field *k"]:
        """Independent fields, one state per generator, as the coefficients that ``space`` holds."""
        k = _half_space(self.n_waves, space.n_dims)
        both = np.concatenate([k, -k])
        held = both[:, 0] >= 0
        own = Space({1: 32, 2: 16, 3: 8}[space.n_dims] * self.n_waves, space.n_dims, 1.0, degree=1)
        u_hat = np.zeros((len(rngs), n_fields, *own.shape), dtype=np.complex128)
        for sample, rng in zip(u_hat, rngs, strict=True):
            for field in sample:
                amplitude, phase = rng.uniform(size=(2, len(k)))
                waves = (amplitude - 0.5) * np.exp(2j * np.pi * phase)
                field[tuple(both[held].T)] = np.concatenate([waves, waves.conj()])[held]
        drawn = torch.from_numpy(u_hat)
        axes = tuple(range(-space.n_dims, 0))
        for sample in drawn:  # one by one: a transform's last digits may depend on the size of the batch
            sample *= self.largest / own.values(sample).abs().amax(dim=axes, keepdim=True)
        drawn[(..., *[0] * space.n_dims)] += self.offset
        return own.moved(drawn, space)


@dataclass(frozen=True)
class SolenoidalField:
    """A random velocity without divergence in three dimensions, Gaussian up to its scale, with random phases.

    Waves have the energy spectrum E(k) ~ k^4 exp(-2 (k / peak)^2) per shell of integer wavenumbers, for k_i up to
    ``n_waves``. Each sample is divided by its root mean square, so that all have the same energy. The spectrum is that
    of Passot & Pouquet (1987), Numerical simulation of compressible homogeneous flows in the turbulent regime, J. Fluid
    Mech. 181; amplitudes perpendicular to their wave vector follow Orszag & Patterson (1972), Numerical simulation of
    three-dimensional homogeneous isotropic turbulence, Phys. Rev. Lett. 28.

    Attributes:
        rms_velocity: root mean square of a component of the velocity, the mean over the three components.
        peak: wavenumber of the most energetic shell, in waves per side of the cube.
        n_waves: largest wavenumber along each axis; those above twice ``peak`` hold 1 % of the energy.
    """

    rms_velocity: float = 1.0
    peak: float = 2.0
    n_waves: int = 5

    def __post_init__(self) -> None:
        if not (self.rms_velocity > 0 and self.peak > 0 and self.n_waves >= 1):
            raise ValueError(
                "A solenoidal field needs rms_velocity > 0, peak > 0 and n_waves >= 1, got "
                f"rms_velocity={self.rms_velocity}, peak={self.peak}, n_waves={self.n_waves}. Change "
                "dataset.problem.initial."
            )

    def draw(
        self, rngs: Sequence[np.random.Generator], n_fields: int, space: Space
    ) -> Complex[Tensor, "sample field *k"]:
        """One velocity per generator, as the coefficients that ``space`` holds.

        Raises:
            ValueError: the space or the state doesn't have three dimensions.
        """
        if (space.n_dims, n_fields) != (3, 3):
            raise ValueError(
                f"SolenoidalField draws three components in three dimensions, not {n_fields} in {space.n_dims}. Use "
                "TruncatedFourierSeries."
            )
        k = _half_space(self.n_waves, 3)
        squared = np.square(k).sum(axis=1)
        # E(k) is spread over a shell of 4 pi k^2.
        amplitude = np.sqrt(squared * np.exp(-2 * squared / self.peak**2))[:, None]
        both = np.concatenate([k, -k])
        held = both[:, 0] >= 0
        own = Space(2 * self.n_waves + 2, 3, 1.0, degree=1)
        u_hat = np.zeros((len(rngs), 3, *own.shape), dtype=np.complex128)
        for sample, rng in zip(u_hat, rngs, strict=True):
            real, imaginary = rng.standard_normal((2, len(k), 3))
            waves = amplitude * (real + 1j * imaginary)
            waves -= k * (np.sum(k * waves, axis=1) / squared)[:, None]
            waves *= self.rms_velocity * math.sqrt(3 / (2 * np.square(np.abs(waves)).sum()))
            sample[:, *both[held].T] = np.concatenate([waves, waves.conj()])[held].T
        return own.moved(torch.from_numpy(u_hat), space)


@dataclass(frozen=True)
class SumOfSines:
    """Sum of a few sines with random wavenumbers, amplitudes and phases, in one dimension.

        u = sum_k A_k sin(2 pi m_k k x + phi_k),    k = 1 ... largest_wavenumber

    A_k is uniform in [0, 1] and phi_k in [0, 2 pi]. Wavenumbers are drawn ``n_waves`` times; m_k is how often k was
    drawn. So a wavenumber that was never drawn adds a constant, and one that was drawn twice a wave twice as short. A
    few fields are then replaced by their absolute value, each gets a random sign, and a few are multiplied by a window
    that is 1 between two points, 0 outside, and 0.02 wide at its edges. Each field is moved by a random distance, so
    that no place is special.

    Initial law of the one-dimensional data of Takamoto et al. (2022), PDEBench, arXiv 2210.07182, as its code draws it;
    the paper's text has no constants. There, windows aren't moved.

    Attributes:
        n_waves: draws of a wavenumber.
        largest_wavenumber: of the draws.
        absolute, windowed: probability of the absolute value and of a window.
    """

    n_waves: int = 2
    largest_wavenumber: int = 4
    absolute: float = 0.1
    windowed: float = 0.1

    # Points on which the absolute value and the window are taken, and half the width of the window's edges.
    _N_POINTS: ClassVar[int] = 8192
    _EDGE: ClassVar[float] = 0.01

    def __post_init__(self) -> None:
        chances = (self.absolute, self.windowed)
        if not (self.n_waves >= 1 and self.largest_wavenumber >= 1 and all(0 <= chance <= 1 for chance in chances)):
            raise ValueError(
                "A sum of sines needs n_waves >= 1, largest_wavenumber >= 1, and absolute and windowed in [0, 1], got "
                f"{self}. Change dataset.problem.initial."
            )

    def draw(
        self, rngs: Sequence[np.random.Generator], n_fields: int, space: Space
    ) -> Complex[Tensor, "sample field *k"]:
        """Independent fields, one state per generator, as the coefficients that ``space`` holds.

        Raises:
            ValueError: the space has more than one dimension.
        """
        if space.n_dims != 1:
            raise ValueError(
                f"SumOfSines draws fields in one dimension, not {space.n_dims}. Use TruncatedFourierSeries."
            )
        own = Space(self._N_POINTS, 1, 1.0, degree=1)
        drawn = [torch.from_numpy(np.stack([self._field(rng) for _ in range(n_fields)])) for rng in rngs]
        # One by one: a transform's last digits may depend on the size of the batch.
        return own.moved(torch.stack([own.coefficients(fields) for fields in drawn]), space)

    def _field(self, rng: np.random.Generator) -> NDArray[np.float64]:
        x = np.arange(self._N_POINTS) / self._N_POINTS
        cycles = np.arange(1, self.largest_wavenumber + 1)
        cycles *= np.bincount(rng.integers(self.largest_wavenumber, size=self.n_waves), minlength=len(cycles))
        amplitudes, phases = rng.uniform(size=(2, len(cycles)))
        u = amplitudes @ np.sin(2 * np.pi * (np.outer(cycles, x) + phases[:, None]))
        # All numbers are drawn for every field, so that a probability changes no other property.
        chances, sign = rng.uniform(size=2), rng.choice([-1.0, 1.0])
        left, right = rng.uniform(0.1, 0.45), rng.uniform(0.55, 0.9)
        if chances[0] < self.absolute:
            u = np.abs(u)
        u *= sign
        if chances[1] < self.windowed:
            u *= (np.tanh((x - left) / self._EDGE) - np.tanh((x - right) / self._EDGE)) / 2
        return np.roll(u, rng.integers(self._N_POINTS))


@dataclass(frozen=True)
class GaussianBlobs:
    """Sum of periodic Gaussian bumps at random places.

    Attributes:
        n_blobs: bumps per sample.
        narrowest, widest: standard deviations are uniform between these fractions of the box's side.
        heights: height of a bump in each field.
        offsets: value of each field far from all bumps.
    """

    n_blobs: int = 4
    narrowest: float = 0.03
    widest: float = 0.06
    heights: tuple[float, ...] = (1.0,)
    offsets: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not (self.n_blobs >= 1 and 0 < self.narrowest <= self.widest and len(self.heights) == len(self.offsets)):
            raise ValueError(
                "Gaussian blobs need n_blobs >= 1, 0 < narrowest <= widest, and as many heights as offsets, got "
                f"{self}. Change dataset.problem.initial."
            )

    def draw(
        self, rngs: Sequence[np.random.Generator], n_fields: int, space: Space
    ) -> Complex[Tensor, "sample field *k"]:
        """The same bumps in every field, one state per generator, as the coefficients that ``space`` holds.

        Raises:
            ValueError: there are heights for another number of fields.
        """
        if n_fields != len(self.heights):
            raise ValueError(
                f"The state has {n_fields} fields, but dataset.problem.initial.heights has {len(self.heights)}."
            )
        waves = [2 * np.pi * np.arange(space.k_max + 1)] * space.n_dims
        waves[1:] = [np.concatenate([w, -w[:0:-1]]) for w in waves[1:]]
        bumps = np.zeros((len(rngs), *space.shape), dtype=np.complex128)
        for sample, rng in zip(bumps, rngs, strict=True):
            for _ in range(self.n_blobs):
                width = rng.uniform(self.narrowest, self.widest)
                # The Fourier series of a periodic Gaussian is the product over axes of sampled Gaussians.
                axes = [
                    np.sqrt(2 * np.pi) * width * np.exp(-0.5 * (w * width) ** 2 - 1j * w * rng.uniform()) for w in waves
                ]
                sample += functools.reduce(np.multiply.outer, axes)
        drawn = torch.from_numpy(np.stack([height * bumps for height in self.heights], axis=1))
        for field, offset in enumerate(self.offsets):
            drawn[(slice(None), field, *[0] * space.n_dims)] += offset
        return drawn


def _half_space(k_max: int, n_dims: int) -> NDArray[np.int64]:
    """One of each pair of wave vectors k and -k up to k_max, without 0, in drawing order: [wave, axis]."""
    k = np.array(list(itertools.product(range(-k_max, k_max + 1), repeat=n_dims)))
    last = [k[:, axis] for axis in reversed(range(n_dims))]
    # Positive if the last component that isn't zero is.
    sign = functools.reduce(lambda decided, entry: np.where(decided == 0, np.sign(entry), decided), last, 0 * k[:, 0])
    k = k[sign > 0]
    return k[np.lexsort((*k.T[::-1], np.abs(k).max(axis=1)))]


def _require_law(law: PeriodicGaussianField | PeriodicGaussianField1D) -> None:
    if not (law.scale > 0 and law.tau >= 0 and law.exponent > 0):
        raise ValueError(
            f"A Gaussian field needs scale > 0, tau >= 0 and exponent > 0, got scale={law.scale}, tau={law.tau}, "
            f"exponent={law.exponent}. Change dataset.problem.initial."
        )


def _eigenvalues(
    law: PeriodicGaussianField | PeriodicGaussianField1D, k_squared: Any, power: Callable[[Any, float], Any] = np.power
) -> Any:
    return law.scale * power(4 * np.pi**2 * k_squared + law.tau**2, -law.exponent)


def _portable_power(base: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """The power by the C library. NumPy's differs in the last digit between processors, and a variance is part of the
    spec, and so of a dataset's address."""
    values, places = np.unique(base, return_inverse=True)
    return np.array([math.pow(value, exponent) for value in values])[places].reshape(base.shape)


def _variance(eigenvalues: Eigenvalues, k_max: int) -> float:
    k = np.arange(-k_max, k_max + 1)
    table = eigenvalues(k[:, None], k[None, :])
    return float(table.sum() - table[k_max, k_max])


def _draw(
    eigenvalues: Eigenvalues, rngs: Sequence[np.random.Generator], k_max: int
) -> Complex[Tensor, "sample rows columns"]:
    k1, k2 = _half_plane(k_max)
    amplitude = np.sqrt(2 * eigenvalues(k1, k2)) / 2
    u_hat = np.zeros((len(rngs), 2 * k_max + 1, k_max + 1), dtype=np.complex128)
    for sample, rng in zip(u_hat, rngs, strict=True):
        xi, eta = rng.standard_normal((k1.size, 2)).T
        sample[k1, k2] = amplitude * (xi - 1j * eta)
        # The column k2 = 0 holds both k and -k: the second half follows from the field being real.
        axis = k2 == 0
        sample[-k1[axis], 0] = np.conj(sample[k1[axis], 0])
    return torch.from_numpy(u_hat)


def _half_plane(k_max: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Wavenumbers with k2 > 0, or k2 = 0 and k1 > 0, in drawing order."""
    k1, k2 = np.meshgrid(np.arange(-k_max, k_max + 1), np.arange(k_max + 1), indexing="ij")
    half = (k2 > 0) | (k1 > 0)
    k1, k2 = k1[half], k2[half]
    order = np.lexsort((k2, k1, np.maximum(abs(k1), k2)))
    return k1[order], k2[order]
