"""Surrogate and rollout: units, layout of time in channels, bundles, residuals, modes of a module."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.batch import Batch
from neuralop_bench.models.deeponet import DeepONet
from neuralop_bench.models.galerkin import GalerkinTransformer
from neuralop_bench.models.space_time import SpaceTime
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.rollout import rollout
from neuralop_bench.surrogate.surrogate import Surrogate


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normalizer(increment_std: Tensor | None = None) -> Normalizer:
    """Two state channels and one static field."""
    lags = torch.empty(0, 2, dtype=torch.float64) if increment_std is None else increment_std
    return Normalizer(tensor(1, -2), tensor(2, 4), tensor(10), tensor(5), lags)


class Spy(nn.Module):
    """Keeps its input and whether it was in training mode; returns a given output."""

    def __init__(self, output: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.output = output
        self.seen: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        self.modes.append(self.training)
        return self.output(x)


# Rollout -------------------------------------------------------------------------------------------------------------


def counting_step(bundle: int, calls: list[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A step that goes on counting from the last frame, ``bundle`` numbers at a time."""

    def step(history: Tensor, static: Tensor) -> Tensor:
        calls.append(history[:, :, 0, 0].clone())
        last = history[:, -1:] if history.shape[1] else static[:, None, :1]
        return torch.cat([last + j for j in range(1, bundle + 1)], dim=1)

    return step


@pytest.mark.parametrize("n_history", [1, 2, 3, 5])
@pytest.mark.parametrize("bundle", [1, 2, 3, 4])
@pytest.mark.parametrize("n_steps", [1, 3, 4, 7])
def test_rollout_goes_on_from_its_own_output(n_history: int, bundle: int, n_steps: int) -> None:
    history = torch.arange(1.0 - n_history, 1.0).view(1, n_history, 1, 1)
    calls: list[Tensor] = []
    prediction = rollout(counting_step(bundle, calls), history, torch.zeros(1, 1, 1), n_steps)
    # The last bundle is cut to the number of steps asked for.
    assert prediction[0, :, 0, 0].tolist() == [float(t) for t in range(1, n_steps + 1)]
    assert len(calls) == math.ceil(n_steps / bundle)
    # Each call is given the latest n_history frames, oldest first, whether the bundle is shorter or longer than that.
    for call, given in enumerate(calls):
        assert given[0].tolist() == [float(call * bundle - n_history + 1 + i) for i in range(n_history)]


def test_rollout_without_a_history_is_one_call_on_the_static_fields() -> None:
    calls: list[Tensor] = []
    history, static = torch.empty(2, 0, 1, 4), torch.tensor([10.0, 20.0]).view(2, 1, 1).expand(2, 1, 4)
    prediction = rollout(counting_step(1, calls), history, static, 1)
    assert prediction.shape == (2, 1, 1, 4)
    assert prediction[:, 0, 0, 0].tolist() == [11.0, 21.0]
    assert [given.shape for given in calls] == [(2, 0)]
    bundled = rollout(counting_step(3, calls), history, static, 2)
    assert bundled[:, :, 0, 0].tolist() == [[11.0, 12.0], [21.0, 22.0]]


def test_rollout_is_differentiable_through_all_steps() -> None:
    factor = torch.tensor(2.0, requires_grad=True)
    history = torch.ones(1, 1, 1, 1)
    last = rollout(lambda h, _: factor * h, history, torch.zeros(1, 0, 1), 3)[:, -1].sum()
    last.backward()
    assert float(last.detach()) == 8.0
    assert factor.grad is not None
    assert float(factor.grad) == 12.0  # d factor^3 / d factor


# Surrogate -----------------------------------------------------------------------------------------------------------


def test_operator_sees_the_normalised_history_oldest_first_then_the_static_fields() -> None:
    spy = Spy(lambda _: torch.zeros(1, 2, 3))
    history = torch.tensor([[[1.0, -2.0], [3.0, 2.0], [5.0, 10.0]]])[..., None].expand(1, 3, 2, 3)
    static = torch.full((1, 1, 3), 25.0)
    Surrogate(spy, normalizer())(history, static)
    (seen,) = spy.seen
    assert seen.shape == (1, 3 * 2 + 1, 3)
    # (state - mean) / std with means (1, -2) and deviations (2, 4); the static field is (25 - 10) / 5.
    assert seen[0, :, 0].tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 3.0]
    assert seen.dtype == torch.float32


def test_direct_prediction_is_the_denormalised_output() -> None:
    # Bundle of 2 steps with 2 channels: channels vary fastest.
    spy = Spy(lambda _: torch.tensor([1.0, 1.0, 0.0, -1.0]).view(1, 4, 1).expand(1, 4, 3))
    prediction = Surrogate(spy, normalizer(), bundle=2)(torch.full((1, 1, 2, 3), 7.0), torch.zeros(1, 1, 3))
    assert prediction.shape == (1, 2, 2, 3)
    assert prediction[0, :, :, 0].tolist() == [[3.0, 2.0], [1.0, -6.0]]


