"""What a prediction costs: what is timed, never how long it takes; operations against closed forms; memory."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.batch import Batch
from neuralop_bench.metrics.cost import forward_flops, peak_memory_mb, prediction_cost, reset_peak_memory
from neuralop_bench.models.fno import FNO


class FourWindows:
    """As much of ``Windows`` as the cost needs: four trajectories of three steps."""

    n_steps = 3

    def __len__(self) -> int:
        return 4

    def __getitem__(self, indices: list[int]) -> Batch:
        space = Grid.periodic(4).shape
        b = len(indices)
        return Batch(torch.zeros(b, 1, 1, *space), torch.zeros(b, 0, *space), torch.zeros(b, 3, 1, *space))


def test_whole_trajectories_are_timed_alone_and_at_every_batch_size_the_split_holds() -> None:
    calls: list[tuple[int, int]] = []

    class Predictor:
        def predict(self, batch: Batch, n_steps: int) -> Tensor:
            calls.append((len(batch.target), n_steps))
            return batch.target

    cost = prediction_cost(Predictor(), FourWindows(), batch_sizes=(2, 16), device=torch.device("cpu"))
    assert cost.keys() == {"latency_ms", "throughput"}
    assert min(cost.values()) > 0
    assert set(calls) == {(2, 3), (4, 3), (1, 3)}


def test_latency_and_throughput_are_medians_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that only predictions advance: 1000 s for the first of a size, then 1/3, 2/3 ... of b + 1 s for b samples.
    now, n_calls = [0.0], Counter[int]()

    class Predictor:
        def predict(self, batch: Batch, n_steps: int) -> Tensor:
            assert n_steps == 3
            b = len(batch.target)
            now[0] += (b + 1) * n_calls[b] / 3 if n_calls[b] else 1000
            n_calls[b] += 1
            return batch.target

    monkeypatch.setattr("neuralop_bench.metrics.cost.time.perf_counter", lambda: now[0])
    cost = prediction_cost(Predictor(), FourWindows(), batch_sizes=(2, 3), device=torch.device("cpu"))
    # Five timed repeats: the median is the third, b + 1 s.
    assert cost["latency_ms"] == pytest.approx(2000)
    assert cost["throughput"] == pytest.approx(3 / 4)


def fno_flops(n: int, n_dims: int, *, width: int, n_modes: int, n_layers: int, projection_width: int) -> float:
    """One field of one channel on n^d points: pointwise maps, products of modes, and two transforms per layer and axis.

    The transform of the last axis is real; the others work on its kept modes alone.
    """
    points = n**n_dims
    pointwise = 2 * points * ((1 + n_dims) * width + n_layers * width**2 + (width + 1) * projection_width)
    mixing = 8 * width**2 * n_modes * (2 * n_modes) ** (n_dims - 1)
    transforms = 0.0
    for axis in range(n_dims):
        kept = n ** (n_dims - axis) * n_modes * (2 * n_modes) ** (axis - 1) if axis else points
        transforms += 2 * 5 * width * kept * math.log2(n) * (1.0 if axis else 0.5)
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
    block = torch.ones(100 * 2**18)  # 100 MiB
    del block
    during = peak_memory_mb(device)
    assert before is not None
    assert during is not None
    assert during > before + 90
