"""Networks that correct a coarse solver: what they are given, what they add to, and how large that is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from data_gen.generation.random_streams import generator
from data_gen.problems.burgers1d import Burgers1D
from data_gen.problems.darcy2d import Darcy2D
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.random_fields import LogUniform
from data_gen.spec import Problem
from neuralop_bench import Surrogate, pipeline
from neuralop_bench.batch import Batch
from neuralop_bench.config import constructors
from neuralop_bench.config.identity import run_directory
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.layers.options import Inapplicable
from neuralop_bench.surrogate.coarse_solver import CoarseSolver
from neuralop_bench.surrogate.normalization import Normalizer

NAVIER_STOKES = NavierStokes2D(viscosity=1e-3, resolution=16, interval=1.0, n_snapshots=5)


class Returns(nn.Module):
    """Keeps what it is given."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        self.given = x
        return self.answer


def batch_of(problem: Problem, n_history: int, n_steps: int) -> Batch:
    samples = problem.simulate([generator(0, "train", i) for i in range(3)])
    frames, static = (torch.from_numpy(x).float() for x in (samples.trajectory, samples.static))
    return Batch(frames[:, :n_history], static, frames[:, n_history : n_history + n_steps])


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(
    ("problem", "n_history", "n_steps"), [(NAVIER_STOKES, 2, 2), (Darcy2D(resolution=17, solver_resolution=33), 0, 1)]
)
def test_a_network_that_knows_what_the_solver_lacks_is_exact(
    problem: Problem, n_history: int, n_steps: int, residual: bool
) -> None:
    solver = CoarseSolver.correctable(problem, 0.5, relaxation=1.0)
    batch = batch_of(problem, n_history, n_steps)
    start = solver.predict(batch, n_steps)
    surrogate = Surrogate(
        Returns(torch.empty(0)),
        Normalizer.fit([batch], bundle=n_steps),
        bundle=n_steps,
        residual=residual,
        solver=solver,
    )
    surrogate.measure_corrections([batch, batch])
    lacking = (batch.target - start).square().mean(dim=(0, 2, *range(3, start.ndim))).sqrt()
    torch.testing.assert_close(surrogate.normalizer.increment_std[:, 0].float(), lacking)
    operator = Returns(surrogate.encode_target(batch.history, batch.static, batch.target))
    surrogate.operator = operator
    torch.testing.assert_close(surrogate(batch.history, batch.static), batch.target)
    n_given = n_history + n_steps
    assert operator.given.shape[1] == n_given + batch.static.shape[1]
    torch.testing.assert_close(operator.given[:, n_history:n_given], surrogate.normalizer.encode_state(start)[:, :, 0])
    if residual:
        operator.answer = torch.zeros_like(operator.answer)
        torch.testing.assert_close(surrogate(batch.history, batch.static), start)


def test_parameters_that_the_network_hides_from_the_solver_are_refused() -> None:
    with pytest.raises(Inapplicable, match=r"Use surrogate\.solver=null"):
        CoarseSolver.correctable(Burgers1D(viscosity=LogUniform(1e-3, 1e-2), resolution=64), 0.5, relaxation=1.0)


def test_another_grid_is_refused() -> None:
    solver = CoarseSolver.correctable(NAVIER_STOKES, 0.5, relaxation=1.0)
    with pytest.raises(ValueError, match="the grid of its training alone"):
        solver.predict(Batch.given(torch.zeros(1, 2, 1, 32, 32)), 1)


def test_persistence_with_a_solver_is_the_solver_and_is_loaded_with_it(smoke: Callable[..., RunConfig]) -> None:
    cfg = smoke("model=persistence", "surrogate=corrected", "surrogate.solver=0.25", "surrogate.solver_steps=2")
    pipeline.run(cfg)
    problem = constructors.build(cfg.dataset.problem)
    solver = CoarseSolver.correctable(problem, 0.25, relaxation=2.0)
    batch = batch_of(problem, cfg.dataset.history, 0)
    first = solver.predict(batch, 1)
    second = solver.predict(batch._replace(history=first), 1)
    expected = torch.cat([first, second], dim=1)
    torch.testing.assert_close(Surrogate.load(run_directory(cfg)).predict(batch, 2), expected)
