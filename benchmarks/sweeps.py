"""The overhead of a sweep: seconds per job that joblib launches, and seconds to skip jobs that are done.

    python -m benchmarks.sweeps

Jobs are runs of a baseline without training. The time of a sweep of one job, which includes the import of torch, is
subtracted. The time of the other jobs is shown next to the time that the runs themselves took according to their
records.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

from benchmarks.timing import save
from neuralop_bench.records.record import RunRecord

ROOT = Path(__file__).parents[1]
N_JOBS, N_SKIPPED = 40, 200
COMMAND = (sys.executable, "run.py", "-m", "model=mean_field", "dataset=burgers1d", "track=smoke")


def seconds(folder: Path, *arguments: str) -> float:
    paths = (f"paths.data={folder / 'data'}", f"paths.outputs={folder / 'outputs'}")
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*COMMAND, *arguments, *paths], cwd=ROOT, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def of_runs(folder: Path) -> float:
    """Average seconds that the runs themselves took, from their records."""
    return mean(RunRecord.load(path).wall_seconds for path in folder.rglob("record.json"))


def main() -> None:
    """Measure and save the figures."""
    per_job, beside = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        launchers = {
            "joblib": (N_JOBS, ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")),
            "basic": (N_SKIPPED, ()),  # last: these are skipped below
        }
        seconds(folder, "seed=0")  # makes the data
        for launcher, (n, chosen) in launchers.items():
            shutil.rmtree(folder / "outputs")
            first = seconds(folder, *chosen, "seed=0")
            per_job[launcher] = (seconds(folder, *chosen, f"seed=range({n})") - first) / (n - 2)
            beside[launcher] = per_job[launcher] - of_runs(folder / "outputs")
        # The other batch sizes give the same run, but each is composed separately.
        skipped = {
            "seeds": seconds(folder, f"seed=range({N_SKIPPED})"),
            "configurations": seconds(folder, f"evaluator.batch_size=range(1,{N_SKIPPED + 1})"),
        }
    result = {"seconds_per_job": per_job, "beside_the_run": beside, "n_skipped": N_SKIPPED, "skipped": skipped}
    print(result, flush=True)
    save("sweeps", result)


if __name__ == "__main__":
    main()
