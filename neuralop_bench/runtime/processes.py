"""The processes that share one run: a single one, or several started by torchrun, ``accelerate launch`` or Slurm.

Every process does the same work on its part of the samples. Only the first one writes and prints. Accelerate connects
them; it is only imported if there are several.
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

# The others wait this long for the first process, which draws figures and times predictions alone.
_PATIENCE = timedelta(hours=6)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Processes:
    """Attributes:
    rank: number of this process; 0 is the first.
    n: number of processes.
    device: device of this process.
    """

    rank: int = 0
    n: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part_of(self, n_items: int) -> slice:
        """This process's share of ``n_items`` consecutive items. Sizes differ by at most one; a share may be empty.

        >>> [Processes(rank, 3).part_of(4) for rank in range(3)]
        [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
        """
        size, longer = divmod(n_items, self.n)
        first = self.rank * size + min(self.rank, longer)
        return slice(first, first + size + (self.rank < longer))

    def gathered(self, items: Sequence[_T]) -> list[_T]:
        """The items of all processes, in the order of ranks. Every process gets all of them."""
        if self.n == 1:
            return list(items)
        from accelerate.utils import gather_object

        return gather_object(list(items))

    def interleaved(self, items: Sequence[_T]) -> list[_T]:
        """The items of all processes in their original order, where each of the n processes has every n-th item."""
        if self.n == 1:
            return list(items)
        numbered = [(self.rank + self.n * i, item) for i, item in enumerate(items)]
        return [item for _, item in sorted(self.gathered(numbered), key=lambda entry: entry[0])]

    def summed(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.n == 1:
            return value
        from accelerate.utils import reduce

        return cast(Tensor, reduce(value, "sum"))

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.n > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def first_does(self, action: Callable[[], _T]) -> _T:
        """Call ``action`` only in the first process, and return its (picklable) result in all of them.

        Raises:
            OtherProcessFailed: in the other processes, if ``action`` failed.
            Exception: in the first process, the error of ``action``.
        """
        if self.n == 1:
            return action()
        from accelerate.utils import broadcast_object_list

        outcome: list[Any] = [None, False]
        if not self.is_first:
            value, failed = broadcast_object_list(outcome)
            if failed:
                raise OtherProcessFailed("The first process failed; its message says why.")
            return value
        try:
            outcome = [action(), False]
        except BaseException:
            broadcast_object_list([None, True])
            raise
        broadcast_object_list(outcome)
        return outcome[0]

    def sharing(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes; the module itself if there is only one process."""
        if self.n == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices)

    def align(self, module: nn.Module) -> None:
        """Copy the first process's buffers to all: running statistics differ, as each process sees other samples."""
        if self.n > 1:
            from accelerate.utils import broadcast

            for buffer in module.buffers():
                buffer.copy_(cast(Tensor, broadcast(buffer)))

    @contextmanager
    def first_alone_speaks(self) -> Iterator[None]:
        """Hide the output of all processes but the first within the block. Errors are reported after it."""
        if self.is_first:
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield


ALONE = Processes()


def join(device: str) -> Processes:
    """Join the processes that this one belongs to, each with its device.

    Args:
        device: auto, cpu, cuda, or cuda:<index>. With several processes on a node, each takes the CUDA device with its
            local number.

    Raises:
        ValueError: the device doesn't exist here, there are several processes but no Accelerate, or an earlier job in
            these processes used another kind of device.
    """
    _tell_torch_of_slurm()
    n = n_processes()
    if n == 1:
        return Processes(device=resolve_device(device))
    try:
        from accelerate import PartialState
    except ImportError:
        raise ValueError(
            f"{n} processes were started for one run, which needs Accelerate: pip install 'neuralop-bench[cluster]'. "
            "Or start one process."
        ) from None
    if device.startswith("cuda:"):
        raise ValueError(f"device={device} is a single device, but {n} processes share this run. Use cuda or auto.")
    on_cpu = resolve_device(device).type == "cpu"
    state = PartialState(cpu=on_cpu, timeout=_PATIENCE)
    own = torch.device("cpu") if on_cpu else cast(torch.device, state.device)
    if resolve_device(device).type != cast(torch.device, state.device).type:
        raise ValueError(f"device={device}, but an earlier job here used {state.device}. Start new processes.")
    return Processes(state.process_index, state.num_processes, own)


def leave() -> None:
    """Leave the process group, so that no other process waits for this one when it ends."""
    if n_processes() > 1 and "accelerate" in sys.modules:
        from accelerate import PartialState

        PartialState().destroy_process_group()


def _tell_torch_of_slurm() -> None:
    """Set torch's variables to the number of this task in a Slurm step or in submitit's local executor."""
    if "WORLD_SIZE" in os.environ or n_processes() == 1:
        return
    try:
        from submitit.helpers import TorchDistributedEnvironment
    except ImportError:
        raise ValueError(
            f"{n_processes()} tasks were started for one run, which needs submitit and Accelerate: "
            "pip install 'neuralop-bench[cluster]'. Or start one task."
        ) from None
    os.environ.setdefault("SUBMITIT_EXECUTOR", "slurm")  # submitit needs it, but plain srun doesn't set it
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
