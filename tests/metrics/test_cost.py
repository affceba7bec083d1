"""Costs: which calls are timed (no test measures time itself), operations against closed forms, memory."""

import math
import mmap
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.batch import Batch
from neuralop_bench.metrics.cost import forward_flops, in_turns, peak_memory_mb, prediction_cost, reset_peak_memory
from neuralop_bench.models.fno import FNO


class FewWindows:
    """As much of ``Windows`` as the cost needs: trajectories of three steps."""

    n_steps = 3

    def __init__(self, n: int) -> None:
        self._n = n
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, indices: list[int]) -> Batch:
        self.asked.append(indices)
        space = Grid.periodic(4).shape
        b = len(indices)
        return Batch(torch.zeros(b, 1, 1, *space), torch.zeros(b, 0, *space), torch.zeros(b, 3, 1, *space))


class Clock:
    """Stands in for ``time``; the predictor it makes is all that advances it: by ``seconds(batch size, call)``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int, int], float]) -> None:
        self.now, self.calls, self._seconds = 0.0, Counter[int](), seconds
        monkeypatch.setattr("neuralop_bench.metrics.cost.time.perf_counter", lambda: self.now)

    def predict(self, batch: Batch, n_steps: int) -> Tensor:
        assert n_steps == 3
        size = len(batch.target)
        self.now += self._seconds(size, self.calls[size])
        self.calls[size] += 1
        return batch.target


def test_latency_and_throughput_are_medians_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first call of a size takes 1000 s. Then all four trajectories are predicted five times, in calls that take
    # 1/3, 2/3 ... of (b + 1) / 100 s for b of them.
    clock = Clock(monkeypatch, lambda b, call: (b + 1) * math.ceil(call * b / 4) / 300 if call else 1000)
    cost = prediction_cost(clock, FewWindows(4), device=torch.device("cpu"))
    # The median is the third time: (b + 1) / 100 s.
    assert cost["latency_ms"] == pytest.approx(20)
    assert cost["throughput"] == pytest.approx(100 * 4 / 5)
    assert cost["throughput_batch_size"] == 4
    assert clock.calls == {1: 21, 4: 6}


def test_batches_grow_until_they_are_slower_or_hold_the_whole_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(n: int, seconds: Callable[[int, int], float]) -> tuple[dict[str, float], list[int]]:
        clock = Clock(monkeypatch, seconds)
        return prediction_cost(clock, FewWindows(n), device=torch.device("cpu")), list(clock.calls)

    found, tried = cost(50, lambda *_: 0.001)
    assert (found["throughput_batch_size"], tried) == (50, [1, 4, 16, 50])
    found, tried = cost(1000, lambda *_: 0.001)
    assert tried == [1, 4, 16, 64, 256]
    # Beyond four samples memory is the limit. One slower size isn't enough to give up.
    found, tried = cost(1000, lambda b, _: 0.001 * max(1, b / 4) ** 1.5)
    assert (found["throughput_batch_size"], tried) == (4, [1, 4, 16, 64])
    assert found["throughput"] == pytest.approx(4000)
    found, tried = cost(1000, lambda b, _: 0.01 if b == 4 else 0.001)
    assert (found["throughput_batch_size"], tried) == (256, [1, 4, 16, 64, 256])


def test_what_is_predicted_is_spread_over_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    given = FewWindows(96)
    prediction_cost(Clock(monkeypatch, lambda *_: 0.001), given, device=torch.device("cpu"))
    assert given.asked[:32] == [[i] for i in range(0, 96, 3)]
    assert given.asked[32:40] == [list(range(i, i + 12, 3)) for i in range(0, 96, 12)]
    assert given.asked[42] == [i * 96 // 64 for i in range(64)]


def test_turns_are_timed_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the five calls of a turn, the first takes 10 s.
    first, second = (Clock(monkeypatch, lambda _, call: 1.0 if call % 5 else 10.0) for _ in range(2))
    monkeypatch.setattr("neuralop_bench.metrics.cost.time.perf_counter", lambda: first.now + second.now)
    found = in_turns([(first, 1), (second, 1)], FewWindows(4), rounds=3, device=torch.device("cpu"))
    assert found == [[1.0, 1.0]] * 3


def test_slow_predictions_are_repeated_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, lambda b, _: 30.0 * b)
    assert prediction_cost(clock, FewWindows(1), device=torch.device("cpu"))["latency_ms"] == pytest.approx(30e3)
    assert clock.calls == {1: 2}


def fno_flops(n: int, n_dims: int, *, width: int, n_modes: int, n_layers: int, projection_width: int) -> float:
    """One field of one channel on n^d points: pointwise maps, products of modes, and two transforms per layer and axis.

    The transforms are products with the kept modes of an axis: of real values on the last one, and of complex values on
    the others, for the kept modes of those after them alone.
    """
    points = n**n_dims
    pointwise = 2 * points * ((1 + n_dims) * width + n_layers * width**2 + (width + 1) * projection_width)
    mixing = 8 * width**2 * n_modes * (2 * n_modes) ** (n_dims - 1)
    transforms = 0.0
    for axis in range(n_dims):
        columns = n ** (n_dims - 1 - axis) * (n_modes * (2 * n_modes) ** (axis - 1) if axis else 1)
        transforms += 2 * 2 * width * columns * ((2 * n) * (2 * 2 * n_modes) if axis else n * 2 * n_modes)
    return pointwise + n_layers * (mixing + transforms)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("n", "n_dims"), [(64, 1), (32, 2), (16, 3)])
def test_operations_of_an_fno_are_those_of_its_closed_form(n: int, n_dims: int, device: str) -> None:
    sizes = {"width": 8, "n_modes": 6, "n_layers": 3, "projection_width": 20}
    with torch.device(device):
        model = FNO(in_channels=1, out_channels=1, grid=Grid.periodic(n, n_dims=n_dims), **sizes)
        inputs = torch.zeros(1, 1, *(n,) * n_dims)
    assert forward_flops(model, inputs) == round(fno_flops(n, n_dims, **sizes))
    assert forward_flops(model, inputs.expand(3, *inputs.shape[1:])) == 3 * round(fno_flops(n, n_dims, **sizes))


def test_complex_products_count_four_times_real_ones() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("bi,io->bo", x, x.new_ones(5, 7))

    assert forward_flops(Product(), torch.ones(3, 5)) == 2 * 3 * 5 * 7
    assert forward_flops(Product(), torch.ones(3, 5, dtype=torch.complex64)) == 8 * 3 * 5 * 7


def test_convolutions_count() -> None:
    model = nn.Conv2d(3, 4, kernel_size=3, padding=1)
    assert forward_flops(model, torch.ones(2, 3, 10, 10)) == 2 * 2 * 100 * 3 * 4 * 9


@pytest.mark.skipif("sys.platform != 'linux'", reason="measured by the Linux kernel")
def test_peak_memory_is_that_since_the_last_reset() -> None:
    device = torch.device("cpu")
    reset_peak_memory(device)
    before = peak_memory_mb(device)
    with mmap.mmap(-1, 100 * 2**20) as block:  # not from the allocator, which may have that much left
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
    during = peak_memory_mb(device)
    assert before is not None
    assert during is not None
    assert during > before + 90
