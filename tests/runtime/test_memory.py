"""What a run holds in memory doesn't grow with its dataset, if the data are read lazily."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_gen import store
from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.data.trajectories import Trajectories
from neuralop_bench.surrogate.normalization import Normalizer

ROOT = Path(__file__).parents[2]
SPEC = DatasetSpec(
    name="noise",
    version=1,
    equation="none",
    grid=Grid.periodic(64),
    times=(0.0, 1.0, 2.0, 3.0, 4.0),
    state=(FieldSpec("vorticity", "w"),),
    static=(),
)
SMALL, LARGE = 64, 640
MEGABYTES = 4e-6 * SPEC.grid.n_points * SPEC.n_snapshots  # of a sample

# Runs in a process of their own, from the composition to the record, with all that is freed handed back to the system.
# The largest resident set of each is that of all of it, so the beginning of the training may not reset it. The first
# run, which isn't measured, loads libraries.
PROGRAM = """
import json, resource, sys
from data_gen.generation.memory import hand_memory_back
from neuralop_bench import compose, pipeline
from neuralop_bench.evaluation import figures
from neuralop_bench.metrics import cost
from neuralop_bench.runtime.environment import resolve_device

cpu = resolve_device("cpu")
reset = cost.reset_peak_memory
pipeline.keep_freed_memory = hand_memory_back
cost.reset_peak_memory = lambda device: None
figures.run_figures = lambda *arguments, **options: {}  # of two samples, and slow
measured = []
for overrides in json.loads(sys.argv[1]):
    reset(cpu)
    record = pipeline.run(compose(*overrides))
    assert record.cost["loader_wait_seconds"] > 0
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024e-6
    measured.append((cost.peak_memory_mb(cpu), children))
print("measured", json.dumps(measured[1:]))
"""


def written(folder: Path, n_samples: int) -> Path:
    """A dataset of noise with so many training samples, and a quarter for validation. Of test there are always as many
    as speeds are measured with, since more would be predicted together."""
    rng = np.random.default_rng(0)

    def shards(n: int) -> Iterator[store.Fields]:
        for first in range(0, n, store.SHARD_SIZE):
            shape = (min(store.SHARD_SIZE, n - first), SPEC.n_snapshots, *SPEC.grid.shape)
            yield {"vorticity": rng.standard_normal(shape, np.float32)}

    for split, n in (("train", n_samples), ("valid", n_samples // 4), ("test", 16)):
        (folder / split).mkdir(parents=True)
        store.write(folder / split / "noise.hdf5", SPEC, shards(n), n, split=split, seed=0, provenance={})
    return folder


def overrides_of(data: Path, outputs: Path, *overrides: str) -> list[str]:
    return [
        "model=fno",
        "track=smoke",
        "dataset=file",
        f"dataset.path={data}",
        "dataset.history=4",
        "model.width=4",
        "model.n_layers=1",
        "trainer.epochs=1",
        "trainer.batch_size=16",
        "device=cpu",
        f"paths.outputs={outputs}",
        *overrides,
    ]


def test_reading_lazily_holds_no_more_of_a_larger_dataset(tmp_path: Path) -> None:
    # What numpy allocates, which is all that is read: the file is checked, gone through in order, and shuffled.
    sizes = (SMALL // 2, 5 * SMALL)
    added = 1e6 * MEGABYTES * (sizes[1] - sizes[0])
    peaks: dict[int, list[int]] = {0: [], 2**31: []}
    for n in sizes:
        path = written(tmp_path / str(n), n) / "train" / "noise.hdf5"
        for preload_bytes, found in peaks.items():
            tracemalloc.start()
            source = Trajectories(path, n_samples=n, history=1, horizon=4, preload_bytes=preload_bytes)
            Normalizer.fit(source.whole().in_order(16), bundle=1)
            n_windows = sum(len(batch.target) for batch in source.windows(1).shuffled(16, 0))
            found.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert n_windows == 4 * n
    lazy, held = (large - small for small, large in peaks.values())
    assert lazy < 0.01 * added
    assert held > 0.9 * added, "the measurement can't tell"


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell the largest memory of a process")
def test_the_memory_of_a_run_on_lazy_data_is_flat(tmp_path: Path) -> None:
    small, large = (written(tmp_path / str(n), n) for n in (SMALL, LARGE))
    added = MEGABYTES * (LARGE - SMALL)
    assert added > 45
    runs = [
        overrides_of(data, tmp_path / f"outputs{i}", f"preload_gib={gib}")
        for i, (data, gib) in enumerate([(small, 0), (small, 0), (large, 0), (large, 1)])
    ]
    result = subprocess.run(
        (sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(runs)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("measured"))
    lazy, lazy_of_more, held = json.loads(line.removeprefix("measured"))
    # Of the process, and of the one that reads for it. Statistics per sample are kept, a few kilobytes each.
    for less, more in zip(lazy, lazy_of_more, strict=True):
        assert more - less < 0.2 * added
        assert more < 1.05 * less
    assert held[0] - lazy[0] > 0.8 * added, "the measurement can't tell"
