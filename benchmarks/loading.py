"""Data larger than memory: how much of them a training holds, and how long its steps wait for them.

    python -m benchmarks.loading      takes ten minutes on 2 cores and 3 GB of disk; run nothing else meanwhile

Memory: largest resident set of a process that opens a file, fits the normaliser, trains one epoch and validates, with
the private memory of the processes that read ahead. It is measured for a file and for one of ten times its size.

Wait: steps of the lite FNO on random windows of a file of 2 GiB that isn't in the page cache. A thread reads one batch
ahead, with and without a worker process. Training uses every core, or all cores but the one that reads. The first
batch, which always has to wait, is reported separately.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.around import BATCH, forget, lite, written
from benchmarks.timing import DEVICE, save
from data_gen.generation.memory import hand_memory_back, keep_freed_memory
from neuralop_bench.config import schema
from neuralop_bench.data.trajectories import Trajectories
from neuralop_bench.models.fno import FNO
from neuralop_bench.runtime.processes import ALONE
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.surrogate import Surrogate, build_operator
from neuralop_bench.training import augmentation, losses, schedules
from neuralop_bench.training.tracking import NoTracker
from neuralop_bench.training.trainer import Recipe, Trainer

N_SAMPLES = 256  # 84 million bytes of the lite task
N_SAMPLES_OF_2_GIB = 6560
N_STEPS = 100
WORKERS = (0, 1)


def memory(path: Path, n_samples: int, workers: int, preload_bytes: int) -> dict[str, float]:
    """Largest resident memory of a training in 10^6 bytes: without and with the processes that read for it."""
    hand_memory_back()
    torch.set_num_threads(1)
    processes = _Processes()
    cfg, spec = lite()
    history, horizon = cfg.dataset.history, spec.n_snapshots - cfg.dataset.history
    data = Trajectories(path, n_samples=n_samples, history=history, horizon=horizon, preload_bytes=preload_bytes)
    operator = FNO(in_channels=history, out_channels=1, grid=spec.grid, n_modes=8, width=8, n_layers=2)
    surrogate = Surrogate(operator, Normalizer.fit(data.whole().in_order(BATCH), bundle=1)).to(DEVICE)
    trainer = Trainer(epochs=1, batch_size=BATCH, unroll=2, clip_norm=None, seed=0, workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(
            surrogate,
            data.windows(horizon),  # a window of each sample
            data.whole(),
            Recipe(
                partial(torch.optim.AdamW, lr=1e-3), schedules.constant, losses.relative_l2, augmentation.none(spec)
            ),
            tracker=NoTracker(),
            folder=Path(folder),
            config="",
            processes=ALONE,
        )
    return processes.largest()


class _Processes:
    """The memory of this process and its children, sampled 20 times a second."""

    def __init__(self) -> None:
        self._own = self._all = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def largest(self) -> dict[str, float]:
        self._ended.set()
        self._thread.join()
        return {"training": round(self._own / 1e6, 1), "with those that read": round(self._all / 1e6, 1)}

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            own = _bytes("self", "Rss")
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            self._own = max(self._own, own)
            # Memory shared with this process is already counted.
            self._all = max(self._all, own + sum(_bytes(pid, "Private_Dirty") for pid in children))


def _bytes(pid: str, kind: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def growth(folder: Path) -> dict[str, Any]:
    """Memory for a file and for one of ten times its size."""
    _, spec = lite()
    sizes = {"1": N_SAMPLES, "10": 10 * N_SAMPLES}
    path = folder / "data.hdf5"
    written(path, spec, max(sizes.values()))
    found: dict[str, Any] = {}
    for name, workers, preload_bytes in (
        *((f"read lazily, {n} workers", n, 0) for n in WORKERS),
        ("held in memory", 0, 2**40),
    ):
        found[name] = {size: _alone(path, n, workers, preload_bytes) for size, n in sizes.items()}
        small, large = (entry["with those that read"] for entry in found[name].values())
        found[name]["growth"] = round(large / small, 3)
        print(name, found[name], flush=True)
    path.unlink()
    megabytes = {size: round(4e-6 * n * spec.n_snapshots * spec.grid.n_points, 1) for size, n in sizes.items()}
    return {"megabytes of data": megabytes, "peak megabytes": found, "asked": 1.05}


def _alone(*arguments: Any) -> dict[str, float]:
    # Unlike the processes of timing.alone, these may start others that read for them.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(memory, *arguments).result()


def waiting(folder: Path) -> dict[str, Any]:
    """Milliseconds of a step, and the share of it spent waiting for the next batch."""
    cfg, spec = lite()
    path = folder / "data.hdf5"
    written(path, spec, N_SAMPLES_OF_2_GIB)
    data = Trajectories(
        path, n_samples=N_SAMPLES_OF_2_GIB, history=cfg.dataset.history, horizon=cfg.dataset.horizon, preload_bytes=0
    )
    threads = torch.get_num_threads()
    operator = build_operator(
        schema.constructor(cfg.model), spec, n_history=cfg.dataset.history, bundle=1, device=DEVICE
    )
    normalizer = Normalizer.fit((data.whole()[[i]] for i in range(BATCH)), bundle=1)
    surrogate = Surrogate(operator, normalizer, residual=cfg.surrogate.residual).to(DEVICE).train()
    optimizer = torch.optim.AdamW(surrogate.parameters(), fused=True)

    def step(history: torch.Tensor, static: torch.Tensor, target: torch.Tensor) -> None:
        optimizer.zero_grad()
        losses.relative_l2(surrogate(history.to(DEVICE), static.to(DEVICE)), target.to(DEVICE)).backward()
        optimizer.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    found: dict[str, Any] = {}
    ways = [(name, workers) for name in ("with a core left over", "with every core") for workers in WORKERS]
    for warm_up in (True, False):
        for name, workers in ways:
            torch.set_num_threads(max(1, threads - (name == "with a core left over")))
            forget(path)
            waits, steps = [], []
            batches = data.windows(1).shuffled(cfg.trainer.batch_size, 0, workers=workers)
            for _ in range(10 if warm_up else N_STEPS):
                started = time.perf_counter()
                batch = next(batches)
                there = time.perf_counter()
                step(*batch)
                waits.append(there - started)
                steps.append(time.perf_counter() - there)
            del batches
            found[f"{workers} workers, {name}"] = {
                "first batch, ms": round(1e3 * waits[0], 1),
                "wait, ms": round(1e3 * statistics.mean(waits[1:]), 3),
                "step, ms": round(1e3 * statistics.mean(steps[1:]), 2),
                "share": round(sum(waits[1:]) / (sum(waits[1:]) + sum(steps[1:])), 4),
            }
    print(found, flush=True)
    return {"of a step": found, "asked": 0.02}


def main() -> None:
    """Measure both."""
    with tempfile.TemporaryDirectory() as folder:
        save("memory of lazy data", growth(Path(folder)))
        keep_freed_memory()
        save("waiting for data", waiting(Path(folder)))


if __name__ == "__main__":
    main()