def test_residual_prediction_adds_scaled_increments_to_the_last_frame() -> None:
    spy = Spy(lambda _: torch.tensor([1.0, 1.0, 2.0, -1.0]).view(1, 4, 1).expand(1, 4, 3))
    increments = torch.tensor([[0.5, 3.0], [0.25, 7.0]], dtype=torch.float64)
    surrogate = Surrogate(spy, normalizer(increments), bundle=2, residual=True)
    history = torch.tensor([[100.0, 200.0], [10.0, 20.0]]).view(1, 2, 2, 1).expand(1, 2, 2, 3)
    prediction = surrogate(history, torch.zeros(1, 1, 3))
    # Both steps start from the last history frame (10, 20), not from each other.
    assert prediction[0, :, :, 0].tolist() == [[10.5, 23.0], [10.5, 13.0]]


def test_residual_without_a_history_is_an_error_that_names_the_knob() -> None:
    surrogate = Surrogate(Spy(lambda _: torch.zeros(1, 2, 3)), normalizer(torch.ones(1, 2).double()), residual=True)
    with pytest.raises(ValueError, match=r"history is empty\. Use surrogate\.residual=false"):
        surrogate(torch.empty(1, 0, 2, 3), torch.zeros(1, 1, 3))


def test_a_steady_problem_is_predicted_from_static_fields_alone() -> None:
    spy = Spy(lambda x: torch.cat([x, 2 * x], dim=1))
    batch = Batch(torch.empty(2, 0, 2, 3), torch.full((2, 1, 3), 15.0), torch.full((2, 1, 2, 3), math.nan))
    prediction = Surrogate(spy, normalizer()).predict(batch, 1)
    assert spy.seen[0].tolist() == torch.ones(2, 1, 3).tolist()
    assert prediction[0, 0, :, 0].tolist() == [3.0, 6.0]


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 2, 4), (2, 2, 3), (1, 2, 3, 1)])
def test_an_operator_whose_output_has_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    surrogate = Surrogate(Spy(lambda _: torch.zeros(shape)), normalizer())
    with pytest.raises(ValueError, match=r"returned fields of shape .*, expected \(1, 2, 3\)"):
        surrogate(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 3))


@pytest.mark.parametrize("was_training", [True, False])
def test_prediction_runs_in_evaluation_mode_without_gradients_and_restores_the_mode(was_training: bool) -> None:
    spy = Spy(lambda x: scale * x[:, :2])
    scale = nn.Parameter(torch.ones(()))
    surrogate = Surrogate(spy, normalizer()).train(was_training)
    batch = Batch(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 3), torch.full((1, 4, 2, 3), math.nan))
    prediction = surrogate.predict(batch, 4)
    assert prediction.shape == (1, 4, 2, 3)
    assert not prediction.requires_grad
    assert torch.isfinite(prediction).all()  # the target isn't read
    assert spy.modes == [False] * 4
    assert (surrogate.training, spy.training) == (was_training, was_training)


def test_the_mode_is_restored_after_an_error() -> None:
    surrogate = Surrogate(Spy(lambda _: torch.zeros(1)), normalizer()).train()
    batch = Batch(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 3), torch.ones(1, 1, 2, 3))
    with pytest.raises(ValueError, match="returned fields of shape"):
        surrogate.predict(batch, 1)
    assert surrogate.training


def test_parameters_are_counted_in_real_numbers_and_only_if_trained() -> None:
    operator = nn.Module()
    operator.real = nn.Parameter(torch.zeros(3, 4))
    operator.complex = nn.Parameter(torch.zeros(5, dtype=torch.complex64))
    operator.frozen = nn.Parameter(torch.zeros(100), requires_grad=False)
    operator.register_buffer("constant", torch.zeros(100))
    assert Surrogate(operator, normalizer()).n_parameters == 12 + 2 * 5


def test_state_of_a_surrogate_holds_the_statistics() -> None:
    # A checkpoint alone must predict in physical units.
    fresh = Normalizer(tensor(0, 0), tensor(1, 1), tensor(0), tensor(1), torch.ones(0, 2).double())
    other = Surrogate(nn.Identity(), fresh)
    other.load_state_dict(Surrogate(nn.Identity(), normalizer()).state_dict())
    assert other.normalizer.state_mean.tolist() == [1.0, -2.0]
    assert other.normalizer.static_std.tolist() == [5.0]


CLOSED = Grid((32, 32), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))


@pytest.mark.parametrize(
    ("build", "needs"),
    [
        (lambda **sizes: DeepONet(**sizes, hard_dirichlet=True), True),
        (lambda **sizes: DeepONet(**sizes, hard_dirichlet=False), False),
        (lambda **sizes: GalerkinTransformer(**sizes, dirichlet_ring=True), True),
        (lambda **sizes: GalerkinTransformer(**sizes, dirichlet_ring=False), False),
        (
            lambda **sizes: SpaceTime(**{**sizes, "out_channels": 4}, operator=lambda **_: Spy(torch.clone), n_steps=2),
            False,
        ),
    ],
    ids=["walls", "no walls", "ring", "no ring", "space and time"],
)
def test_training_pairs_are_gathered_only_for_an_operator_that_needs_them(
    build: Callable[..., nn.Module], needs: bool
) -> None:
    class Asked(Exception):
        pass

    def pairs() -> Iterator[Batch]:
        raise Asked
        yield

    surrogate = Surrogate(build(in_channels=3, out_channels=2, grid=CLOSED), normalizer())
    if needs:
        with pytest.raises(Asked):
            surrogate.prepare(pairs())
    else:
        surrogate.prepare(pairs())
