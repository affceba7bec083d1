"""Normalizer: statistics against numpy in float64, increments by hand, channels that never vary."""

import math

import numpy as np
import pytest
import torch

from data_gen.problems.ks1d import KuramotoSivashinsky1D
from neuralop_bench.batch import Batch
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.surrogate import Surrogate


def fields(*shape: int, offset: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) + offset).astype(np.float32)


def batches(frames: np.ndarray, static: np.ndarray, history: int, sizes: list[int]) -> list[Batch]:
    u, a = torch.from_numpy(frames), torch.from_numpy(static)
    return [Batch(x[:, :history], s, x[:, history:]) for x, s in zip(u.split(sizes), a.split(sizes), strict=True)]


@pytest.mark.parametrize("sizes", [[7], [3, 3, 1], [1] * 7])
@pytest.mark.parametrize("history", [0, 2])
def test_statistics_are_those_of_all_frames_of_history_and_target(sizes: list[int], history: int) -> None:
    frames = (
        fields(7, 5, 2, 4, 6) * np.array([1, 30], np.float32)[:, None, None]
        + np.array([0, -7], np.float32)[:, None, None]
    )
    static = fields(7, 3, 4, 6, offset=2)
    fitted = Normalizer.fit(batches(frames, static, history, sizes), bundle=3)
    exact, exact_static = frames.astype(np.float64), static.astype(np.float64)
    np.testing.assert_allclose(fitted.state_mean, exact.mean(axis=(0, 1, 3, 4)), rtol=1e-13)
    np.testing.assert_allclose(fitted.state_std, exact.std(axis=(0, 1, 3, 4)), rtol=1e-13)
    np.testing.assert_allclose(fitted.static_mean, exact_static.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(fitted.static_std, exact_static.std(axis=(0, 2, 3)), rtol=1e-13)
    expected = [((exact[:, j:] - exact[:, :-j]) ** 2).mean(axis=(0, 1, 3, 4)) ** 0.5 for j in (1, 2, 3)]
    np.testing.assert_allclose(fitted.increment_std, np.stack(expected), rtol=1e-13)


def test_a_small_variation_on_a_large_offset_is_measured_in_double_precision() -> None:
    frames = fields(20, 3, 1, 16) * np.float32(2) + np.float32(2**16)
    fitted = Normalizer.fit(batches(frames, np.zeros((20, 0, 16), np.float32), 1, [6, 6, 6, 2]), bundle=1)
    assert fitted.state_std.dtype == torch.float64
    assert float(fitted.state_std) == pytest.approx(frames.astype(np.float64).std(), rel=1e-12)


def test_increments_by_hand() -> None:
    # One sample, one point: 0, 1, 3, 7. Increments of lag 1 are 1, 2, 4; of lag 2: 3, 6; lag 3: 7. Not centred.
    frames = np.array([0, 1, 3, 7], np.float32).reshape(1, 4, 1, 1)
    fitted = Normalizer.fit(batches(frames, np.zeros((1, 0, 1), np.float32), 2, [1]), bundle=3)
    expected = [math.sqrt(21 / 3), math.sqrt(45 / 2), 7.0]
    assert fitted.increment_std[:, 0].tolist() == pytest.approx(expected, rel=1e-14)


def test_a_steady_problem_has_no_increments_and_no_bundle_more_than_it_asks_for() -> None:
    static = fields(4, 1, 8)
    steady = Normalizer.fit(batches(fields(4, 1, 2, 8), static, 0, [3, 1]), bundle=1)
    assert steady.increment_std.shape == (0, 2)
    moving = Normalizer.fit(batches(fields(4, 6, 2, 8), static, 3, [3, 1]), bundle=2)
    assert moving.increment_std.shape == (2, 2)


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_a_channel_that_never_varies_is_encoded_as_zero_and_decoded_as_its_value(value: float) -> None:
    frames = fields(7, 3, 2, 5, 5)
    frames[:, :, 1] = value
    static = np.full((7, 1, 5, 5), value, np.float32)
    data = batches(frames, static, 1, [3, 3, 1])
    fitted = Normalizer.fit(data, bundle=2)
    assert fitted.state_std[1] == fitted.static_std[0] == 0
    assert fitted.increment_std[:, 1].tolist() == [0, 0]
    assert fitted.increment_std[:, 0].min() > 1.0  # sqrt 2 for independent noise
    assert fitted.encode_state(data[0].target)[:, :, 1].abs().max() == 0
    assert fitted.encode_static(data[0].static).abs().max() == 0
    anything = torch.randn(2, 2, 2, 5, 5)
    assert (fitted.decode_state(anything)[:, :, 1] == torch.tensor(value)).all()
    assert fitted.decode_increment(anything)[:, :, 1].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_encoding_standardises_and_decoding_undoes_it_in_the_precision_of_the_data(dtype: torch.dtype) -> None:
    frames = (
        fields(7, 4, 2, 6) * np.array([1e-3, 1e3], np.float32)[:, None] + np.array([5e-3, -1e3], np.float32)[:, None]
    )
    data = batches(frames, fields(7, 1, 6, offset=4), 2, [7])
    fitted = Normalizer.fit(data, bundle=1)
    states = torch.from_numpy(frames).to(dtype)
    encoded = fitted.encode_state(states)
    assert encoded.dtype == dtype
    for channel in range(2):
        assert float(encoded[:, :, channel].mean()) == pytest.approx(0, abs=1e-5)
        assert float(encoded[:, :, channel].std(correction=0)) == pytest.approx(1, rel=1e-5)
    encoded_static = fitted.encode_static(data[0].static)
    assert float(encoded_static.mean()) == pytest.approx(0, abs=1e-5)
    assert float(encoded_static.std(correction=0)) == pytest.approx(1, rel=1e-5)
    rounding = (fitted.decode_state(encoded) - states) / fitted.state_std[:, None]
    assert rounding.abs().max() < 4 * torch.finfo(dtype).eps


def test_increments_are_decoded_lag_by_lag_without_an_offset() -> None:
    lags = torch.tensor([[2.0, 3.0], [5.0, 7.0]], dtype=torch.float64)
    one = torch.ones(2, dtype=torch.float64)
    fitted = Normalizer(100 * one, one, one[:0], one[:0], lags)
    decoded = fitted.decode_increment(torch.ones(1, 2, 2, 3))
    assert decoded[0, :, :, 0].tolist() == [[2.0, 3.0], [5.0, 7.0]]
    # A shorter bundle takes the first lags.
    assert fitted.decode_increment(torch.ones(1, 1, 2, 3))[0, :, :, 0].tolist() == [[2.0, 3.0]]


def test_a_bundle_longer_than_the_measured_increments_is_refused() -> None:
    # Broadcasting a single measured lag over all steps would scale the later ones wrongly without a word.
    one = torch.ones(2, dtype=torch.float64)
    fitted = Normalizer(one, one, one[:0], one[:0], torch.ones(1, 2, dtype=torch.float64))
    with pytest.raises((ValueError, RuntimeError)):
        fitted.decode_increment(torch.ones(1, 3, 2, 4))


def test_statistics_are_per_channel_so_they_fit_any_grid() -> None:
    fitted = Normalizer.fit(batches(fields(4, 3, 2, 8, 8), fields(4, 1, 8, 8), 1, [4]), bundle=1)
    assert {name: tuple(buffer.shape) for name, buffer in fitted.named_buffers()} == {
        "state_mean": (2,),
        "state_std": (2,),
        "static_mean": (1,),
        "static_std": (1,),
        "increment_std": (1, 2),
    }
    assert fitted.encode_state(torch.ones(1, 1, 2, 5, 7)).shape == (1, 1, 2, 5, 7)
    # A field that varies in space only is scaled by one number: its shape survives.
    ramp = torch.arange(6.0).expand(1, 1, 2, 6)
    differences = fitted.encode_state(ramp).diff(dim=-1)
    torch.testing.assert_close(differences, differences[..., :1].expand_as(differences))


def test_fitting_needs_no_static_fields() -> None:
    fitted = Normalizer.fit(batches(fields(4, 3, 1, 8), np.zeros((4, 0, 8), np.float32), 1, [3, 1]), bundle=1)
    assert fitted.static_mean.shape == (0,)
    assert fitted.encode_static(torch.zeros(2, 0, 8)).shape == (2, 0, 8)


@pytest.mark.parametrize("residual", [False, True])
def test_without_normalisation_an_operator_gets_and_gives_physical_fields(residual: bool) -> None:
    problem = KuramotoSivashinsky1D(resolution=16, interval=0.5, n_snapshots=3, warm_up=0.0)
    normalizer = Normalizer.none(problem.spec, bundle=2)
    history, change = 3 * torch.ones(1, 1, 1, 16), 5 * torch.ones(1, 2, 16)
    operator = _Recording(change)
    predicted = Surrogate(operator, normalizer, bundle=2, residual=residual)(history, torch.zeros(1, 0, 16))
    assert torch.equal(operator.given, history[:, 0])
    assert torch.equal(predicted, change[:, :, None] + 3 * residual)
    assert normalizer.scale.tolist() == [1.0]


class _Recording(torch.nn.Module):
    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.given, self._output = torch.empty(0), output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.given = x
        return self._output
