"""The figures of docs/training.md on adapting a trained network to one sample by the residual of its equation, beside
the solver's own iterations.

python -m benchmarks.adaptation RUN DATA     a run on darcy2d, and the folder of its data; about two minutes
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dstn, idstn
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from data_gen.problems.darcy2d import Darcy2D
from data_gen.solvers import elliptic
from neuralop_bench import Batch, Surrogate
from neuralop_bench.predict import read_inputs

N_SAMPLES = 10
STEPS = (0, 10, 20, 50)


def error(pressure: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Relative L2 error of one sample."""
    return float(np.linalg.norm(pressure - truth) / np.linalg.norm(truth))


def conjugate_gradients(
    permeability: NDArray[np.float64], start: NDArray[np.float64], truth: NDArray[np.float64], forcing: float
) -> tuple[list[float], float]:
    """Errors before and after up to ten iterations on the sample's own grid, and the seconds of one iteration.

    The preconditioner solves Poisson's equation, as that of ``elliptic.solve`` does.
    """
    n = len(truth)
    m, h = n - 2, 1 / (n - 1)
    matrix = elliptic.assemble(elliptic.harmonic_faces(permeability[None]))
    eigenvalues = 2 - 2 * np.cos(np.pi * h * np.arange(1, m + 1))

    def poisson(r: NDArray[np.float64]) -> NDArray[np.float64]:
        waves = dstn(r.reshape(m, m), type=1) / (eigenvalues[:, None] + eigenvalues)
        return idstn(waves, type=1).ravel()

    right, inside = np.full(m * m, forcing * h**2), truth[1:-1, 1:-1].ravel()
    solve = {"rtol": 0.0, "maxiter": 10, "M": LinearOperator((m * m, m * m), poisson)}
    first = start[1:-1, 1:-1].ravel()
    errors = [error(first, inside)]
    started = time.perf_counter()
    cg(matrix, right, first, **solve)
    seconds = (time.perf_counter() - started) / 10
    cg(matrix, right, first, callback=lambda u: errors.append(error(u, inside)), **solve)
    return errors, seconds


def adapted(
    surrogate: Surrogate, problem: Darcy2D, static: Tensor, truth: NDArray[np.float64], of: str, rate: float
) -> tuple[list[float], float]:
    """Errors of one sample after ``STEPS`` steps of Adam on its residual, and the seconds of a step.

    ``of`` is a part of the names of the weights that change.
    """
    own = deepcopy(surrogate)
    changing = [p for name, p in own.operator.named_parameters() if of in name]
    optimizer, errors = torch.optim.Adam(changing, lr=rate), []
    history = static.new_empty(1, 0, 1, *static.shape[2:])
    started = time.perf_counter()
    for step in range(STEPS[-1] + 1):
        predicted = own(history, static)
        if step in STEPS:
            errors.append(error(predicted.detach().numpy()[0, 0, 0], truth))
        optimizer.zero_grad()
        problem.residual(predicted, static).sum().backward()
        optimizer.step()
    return errors, (time.perf_counter() - started) / (STEPS[-1] + 1)


def main(run: str, data: str) -> None:
    """Print all."""
    surrogate, problem = Surrogate.load(run), Darcy2D()
    assert surrogate.spec is not None
    inputs = read_inputs(Path(data) / "valid" / "darcy2d.hdf5", surrogate.spec, 0, resolution_free=False)
    truths = np.asarray(inputs.states[:N_SAMPLES, 0, 0], np.float64)
    static = torch.from_numpy(inputs.static[:N_SAMPLES])
    started = time.perf_counter()
    given = [Batch.given(a.new_empty(1, 0, *a.shape), a[None]) for a in static]
    predicted = [surrogate.predict(batch, 1).numpy()[0, 0, 0].astype(np.float64) for batch in given]
    print(f"a prediction: {1e3 * (time.perf_counter() - started) / N_SAMPLES:.1f} ms")

    def report(name: str, ms_of: str, one: Callable[[int], tuple[Sequence[float], float]]) -> None:
        errors, seconds = zip(*(one(i) for i in range(N_SAMPLES)), strict=True)
        shown = ", ".join(f"{value:.4f}" for value in np.mean(errors, axis=0))
        print(f"{name}: {shown}; {1e3 * float(np.median(seconds)):.2f} ms per {ms_of}")

    a = static[:, 0].double().numpy()
    for name, starts in (("from zero", np.zeros_like(truths)), ("from the prediction", predicted)):
        report(
            f"conjugate gradients {name}",
            "iteration",
            lambda i, starts=starts: conjugate_gradients(a[i], starts[i], truths[i], problem.forcing),
        )
    for of, rate in (("", 1e-4), ("", 1e-3), ("projection.1", 1e-3), ("projection.1", 1e-2)):
        report(
            f"Adam on {of or 'all weights'}, rate {rate:g}, after {STEPS} steps",
            "step",
            lambda i, of=of, rate=rate: adapted(surrogate, problem, static[i : i + 1], truths[i], of, rate),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
