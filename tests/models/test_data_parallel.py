"""A training step shared by two processes, each with half of the batch, is the step of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_model_contract import MODELS, build, channels, grid_of, smoke, smooth_fields
from torch import Tensor, distributed, nn
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

N_PROCESSES = 2
LEARNING_RATE = 0.1


def fields(model: str) -> tuple[Tensor, Tensor]:
    """Six samples and their targets."""
    cfg = smoke(model)
    n_in, n_out = channels(cfg)
    return tuple(
        torch.cat([smooth_fields(grid_of(cfg), n, seed=first + i, dtype=torch.float64) for i in range(2)])
        for n, first in ((n_in, 0), (n_out, 50))
    )


def step(operator: nn.Module, x: Tensor, target: Tensor) -> None:
    optimizer = torch.optim.SGD(operator.parameters(), lr=LEARNING_RATE)
    (operator(x) - target).square().mean().backward()
    optimizer.step()


def share(rank: int, folder: str, models: list[str]) -> None:
    """What one of the processes does."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=N_PROCESSES)
    for model in models:
        # Other weights in every process: those of the first have to reach the others.
        operator = build(smoke(model), seed=rank, dtype=torch.float64)
        x, target = (part.chunk(N_PROCESSES)[rank] for part in fields(model))
        step(DistributedDataParallel(operator), x, target)
        torch.save(operator.state_dict(), Path(folder, f"{model}-{rank}.pt"))
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.exhaustive  # tests/runtime/test_processes.py trains one in any case
def test_a_step_of_two_processes_equals_that_of_one(tmp_path: Path) -> None:
    models = [model for model in MODELS if list(build(smoke(model), prepare=False).parameters())]
    spawn(share, (str(tmp_path), models), nprocs=N_PROCESSES)
    for model in models:
        operator = build(smoke(model), dtype=torch.float64)
        before = {name: tensor.clone() for name, tensor in operator.state_dict().items()}
        step(operator, *fields(model))
        assert any(not torch.equal(tensor, before[name]) for name, tensor in operator.state_dict().items())
        for rank in range(N_PROCESSES):
            found = torch.load(tmp_path / f"{model}-{rank}.pt", weights_only=True)
            for name, tensor in operator.state_dict().items():
                torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12, msg=f"{model}: {name}")
