"""What is known of the error of a dataset: measured, not promised.

The first samples of a split are solved again from the very same input with half the step at twice the resolution. The
relative L2 difference per snapshot is the error of the coarser solution, up to the error that the finer one still has
(a sixteenth of it in a fourth-order step, nearly nothing in a resolved spectrum, a quarter to a half of it where a
coefficient jumps). Beside it stand the worst and the mean of what the solver noted of every sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.spec import DatasetSpec, Problem

# Samples solved again per file: always the first, so that a longer file has the same certificate.
N_CHECKED = 4


class CertificateError(RuntimeError):
    """Data whose measured error is above what was asked for."""


@dataclass(frozen=True)
class Certificate:
    """Errors of a dataset file.

    Attributes:
        errors: relative L2 error per checked sample and stored time, [sample][time], the worst of the state's fields.
        diagnostics: worst (largest in magnitude) and mean over all samples of each diagnostic.
    """

    errors: tuple[tuple[float, ...], ...]
    diagnostics: Mapping[str, Mapping[str, float]]

    @property
    def error(self) -> float:
        """The largest error of any checked snapshot; NaN if one has none, which no tolerance accepts."""
        return float(np.max(self.errors))

    def to_dict(self) -> dict[str, Any]:
        """What a file stores: the attributes, with ``error``."""
        return {"error": self.error, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Certificate:
        """Inverse of ``to_dict``.

        Raises:
            KeyError, TypeError: the values aren't a certificate's, e.g. because nothing was measured.
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
        problem: what solves them.
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
    """The certificate of a file from the errors of its first samples and the diagnostics of all."""
    summary = {
        name: {"worst": float(values[np.argmax(np.abs(values))]), "mean": float(values.mean())}
        for name, values in diagnostics.items()
    }
    return Certificate(tuple(tuple(times) for times in errors), summary)


def require(error: float, tolerance: float | None, what: str) -> None:
    """Check that a measured error is within a tolerance.

    Raises:
        CertificateError: it is not, or isn't a number.
    """
    if tolerance is not None and not error <= tolerance:
        raise CertificateError(
            f"{what}: the measured error {_rounded(error)} (relative L2 per snapshot, against half the step at twice "
            f"the resolution) is above dataset.tolerance={tolerance:g}. Raise the solver's resolution "
            "(dataset.problem.oversampling or solver_resolution), shorten the trajectories, or accept less accurate "
            "data with a higher dataset.tolerance."
        )


def _rounded(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.2g}"
