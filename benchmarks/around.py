"""Times of the work around training steps: reading windows from a file, and computing metrics.

    python -m benchmarks.around      takes a minute on 2 cores; run nothing else meanwhile

Reading: random windows of a file, read by the loader and, from a raw file with the same numbers, by ``numpy.fromfile``.
The file is dropped from the page cache before each pass, as if it were larger than the cache. Metrics: those of
``evaluator=standard`` on trajectories of the lite ns2d task, next to the network that predicts them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import DEVICE, interleaved, save
from data_gen import store
from data_gen.generation.memory import keep_freed_memory
from data_gen.spec import DatasetSpec
from neuralop_bench.batch import Batch, Trajectory
from neuralop_bench.config import constructors, schema
from neuralop_bench.config.compose import compose
from neuralop_bench.data.trajectories import Trajectories
from neuralop_bench.evaluation.evaluator import evaluate
from neuralop_bench.metrics.metric import MetricContext
from neuralop_bench.runs import plan
from neuralop_bench.runtime.processes import ALONE
from neuralop_bench.surrogate.surrogate import build_operator

N_SAMPLES = 1600  # about half a gigabyte
BATCH = 16


def lite() -> tuple[Any, DatasetSpec]:
    """The lite ns2d task: its configuration and the spec of its files."""
    cfg = compose("model=fno", "dataset=ns2d", "track=lite")
    return cfg, plan.source_of(cfg).spec


def written(path: Path, spec: DatasetSpec, n_samples: int) -> None:
    """A dataset file of noise, in the layout of the real ones."""
    rng = np.random.default_rng(0)

    def shards() -> Iterator[dict[str, Any]]:
        for _ in range(-(-n_samples // store.SHARD_SIZE)):
            n = store.SHARD_SIZE
            shape = (n, spec.n_snapshots, *spec.grid.shape)
            fields: dict[str, Any] = {field.name: rng.standard_normal(shape, np.float32) for field in spec.state}
            fields |= {store.DIAGNOSTICS + entry.name: np.zeros(n) for entry in spec.diagnostics}
            yield fields

    store.write(path, spec, shards(), n_samples, split="train", seed=0, provenance={})


def reading(folder: Path) -> dict[str, Any]:
    """Samples per second for random windows of 10 history frames and one frame to predict."""
    cfg, spec = lite()
    path, raw = folder / "data.hdf5", folder / "data.raw"
    written(path, spec, N_SAMPLES)
    frame = spec.grid.n_points
    data = Trajectories(path, n_samples=N_SAMPLES, history=cfg.dataset.history, horizon=1, preload_bytes=0)
    with open(raw, "wb") as handle:
        for i in range(N_SAMPLES):
            data.read(np.array([i]), np.array([0]), spec.n_snapshots)[0].tofile(handle)
    windows = data.windows(1)
    per_window = windows.source.history + 1
    starts = len(windows) // N_SAMPLES
    n_read = N_SAMPLES // BATCH * BATCH

    def loader(workers: int) -> None:
        forget(path)
        for i, batch in enumerate(windows.shuffled(BATCH, 0, workers=workers), start=1):
            batch.target.sum()
            if i * BATCH >= n_read:
                break

    def fromfile() -> None:
        forget(raw)
        order = np.random.default_rng(0).permutation(len(windows))[:n_read]
        for indices in order.reshape(-1, BATCH):
            batch = []
            for sample, start in zip(*np.divmod(indices, starts), strict=True):
                offset = 4 * frame * int(sample * spec.n_snapshots + start)
                batch.append(np.fromfile(raw, np.float32, per_window * frame, offset=offset))
            torch.from_numpy(np.stack(batch)).sum()

    seconds = interleaved({"fromfile": fromfile, **{f"{n} workers": partial(loader, n) for n in (0, 1, 2)}}, repeats=5)
    return {
        "windows_per_second": {name: round(n_read / value) for name, value in seconds.items()},
        "share": {name: round(seconds["fromfile"] / value, 2) for name, value in seconds.items() if name != "fromfile"},
        "asked": 0.7,
    }


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class _Noise:
    """A predictor that takes almost no time."""

    def predict(self, batch: Batch, n_steps: int) -> Trajectory:
        del n_steps
        return batch.target * 1.01


def metrics(folder: Path) -> dict[str, Any]:
    """Seconds per trajectory for all metrics, for one call of the network, and for predicting a trajectory."""
    cfg, spec = lite()
    path = folder / "test.hdf5"
    written(path, spec, 64)
    data = Trajectories(path, n_samples=64, history=cfg.dataset.history, horizon=cfg.dataset.horizon)
    context = MetricContext(spec, np.ones(len(spec.state)), spec.grid)
    measured = [constructors.build(node)(context) for node in cfg.evaluator.metrics.values()]
    operator = build_operator(
        schema.constructor(cfg.model), spec, n_history=cfg.dataset.history, bundle=1, device=DEVICE
    ).eval()
    x = torch.randn(len(data.whole()), cfg.dataset.history, *spec.grid.shape, device=DEVICE)

    @torch.no_grad()
    def forward() -> None:
        for part in x.split(cfg.evaluator.batch_size):
            operator(part)

    def all_metrics() -> None:
        evaluate(_Noise(), data.whole(), measured, batch_size=cfg.evaluator.batch_size, processes=ALONE)

    seconds = interleaved({"metrics": all_metrics, "forward": forward}, repeats=7, warm_up=3)
    per_sample = {name: value / len(x) for name, value in seconds.items()}
    return {
        "milliseconds": {name: round(1e3 * value, 3) for name, value in per_sample.items()},
        "share_of_a_call": round(per_sample["metrics"] / per_sample["forward"], 2),
        "share_of_a_prediction": round(per_sample["metrics"] / per_sample["forward"] / cfg.dataset.horizon, 2),
        "asked": 0.5,
    }


def main() -> None:
    """Measure both."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in (("reading", reading), ("metrics", metrics)):
            result = measure(Path(folder))
            print(name, result, flush=True)
            save(name, result)


if __name__ == "__main__":
    main()
