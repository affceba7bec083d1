"""prediction_cost: what is timed, never how long it takes."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from data_gen.grids import Grid
from neuralop_bench.batch import Batch
from neuralop_bench.metrics.cost import prediction_cost


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
