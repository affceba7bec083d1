"""The coarse-solver ladder: rungs as predictors, steps that are as long as they may be, and the time for an error."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.permeability import TwoPhase
from data_gen.problems.burgers1d import Burgers1D
from data_gen.problems.darcy2d import Darcy2D
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.problems.ns3d import NavierStokes3D
from data_gen.problems.obstacles2d import Obstacles2D
from data_gen.regrid import MEANS
from data_gen.spec import Problem, Samples, SolverError
from data_gen.store import to_fields, write
from neuralop_bench.batch import Batch
from neuralop_bench.data.trajectories import Trajectories, Windows
from neuralop_bench.evaluation import ladder
from neuralop_bench.evaluation.ladder import Rung, breakeven_solves, climb, seconds_at_error
from neuralop_bench.surrogate.coarse_solver import PICKED, CoarseSolver, Inputs, Precision, coarsened

CPU = torch.device("cpu")
NAVIER_STOKES = NavierStokes2D(viscosity=1e-3, resolution=32, interval=1.0, n_snapshots=4)
BURGERS = Burgers1D(viscosity=1e-2, resolution=256)
DARCY = Darcy2D(resolution=49, solver_resolution=97)


def windows(problem: Problem, folder: Path, *, history: int, horizon: int, n: int = 3) -> Windows:
    samples = problem.simulate([generator(0, "test", i) for i in range(n)])
    path = folder / f"{problem.spec.name}.hdf5"
    write(path, problem.spec, [to_fields(problem.spec, samples)], n, split="test", seed=0, provenance={})
    return Trajectories(path, n_samples=n, history=history, horizon=horizon).whole()


def error(problem: Problem, given: Windows, inputs: Inputs = PICKED, precision: Precision = "float64") -> float:
    batch = given[list(range(len(given)))]
    prediction = CoarseSolver(problem, given.source.spec.grid, inputs, precision).predict(batch, given.n_steps)
    assert prediction.shape == batch.target.shape
    assert prediction.dtype == torch.float32
    difference = (prediction - batch.target).flatten(1).norm(dim=1)
    return float((difference / batch.target.flatten(1).norm(dim=1)).mean())


# Rungs ---------------------------------------------------------------------------------------------------------------


def test_the_solver_at_the_files_own_resolution_continues_from_the_last_given_frame(tmp_path: Path) -> None:
    given = windows(NAVIER_STOKES, tmp_path, history=2, horizon=2)
    grid = given.source.spec.grid
    assert error(NAVIER_STOKES, given) < 1e-6  # the file is float32
    coarse = [error(NAVIER_STOKES.at(coarsened(grid, fraction)), given) for fraction in (1.0, 0.75, 0.5)]
    assert coarse[0] < coarse[1] < coarse[2] < 0.5


def test_burgers_on_coarser_grids(tmp_path: Path) -> None:
    given = windows(BURGERS, tmp_path, history=1, horizon=1)
    grid = given.source.spec.grid
    assert error(BURGERS, given) < 1e-5
    coarse = [error(BURGERS.at(coarsened(grid, fraction)), given) for fraction in (1.0, 0.25, 0.125)]
    assert coarse[0] < coarse[1] < coarse[2]


def test_darcy_takes_the_permeability_at_the_nodes_it_has_and_is_interpolated_back(tmp_path: Path) -> None:
    given = windows(DARCY, tmp_path, history=0, horizon=1)
    grid = given.source.spec.grid
    coarse = [error(DARCY.at(coarsened(grid, fraction)), given) for fraction in (1.0, 0.5, 1 / 3)]
    assert coarse[0] < coarse[1] < coarse[2] < 1


def test_a_rung_takes_the_static_fields_in_the_way_that_has_the_least_error(tmp_path: Path) -> None:
    given = windows(DARCY, tmp_path, history=0, horizon=1)
    rungs, left_out = climb(DARCY, [1, 0.5, 5 / 12], given, device=CPU)
    assert not left_out
    assert [rung.resolution for rung in rungs] == ["49x49", "25x25", "21x21"]
    assert [rung.inputs for rung in rungs] == ["picked", "harmonic-arithmetic", "harmonic-arithmetic"]
    own = DARCY.at(coarsened(given.source.spec.grid, 0.5))
    others = [error(own, given, inputs) for inputs in (PICKED, *MEANS, "arithmetic-harmonic")]
    assert rungs[1].rel_l2 < 0.8 * min(others)


@pytest.mark.parametrize(
    ("single_seconds", "same_error", "chosen"),
    [(0.5, 0.05, "float32"), (2.0, 0.05, "float64"), (0.5, 0.0, "float64")],
    ids=("faster", "slower", "less accurate"),
)
def test_a_rung_takes_single_precision_if_that_is_faster_and_as_accurate(
    single_seconds: float, same_error: float, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost(predictor: CoarseSolver, *_: Any, **__: Any) -> dict[str, float]:
        seconds = single_seconds if predictor._dtype == np.float32 else 1.0  # pyright: ignore[reportPrivateUsage]
        return {"latency_ms": 1e3 * seconds, "throughput": 1 / seconds, "throughput_batch_size": 1.0}

    monkeypatch.setattr(ladder, "prediction_cost", cost)
    monkeypatch.setattr(ladder, "SAME_ERROR", same_error)
    (rung,), _ = climb(NAVIER_STOKES, [0.5], windows(NAVIER_STOKES, tmp_path, history=2, horizon=2), device=CPU)
    assert rung.precision == chosen
    assert rung.name == {"float32": "16x16, float32", "float64": "16x16"}[chosen]


def test_on_a_finer_grid_the_coefficient_is_drawn_again(tmp_path: Path) -> None:
    coarse = Darcy2D(resolution=13, solver_resolution=97)
    given = windows(coarse, tmp_path, history=0, horizon=1)
    rungs, left_out = climb(coarse, [8, 4, 1.5, 1, 16], given, device=CPU)
    assert [rung.name.removesuffix(", float32") for rung in rungs] == [
        "97x97, redrawn",
        "49x49, redrawn",
        "13x13, picked",
    ]
    assert rungs[0].rel_l2 < 1e-2 * rungs[1].rel_l2
    assert rungs[1].rel_l2 < 0.5 * rungs[2].rel_l2
    assert "nodes" in left_out["19x19"]
    assert "solved on 97 points per axis" in left_out["193x193"]
    # The same rung is timed beside a model.
    near_the_finer = ladder.speedups(
        CoarseSolver(coarse.at(given.source.spec.grid), given.source.spec.grid),
        1,
        rungs,
        coarse,
        given,
        rungs[1].rel_l2,
        device=CPU,
    )
    assert min(near_the_finer) > 0


def test_around_obstacles_means_of_a_finer_solution_are_those_over_the_fluid(tmp_path: Path) -> None:
    flow = Obstacles2D(reynolds=20.0, resolution=16, solver_resolution=32)
    rungs, left_out = climb(flow, [2, 1], windows(flow, tmp_path, history=0, horizon=1), device=CPU)
    assert not left_out
    # The first solves on the grid of the data's own solver, from distances at centres instead of corners.
    assert rungs[0].rel_l2 < 0.02
    assert rungs[0].rel_l2 < 0.2 * rungs[1].rel_l2


def test_another_draw_of_the_coefficient_is_refused(tmp_path: Path) -> None:
    given = windows(DARCY, tmp_path, history=0, horizon=1)
    other = replace(DARCY, permeability=TwoPhase(contrast=5.0))
    rungs, left_out = climb(other, [2], given, device=CPU)
    assert not rungs
    assert "differ from those of the file" in left_out["97x97"]


def test_the_target_is_not_read(tmp_path: Path) -> None:
    given = windows(NAVIER_STOKES, tmp_path, history=2, horizon=2)
    batch = given[[0, 1, 2]]
    rung = CoarseSolver(NAVIER_STOKES.at(Grid.periodic(16)), given.source.spec.grid)
    blind = Batch(batch.history, batch.static, batch.target * np.nan)
    assert torch.equal(rung.predict(batch, 2), rung.predict(blind, 2))


@pytest.mark.parametrize("problem", [NAVIER_STOKES, BURGERS], ids=("ns2d", "burgers1d"))
def test_a_solver_takes_whole_batches_and_gives_the_same_bits(
    problem: NavierStokes2D | Burgers1D, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[type(problem).__module__]
    sizes: list[int] = []

    def counted(linear: torch.Tensor, nonlinear: object, state: torch.Tensor, *rest: Any, **options: Any) -> Any:
        sizes.append(len(state))
        return integrate(linear, nonlinear, state, *rest, **options)

    integrate = module.integrate
    monkeypatch.setattr(module, "integrate", counted)
    small = replace(problem, inner_batch=2)
    samples = small.simulate([np.random.default_rng(i) for i in range(5)])
    assert sizes == [2, 2, 1], "the bytes of data depend on it"
    given = samples.trajectory[:, :1], samples.static
    sizes.clear()
    together = small.solve(*given, 2)
    assert sizes == [5]
    parts = [small.solve(*(x[part] for x in given), 2).trajectory for part in (slice(1), slice(1, 3), slice(3, 5))]
    assert np.array_equal(np.concatenate(parts), together.trajectory)


# Steps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "history", "horizon", "fractions"),
    [
        (NAVIER_STOKES, 2, 2, (1, 0.5)),
        (DARCY, 0, 1, (1, 0.5)),
        pytest.param(BURGERS, 1, 1, (0.25, 0.125), marks=pytest.mark.exhaustive),
    ],
    ids=("ns2d", "darcy2d", "burgers1d"),
)
def test_rungs_take_the_longest_steps_that_keep_their_error(
    problem: Problem, history: int, horizon: int, fractions: Sequence[float], tmp_path: Path
) -> None:
    given = windows(problem, tmp_path, history=history, horizon=horizon)
    rungs, left_out = climb(problem, fractions, given, device=CPU)
    assert not left_out
    for rung, fraction in zip(rungs, fractions, strict=True):
        own = problem.at(coarsened(given.source.spec.grid, fraction))
        inputs = cast(Inputs, rung.inputs or PICKED)
        assert rung.rel_l2 == pytest.approx(error(own, given, inputs), rel=ladder.SAME_ERROR)
        precision = cast(Precision, rung.precision)
        assert rung.rel_l2 == pytest.approx(error(own.relaxed(rung.relaxation), given, inputs, precision), rel=1e-5)
        assert min(rung.seconds, rung.latency_seconds) > 0
    assert max(rung.relaxation for rung in rungs) > 1


def test_a_rung_that_fails_is_left_out_with_its_reason(tmp_path: Path) -> None:
    given = windows(NAVIER_STOKES, tmp_path, history=2, horizon=2)
    rungs, left_out = climb(NAVIER_STOKES, [0.5, 1 / 16], given, device=CPU)
    assert [rung.resolution for rung in rungs] == ["16x16"]
    assert left_out.keys() == {"2x2"}
    assert "resolution" in left_out["2x2"]


class Exploding:
    """A solver that blows up on grids below 32 points, or notices that it would; the rest is that of another."""

    def __init__(self, problem: Problem, *, notices: bool) -> None:
        self._problem, self._notices, self.spec = problem, notices, problem.spec

    def at(self, grid: Grid) -> Problem:
        problem = self._problem.at(grid)
        return cast(Problem, Exploding(problem, notices=self._notices)) if grid.shape[0] < 32 else problem

    def relaxed(self, factor: float) -> "Exploding":
        del factor
        return self

    def solve(self, history: np.ndarray, static: np.ndarray, n_steps: int, **options: Any) -> Samples:
        if self._notices:
            raise SolverError("Sample 0 became non-finite.")
        solved = self._problem.solve(history, static, n_steps, **options)
        return solved._replace(trajectory=solved.trajectory * math.inf)


@pytest.mark.parametrize("notices", [True, False])
def test_a_solver_that_blows_up_is_left_out(notices: bool, tmp_path: Path) -> None:
    given = windows(NAVIER_STOKES, tmp_path, history=2, horizon=2)
    problem = cast(Problem, Exploding(NAVIER_STOKES, notices=notices))
    rungs, left_out = climb(problem, [1, 0.5], given, device=CPU)
    assert [rung.resolution for rung in rungs] == ["32x32"]
    assert left_out == {"16x16": "unstable"}


def test_steps_that_a_solver_refuses_end_the_search_for_longer_ones(tmp_path: Path) -> None:
    problem = NavierStokes3D(resolution=8, viscosity=0.3, interval=0.8, n_snapshots=3, max_step=0.2, first_step=0.2)
    rungs, left_out = climb(problem, [1], windows(problem, tmp_path, history=1, horizon=2, n=1), device=CPU)
    assert not left_out
    assert rungs[0].relaxation == 1


def test_a_folder_that_cannot_be_written_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = windows(NAVIER_STOKES, tmp_path, history=2, horizon=2)
    found = ([rung(0.1, 1.0)], {})
    monkeypatch.setattr(ladder, "climb", lambda *_, **__: found)
    (tmp_path / "file").write_text("")
    assert ladder.climb_once(tmp_path / "file" / "data", NAVIER_STOKES, [1], given, device=CPU) == found
    assert "won't be kept" in capsys.readouterr().err


# Time for an error ---------------------------------------------------------------------------------------------------


def rung(error: float, seconds: float) -> Rung:
    return Rung("", 1.0, error, 10 * seconds, seconds)


def test_time_for_an_error_is_interpolated_in_logarithms_along_the_lower_envelope() -> None:
    # The third is slower and worse than the second and bounds nothing.
    rungs = [rung(0.1, 0.01), rung(0.001, 1.0), rung(0.01, 5.0)]
    assert seconds_at_error(rungs, 0.01) == (pytest.approx(0.1), "")
    assert seconds_at_error(rungs, 0.1) == (pytest.approx(0.01), "")
    assert seconds_at_error(rungs, 0.01, of="latency_seconds") == (pytest.approx(1.0), "")


def test_beyond_the_ends_of_the_curve_the_time_is_a_bound() -> None:
    rungs = [rung(0.1, 0.01), rung(0.001, 1.0)]
    assert seconds_at_error(rungs, 1e-4) == (pytest.approx(1.0), ">")
    assert seconds_at_error(rungs, 0.5) == (pytest.approx(0.01), "<")


def test_speedups_time_the_rungs_on_either_side_of_the_error_beside_the_surrogate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = windows(NAVIER_STOKES, tmp_path, history=2, horizon=2)
    rungs = [
        Rung("32x32", 1.0, 0.001, 1.0, 0.9, batch_size=3),
        Rung("16x16", 2.0, 0.1, 1.0, 0.5, batch_size=2),
        Rung("8x8", 2.0, 0.2, 1.0, 0.8, batch_size=2),  # above the envelope
    ]
    asked = []

    def in_turns(predictors: Sequence[tuple[Any, int]], *_: Any, rounds: int, **__: Any) -> list[list[float]]:
        asked.append([(type(who).__name__, size) for who, size in predictors])
        return [[2.0, 8.0, 2.0] if len(predictors) == 3 else [2.0, 6.0]] * rounds

    monkeypatch.setattr(ladder, "in_turns", in_turns)
    surrogate = CoarseSolver(NAVIER_STOKES, given.source.spec.grid)
    between, beyond = (
        ladder.speedups(surrogate, 1, rungs, NAVIER_STOKES, given, error, device=CPU) for error in (0.01, 0.5)
    )
    assert asked == [[("CoarseSolver", size) for size in (1, 3, 2)], [("CoarseSolver", size) for size in (1, 2)]]
    assert between == pytest.approx([2.0] * ladder.ROUNDS)  # the root of 8 x 2, over 2
    assert beyond == pytest.approx([3.0] * ladder.ROUNDS)


def test_without_a_rung_there_is_no_time() -> None:
    with pytest.raises(ValueError, match="no rung"):
        seconds_at_error([], 0.1)


def test_the_solves_after_which_a_surrogate_pays_for_itself() -> None:
    assert breakeven_solves(300.0, 0.5, 0.2) == pytest.approx(1000)
    assert breakeven_solves(300.0, 0.2, 0.2) == math.inf
    assert breakeven_solves(300.0, 0.1, 0.2) == math.inf
