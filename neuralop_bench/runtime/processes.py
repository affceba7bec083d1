"""The processes that share one run: one alone, or those that torchrun, ``accelerate launch`` or Slurm have started.

Every process does the same work on its part of the samples; the first alone writes and prints. They find each other by
Accelerate, which is imported only where there are several.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from neuralop_bench.runtime.environment import resolve_device
from neuralop_bench.runtime.process_group import OtherProcessFailed, n_processes

# Others wait as long for the first, which draws pictures and times predictions alone.
_PATIENCE = timedelta(hours=6)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Processes:
    """Attributes:
    rank: number of this process; 0 is the first.
    n: how many there are.
    device: of this process.
    """

    rank: int = 0
    n: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part_of(self, n_items: int) -> slice:
        """This process's share of ``n_items`` consecutive items; of sizes that differ by one at most, perhaps empty.

        >>> [Processes(rank, 3).part_of(4) for rank in range(3)]
        [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
        """
        size, longer = divmod(n_items, self.n)
        first = self.rank * size + min(self.rank, longer)
        return slice(first, first + size + (self.rank < longer))

    def gathered(self, items: Sequence[_T]) -> list[_T]:
        """The items of all processes, in the order of their ranks; every process gets them all."""
        if self.n == 1:
            return list(items)
        from accelerate.utils import gather_object

        return gather_object(list(items))

    def interleaved(self, items: Sequence[_T]) -> list[_T]:
        """The items of all processes, each of which has every so many-th, in their order."""
        if self.n == 1:
            return list(items)
        numbered = [(self.rank + self.n * i, item) for i, item in enumerate(items)]
        return [item for _, item in sorted(self.gathered(numbered), key=lambda entry: entry[0])]

    def summed(self, value: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.n == 1:
            return value
        from accelerate.utils import reduce

        return cast(Tensor, reduce(value, "sum"))

    def wait(self) -> None:
        """Until all have come this far."""
        if self.n > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def first_does(self, action: Callable[[], _T]) -> _T:
        """What ``action`` returns in the first process, which alone calls it; a picklable value.

        Raises:
            OtherProcessFailed: in the others, if it failed there.
            Exception: its own, in the first.
        """
        if self.n == 1:
            return action()
        from accelerate.utils import broadcast_object_list

        outcome: list[Any] = [None, False]
        if not self.is_first:
            value, failed = broadcast_object_list(outcome)
            if failed:
                raise OtherProcessFailed("The first process can't go on; its message says why.")
            return value
        try:
            outcome = [action(), False]
        except BaseException:
            broadcast_object_list([None, True])
            raise
        broadcast_object_list(outcome)
        return outcome[0]

    def sharing(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes; itself if there is one process alone."""
        if self.n == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices)

    def align(self, module: nn.Module) -> None:
        """Give every process the first one's buffers: running statistics differ where the samples do."""
        if self.n > 1:
            from accelerate.utils import broadcast

            for buffer in module.buffers():
                buffer.copy_(cast(Tensor, broadcast(buffer)))

    @contextmanager
    def first_alone_speaks(self) -> Iterator[None]:
        """Nothing that the other processes print in the block is shown; an error is reported after it."""
        if self.is_first:
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield


ALONE = Processes()


def join(device: str) -> Processes:
    """The processes that this one belongs to, with a device for each.

    Args:
        device: auto, cpu, cuda, or cuda:<index>. With several processes on a node each takes the CUDA device of its
            number there.

    Raises:
        ValueError: no such device here, several processes without Accelerate, or an earlier job in them had a device
            of another kind.
    """
    _tell_torch_of_slurm()
    n = n_processes()
    if n == 1:
        return Processes(device=resolve_device(device))
    try:
        from accelerate import PartialState
    except ImportError:
        raise ValueError(
            f"{n} processes were started for one run, which takes Accelerate: pip install 'neuralop-bench[cluster]'. "
            "Or start one process."
        ) from None
    if device.startswith("cuda:"):
        raise ValueError(f"device={device} is one device, but {n} processes share this run. Use device=cuda or auto.")
    on_cpu = resolve_device(device).type == "cpu"
    state = PartialState(cpu=on_cpu, timeout=_PATIENCE)
    own = torch.device("cpu") if on_cpu else cast(torch.device, state.device)
    if resolve_device(device).type != cast(torch.device, state.device).type:
        raise ValueError(f"device={device}, but an earlier job in these processes took {state.device}. Start anew.")
    return Processes(state.process_index, state.num_processes, own)


def leave() -> None:
    """Part from the other processes, so that none waits for this one at its end."""
    if n_processes() > 1 and "accelerate" in sys.modules:
        from accelerate import PartialState

        PartialState().destroy_process_group()


def _tell_torch_of_slurm() -> None:
    """Say in torch's terms which of several tasks of a Slurm step, or of submitit's local executor, this process is."""
    if "WORLD_SIZE" in os.environ or n_processes() == 1:
        return
    try:
        from submitit.helpers import TorchDistributedEnvironment
    except ImportError:
        raise ValueError(
            f"{n_processes()} tasks were started for one run, which takes submitit and Accelerate: "
            "pip install 'neuralop-bench[cluster]'. Or start one task."
        ) from None
    os.environ.setdefault("SUBMITIT_EXECUTOR", "slurm")  # submitit looks for its own mark, which a plain srun hasn't
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
