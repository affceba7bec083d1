"""What a run holds in memory doesn't grow with its dataset, if the data are read lazily."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_gen import store
from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec

ROOT = Path(__file__).parents[1]
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

# A run in a process of its own: from the composition to the record, with all that is freed handed back to the system.
# Its largest resident set is that of all of it, so the beginning of the training may not reset it.
PROGRAM = """
import resource, sys
from data_gen.memory import hand_memory_back
from neuralop_bench import config, pipeline
from neuralop_bench.metrics import cost

pipeline.keep_freed_memory = hand_memory_back
cost.reset_peak_memory = lambda device: None
record = pipeline.run(config.compose(*sys.argv[1:]))
largest = cost.peak_memory_mb(pipeline.reproducibility.resolve_device("cpu"))
of_others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024e-6
print("measured", largest, of_others, record.cost["loader_wait_seconds"])
"""


def written(folder: Path, n_samples: int) -> Path:
    """A dataset of noise with so many training samples, and a tenth of that for each of the other splits."""
    rng = np.random.default_rng(0)

    def shards(n: int) -> Iterator[store.Fields]:
        for first in range(0, n, store.SHARD_SIZE):
            shape = (min(store.SHARD_SIZE, n - first), SPEC.n_snapshots, *SPEC.grid.shape)
            yield {"vorticity": rng.standard_normal(shape, np.float32)}

    for split, n in (("train", n_samples), ("valid", n_samples // 10), ("test", n_samples // 10)):
        (folder / split).mkdir(parents=True)
        store.write(folder / split / "noise.hdf5", SPEC, shards(n), n, split=split, seed=0, provenance={})
    return folder


def megabytes(data: Path, outputs: Path, *overrides: str) -> tuple[float, float]:
    """Largest resident memory of a run, and of the processes that read for it."""
    arguments = (
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
    )
    result = subprocess.run(
        (sys.executable, "-W", "error", "-c", PROGRAM, *arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("measured"))
    own, of_others, waited = map(float, line.split()[1:])
    assert waited > 0
    return own, of_others


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell the largest memory of a process")
def test_the_memory_of_a_run_on_lazy_data_is_flat(tmp_path: Path) -> None:
    small, large = (written(tmp_path / str(n), n) for n in (SMALL, LARGE))
    added = MEGABYTES * (LARGE - SMALL)
    assert added > 45
    lazy = megabytes(small, tmp_path / "a", "preload_gib=0")
    lazy_of_more = megabytes(large, tmp_path / "b", "preload_gib=0")
    held = megabytes(large, tmp_path / "c")
    # Statistics per sample and the order of an epoch are kept: a few kilobytes a sample.
    for less, more in zip(lazy, lazy_of_more, strict=True):
        assert more - less < 0.2 * added
        assert more < 1.05 * less
    assert held[0] - lazy[0] > 0.8 * added, "the measurement can't tell"
