"""The certificate of a dataset: its measured error.

The first samples of a split are solved again from the same input with half the step at twice the resolution. The
relative L2 difference per snapshot is the error of the coarser solution, up to the error of the finer one: a sixteenth
of it for a fourth-order step, almost nothing for a resolved spectrum, a quarter to a half of it where a coefficient
jumps. The certificate also holds the worst value and the mean of every number that the solver recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.spec import DatasetSpec, Problem

# Samples per file that are solved again. They are the first, so that a longer file has the same certificate.
N_CHECKED = 4


class CertificateError(RuntimeError):
    """The measured error of data is above the tolerance."""


@dataclass(frozen=True)
class Certificate:
    """Errors of a dataset file.

    Attributes:
        errors: relative L2 error per checked sample and stored time, [sample][time]; the largest of the state's fields.
        diagnostics: worst (largest in magnitude) and mean of each diagnostic over all samples.
    """

    errors: tuple[tuple[float, ...], ...]
    diagnostics: Mapping[str, Mapping[str, float]]

    @property
    def error(self) -> float:
        """The largest error of any checked snapshot. It is NaN, which no tolerance accepts, if one of them is."""
        return float(np.max(self.errors))

    def to_dict(self) -> dict[str, Any]:
        """The attributes and ``error``, as a file stores them."""
        return {"error": self.error, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Certificate:
        """Inverse of ``to_dict``.

        Raises:
            KeyError, TypeError: the values aren't those of a certificate, e.g. because nothing was measured.
        """
        return cls(tuple(tuple(times) for times in values["errors"]), values["diagnostics"])

    def describe(self, spec: DatasetSpec) -> str:
        """The certificate in a few lines."""
        errors = np.array(self.errors)
        lines = [f"error: {_rounded(self.error)} at most, measured on {len(errors)} samples solved again"]
        if spec.times:
            shown = sorted(
                {0, len(spec.times) // 4, len(spec.times) // 2, 3 * len(spec.times) // 4, -1 % len(spec.times)}
            )
            worst = errors.max(axis=0)
            lines.append("  over time: " + ", ".join(f"t={spec.times[i]:g} {_rounded(worst[i])}" for i in shown))
        for entry in spec.diagnostics:
            found = self.diagnostics[entry.name]
            lines.append(
                f"{entry.name}: {_rounded(found['worst'])} at most, {_rounded(found['mean'])} on average "
                f"({entry.description})"
            )
        return "\n".join(lines)


def measure(
    problem: Problem, rngs: Sequence[np.random.Generator], again: Sequence[np.random.Generator]
) -> list[list[float]]:
    """Relative L2 errors of samples, [sample][time].

    Args:
        problem: solves them.
        rngs: one generator per sample.
        again: the same generators, in the same state, for the second solution.
    """
    coarse, fine = problem.simulate(rngs).trajectory, problem.simulate_refined(again).trajectory
    space = tuple(range(3, coarse.ndim))
    difference = np.sqrt(np.sum((coarse - fine) ** 2, axis=space))
    scale = np.sqrt(np.sum(fine**2, axis=space))
    floor = np.finfo(np.float64).tiny
    return (difference / np.maximum(scale, floor)).max(axis=2).tolist()


def certify(errors: Sequence[Sequence[float]], diagnostics: Mapping[str, NDArray[np.float64]]) -> Certificate:
    """The certificate of a file, from the errors of its first samples and the diagnostics of all samples."""
    summary = {
        name: {"worst": float(values[np.argmax(np.abs(values))]), "mean": float(values.mean())}
        for name, values in diagnostics.items()
    }
    return Certificate(tuple(tuple(times) for times in errors), summary)


def require(error: float, tolerance: float | None, what: str) -> None:
    """Check that a measured error is within a tolerance.

    Raises:
        CertificateError: it isn't, or it is NaN.
    """
    if tolerance is not None and not error <= tolerance:
        raise CertificateError(
            f"{what}: the measured error {_rounded(error)} (relative L2 per snapshot, against half the step at twice "
            f"the resolution) is above dataset.tolerance={tolerance:g}. Raise dataset.problem.oversampling, "
            "solver_resolution or resolution, or lower max_step (whichever the problem has), shorten the trajectories, "
            "or accept less accurate data with a higher dataset.tolerance."
        )


def _rounded(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.2g}"
