"""What a sweep costs beside its jobs: seconds per job that joblib launches, and seconds to skip jobs that are done.

    python benchmarks/sweeps.py

Jobs are runs of a baseline that trains nothing. The first job of a sweep pays for the import of torch; of the others
what joblib takes is shown beside what a process takes that goes on from one job to the next (the basic launcher).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import save

ROOT = Path(__file__).parents[1]
N_JOBS, N_SKIPPED = 40, 200
COMMAND = (sys.executable, "run.py", "-m", "model=mean_field", "dataset=burgers1d", "track=smoke")


def seconds(folder: Path, *arguments: str) -> float:
    paths = (f"paths.data={folder / 'data'}", f"paths.outputs={folder / 'outputs'}")
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*COMMAND, *arguments, *paths], cwd=ROOT, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and keep."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def fresh(*arguments: str) -> float:
            shutil.rmtree(folder / "outputs", ignore_errors=True)
            return seconds(folder, *arguments)

        fresh("seed=0")  # makes the data
        launchers = {"basic": (), "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")}
        one = {launcher: fresh(*chosen, "seed=0") for launcher, chosen in launchers.items()}
        many = {launcher: fresh(*chosen, f"seed=range({N_JOBS})") for launcher, chosen in launchers.items()}
        fresh(f"seed=range({N_SKIPPED})")
        # The other values of the batch size name the same run: none of these jobs shares its composition with another.
        skipped = {
            "seeds": seconds(folder, f"seed=range({N_SKIPPED})"),
            "configurations": seconds(folder, f"evaluator.batch_size=range(1,{N_SKIPPED + 1})"),
        }
    per_job = {launcher: (many[launcher] - one[launcher]) / (N_JOBS - 1) for launcher in launchers}
    result = {"n_jobs": N_JOBS, "first_job": one, "per_job": per_job, "n_skipped": N_SKIPPED, "skipped": skipped}
    print(result, flush=True)
    save("sweeps", result)


if __name__ == "__main__":
    main()
