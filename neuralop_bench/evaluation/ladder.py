"""The coarse-solver ladder: what the dataset's own solver costs at the error of a surrogate.

A solver on a coarser grid with longer steps is a cheap surrogate, too. Every rung has the same inputs as a model, goes
through the same evaluator, and is timed on the same device with the same threads.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import xarray as xr
from filelock import FileLock
from numpy.typing import NDArray

from data_gen.files import WriteError, make_folder, replacing, write_errors
from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.regrid import MEANS, regrid
from data_gen.spec import Problem, SolverError
from data_gen.store import DatasetFile
from neuralop_bench.batch import Predictor
from neuralop_bench.data.trajectories import Windows
from neuralop_bench.evaluation.evaluator import evaluate, summarise
from neuralop_bench.metrics.cost import in_turns, prediction_cost
from neuralop_bench.metrics.metric import MetricContext
from neuralop_bench.metrics.relative import RelativeL2
from neuralop_bench.records.rung import Rung
from neuralop_bench.runtime import environment
from neuralop_bench.runtime.processes import Processes
from neuralop_bench.surrogate.coarse_solver import PICKED, REDRAWN, CoarseSolver, Inputs, Precision, coarsened

# A rung takes the longest steps that change its error by less than this fraction of it.
SAME_ERROR = 0.05
RELAXATIONS = tuple(2.0**n for n in range(20))
# If so many doublings have no effect, stability limits the steps. (A tolerance may have to grow tenfold before an
# iteration ends one step earlier.)
_ENOUGH_WITHOUT_EFFECT = 4

# Samples solved together to find the error of a rung. Times are measured at the best batch size.
_BATCH_SIZE = 64

# Raised whenever a change alters what is measured, so that older results aren't used.
_VERSION = 5

# How often a surrogate and the solver take turns when their times are compared.
ROUNDS = 5

_DRAWN_TOGETHER = 16


def climb(
    problem: Problem,
    fractions: Sequence[float],
    windows: Windows,
    *,
    device: torch.device,
) -> tuple[list[Rung], dict[str, str]]:
    """Errors and times of a problem's solver on fractions of the file's grid, each with the longest steps that change
    its error by less than 5 %, with the static fields brought to its grid in the way that has the least error, and in
    single precision where that is faster and changes the error by less than 5 %.

    Args:
        problem: of the data, on the grid of ``windows``.
        fractions: of the intervals of the file's grid, e.g. 0.5 for 43 of 85 closed nodes. A fraction above 1 is a
            finer grid.
        windows: whole test trajectories.
        device: where the solver works, if it uses tensors.

    Returns:
        Rungs, and the reason for each that was left out, by its resolution.
    """
    rungs: list[Rung] = []
    left_out: dict[str, str] = {}
    for fraction in fractions:
        grid = coarsened(windows.source.spec.grid, fraction)
        try:
            rungs.append(_rung(problem.at(grid), windows, device))
        except (ValueError, ArithmeticError, SolverError) as reason:  # failing on so coarse a grid is a result, too
            left_out[_resolution(grid)] = str(reason)
    return rungs, left_out


def climb_once(
    folder: Path, problem: Problem, fractions: Sequence[float], windows: Windows, *, device: torch.device
) -> tuple[list[Rung], dict[str, str]]:
    """``climb``, kept in a folder: measured once per test data, device, threads and libraries.

    Concurrent processes that need the same wait for the first of them. If the folder can't be written, nothing is kept
    and a warning says so.
    """
    here = environment.environment(device)
    key = {
        "version": _VERSION,
        "problem_version": problem.version,
        "test": windows.source.sha256,
        "history": windows.source.history,
        "horizon": windows.n_steps,
        "fractions": list(fractions),
        **({"face_means": means} if (means := _face_means(problem)) else {}),
        **{name: here[name] for name in ("libraries", "device", "processor", "vector_instructions", "threads")},
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    path = folder / f"ladder-{name}.json"
    with ExitStack() as held:
        try:
            make_folder(folder)
            with write_errors(path):
                held.enter_context(FileLock(path.with_suffix(".lock")))
        except WriteError as error:
            print(f"Warning: the solver's curve won't be kept: {error}", file=sys.stderr)
            return climb(problem, fractions, windows, device=device)
        known = _kept(path, key)
        if known is None:
            known = climb(problem, fractions, windows, device=device)
            rungs, left_out = known
            content = {"key": key, "rungs": [asdict(rung) for rung in rungs], "left_out": left_out}
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
        return known


def _kept(path: Path, key: Mapping[str, Any]) -> tuple[list[Rung], dict[str, str]] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] != key:
            return None
        return [Rung(**entry) for entry in content["rungs"]], dict(content["left_out"])
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: measured again
        return None


def seconds_at_error(
    rungs: Sequence[Rung], error: float, *, of: Literal["seconds", "latency_seconds"] = "seconds"
) -> tuple[float, Literal["", ">", "<"]]:
    """Time that the solver takes for an error: log-log interpolation of the lower envelope of the rungs.

    For each error, the envelope has the least time of a rung whose error isn't larger.

    Returns:
        Seconds, and whether the true value is larger (``>``: the error is below that of every rung) or smaller (``<``:
        it is above that of every rung) than this end of the envelope.

    Raises:
        ValueError: there are no rungs.
    """
    below, above = _bracket(rungs, error, of)
    if error < below.rel_l2 or error > above.rel_l2:
        return getattr(below, of), ">" if error < below.rel_l2 else "<"
    return _interpolated(error, (below, above), (getattr(below, of), getattr(above, of))), ""


def speedups(
    surrogate: Predictor,
    batch_size: int,
    rungs: Sequence[Rung],
    problem: Problem,
    windows: Windows,
    error: float,
    *,
    device: torch.device,
) -> list[float]:
    """The solver's time for an error over a surrogate's, measured anew in rounds in which they take turns.

    Args:
        surrogate: with the error.
        batch_size: its best.
        rungs: the solver's curve. Only the one or two that ``seconds_at_error`` uses are timed.
        problem: of the rungs, on any grid.
        windows: whole test trajectories.
        error: relative L2.
        device: where both compute.
    """
    near = list(dict.fromkeys(_bracket(rungs, error, "seconds")))
    solvers = [_solver_of(rung, problem, windows) for rung in near]
    sizes = [rung.batch_size for rung in near]
    predictors = [(surrogate, batch_size), *zip(solvers, sizes, strict=True)]
    timed = in_turns(predictors, windows, rounds=ROUNDS, device=device)
    return [_interpolated(error, near, solver) / own for own, *solver in timed]


def _solver_of(rung: Rung, problem: Problem, windows: Windows) -> CoarseSolver:
    file_grid = windows.source.spec.grid
    grid = replace(file_grid, shape=tuple(int(n) for n in rung.resolution.split("x")))
    inputs, precision = cast(Inputs, rung.inputs or PICKED), cast(Precision, rung.precision)
    solver = problem.at(grid).relaxed(rung.relaxation)
    return CoarseSolver(solver, file_grid, inputs, precision, _drawn(solver, inputs, windows))


def _bracket(rungs: Sequence[Rung], error: float, of: Literal["seconds", "latency_seconds"]) -> tuple[Rung, Rung]:
    """The neighbours of an error on the lower envelope of the rungs; beyond its ends, the last rung twice."""
    if not rungs:
        raise ValueError("There is no rung to compare with.")
    envelope: list[Rung] = []
    for rung in sorted(rungs, key=lambda rung: (rung.rel_l2, getattr(rung, of))):
        if not envelope or getattr(rung, of) < getattr(envelope[-1], of):
            envelope.append(rung)
    below = [rung for rung in envelope if rung.rel_l2 <= error]
    above = [rung for rung in envelope if rung.rel_l2 >= error]
    return (below or above[:1])[-1], (above or below[-1:])[0]


def _interpolated(error: float, near: Sequence[Rung], seconds: Sequence[float]) -> float:
    """Seconds at an error, in logarithms between the rungs; beyond them, those of the nearest."""
    if near[0] == near[-1]:
        return seconds[0]
    errors = [math.log(rung.rel_l2) for rung in near]
    return float(np.exp(np.interp(math.log(error), errors, np.log(seconds))))


def breakeven_solves(spent_seconds: float, solver_seconds: float, surrogate_seconds: float) -> float:
    """Predictions after which the time spent on data, tuning and training pays for itself; infinite if the solver is
    faster.

    >>> breakeven_solves(100.0, 0.6, 0.1), breakeven_solves(100.0, 0.1, 0.6)
    (200.0, inf)
    """
    saved = solver_seconds - surrogate_seconds
    return spent_seconds / saved if saved > 0 else math.inf


def _rung(problem: Problem, windows: Windows, device: torch.device) -> Rung:
    """The cheapest way to solve on the problem's grid.

    Raises:
        ValueError, ArithmeticError: the solver can't work there; the message says why.
    """
    file_grid = windows.source.spec.grid
    inputs = _best_inputs(problem, windows, device)
    made = partial(CoarseSolver, file_grid=file_grid, inputs=inputs, drawn=_drawn(problem, inputs, windows))
    relaxation, error = _longest_steps(problem, made, windows, device)
    if not math.isfinite(error):
        raise FloatingPointError("unstable")
    solver = problem.relaxed(relaxation)
    errors: dict[Precision, float] = {"float64": error}
    with suppress(
        ValueError, ArithmeticError, SolverError
    ):  # a solver that has no single precision, or doesn't converge in it
        single = _error(made(solver, precision="float32"), windows, device)
        if abs(single - error) <= SAME_ERROR * error:
            errors["float32"] = single
    found: list[Rung] = []
    for precision, rel_l2 in errors.items():
        cost = prediction_cost(made(solver, precision=precision), windows, device=device)
        found.append(
            Rung(
                _resolution(problem.spec.grid),
                relaxation,
                rel_l2,
                latency_seconds=cost["latency_ms"] / 1e3,
                seconds=1 / cost["throughput"],
                inputs=inputs if problem.spec.static else "",
                batch_size=int(cost["throughput_batch_size"]),
                precision=precision,
            )
        )
    return min(found, key=lambda rung: rung.seconds)


def _resolution(grid: Grid) -> str:
    return "x".join(str(n) for n in grid.shape)


def _best_inputs(problem: Problem, windows: Windows, device: torch.device) -> Inputs:
    """The way to bring static fields to the solver's grid that has the least error; picked where nothing is lost, and
    redrawn on a grid that is finer than the file's.

    Raises:
        ValueError: none is possible; the message is that of the nodes picked.
    """
    file_grid = windows.source.spec.grid
    if not problem.spec.static or problem.spec.grid == file_grid:
        return PICKED
    if problem.spec.grid.n_points > file_grid.n_points:
        return REDRAWN
    errors: list[tuple[float, Inputs]] = []
    problems: list[ValueError] = []
    for inputs in (PICKED, *MEANS, *_face_means(problem)):
        try:
            error = _error(CoarseSolver(problem, file_grid, inputs), windows, device)
            errors.append((error if math.isfinite(error) else math.inf, inputs))
        except ValueError as reason:  # nodes that don't nest, fields that aren't positive
            problems.append(reason)
    if not errors:
        raise problems[0]
    return min(errors, key=lambda entry: entry[0])[1]


def _face_means(problem: Problem) -> Sequence[Inputs]:
    """Means over faces that the solver takes, besides those over cells."""
    return list(getattr(problem, "face_means", ()))


def _drawn(problem: Problem, inputs: Inputs, windows: Windows) -> dict[bytes, NDArray[np.floating]]:
    """Static fields of all samples on the problem's grid, if they are drawn again.

    Raises:
        ValueError: the grid is finer than that of the data's own solver, or lacks nodes of the file's; or the fields
            differ there from those of the file.
    """
    drawn: dict[bytes, NDArray[np.floating]] = {}
    if inputs != REDRAWN:
        return drawn
    source = windows.source
    own = source.spec.parameters.get("solver_resolution", math.inf)
    if problem.spec.grid.shape[-1] > cast(float, own):
        raise ValueError(f"the data were solved on {own} points per axis, so errors on a finer grid can't be measured")
    with DatasetFile(source.path) as file:
        seed, split = file.seed, file.split
    for first in range(0, len(windows), _DRAWN_TOGETHER):
        numbers = list(range(first, min(first + _DRAWN_TOGETHER, len(windows))))
        fine = problem.simulate([generator(seed, split, i) for i in numbers]).static
        given = windows[numbers].static.numpy()[:, : fine.shape[1]]
        if not np.allclose(regrid(fine, problem.spec.grid, source.spec.grid), given, rtol=1e-5):
            raise ValueError("static fields drawn again differ from those of the file")
        drawn |= {own.tobytes(): field for own, field in zip(given, fine, strict=True)}
    return drawn


def _longest_steps(
    problem: Problem, made: Callable[[Problem], CoarseSolver], windows: Windows, device: torch.device
) -> tuple[float, float]:
    """The last relaxation before the error changes, and its error."""
    reference = found = _error(made(problem), windows, device)
    chosen, n_without_effect = RELAXATIONS[0], 0
    for relaxation in RELAXATIONS[1:]:
        error = _error(made(problem.relaxed(relaxation)), windows, device)
        if not abs(error - reference) <= SAME_ERROR * reference:
            break
        n_without_effect = n_without_effect + 1 if error == found else 0
        if n_without_effect == _ENOUGH_WITHOUT_EFFECT:
            break
        if error != found:
            chosen, found = relaxation, error
    return chosen, found


def _error(predictor: CoarseSolver, windows: Windows, device: torch.device) -> float:
    spec = windows.source.spec
    metrics = [RelativeL2(MetricContext(spec, np.ones(len(spec.state)), spec.grid))]
    alone = Processes(device=device)
    try:
        errors: xr.Dataset = evaluate(predictor, windows, metrics, batch_size=_BATCH_SIZE, processes=alone)
    except SolverError:  # steps that are too long
        return math.inf
    return summarise(errors, metrics)["rel_l2"]
