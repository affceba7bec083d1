"""Time and memory of a board with many records.

    python -m benchmarks.board
    python -m benchmarks.board 500

The records are synthetic. They cover the three datasets, and each has the size of a real record on lite ns2d (50 test
samples, 10 steps, 31 shells, a field of 64 x 64) and an evaluation. There are two cases: many models with three seeds
each, where every pair of a task is compared, and few models with a hundred seeds each.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import save
from neuralop_bench.records.profile import Fields, Profile
from neuralop_bench.records.record import Evaluation, RunRecord

ROOT = Path(__file__).parents[1]
BOARD = ROOT / "leaderboard"
DATASETS = ("burgers1d", "darcy2d", "ns2d")
# Targets: seconds per record, and memory for up to 10,000 records.
ASKED_SECONDS, ASKED_MIB = 0.01, 1024
N_SAMPLES, N_STEPS, N_SHELLS, RESOLUTION = 50, 10, 31, 64

# Run in its own process, so that its memory is measured separately.
_CHILD = """
import json, resource, sys, time
from neuralop_bench import leaderboard
started = time.perf_counter()
status = leaderboard.main([sys.argv[1], "-o", sys.argv[2]], say=lambda text: None)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("\\n" + json.dumps({"status": status, "seconds": seconds, "peak_mib": peak}))
"""


def make(folder: Path, n_records: int, n_seeds: int) -> None:
    """Write records and evaluations like the committed ones, in the layout of a committed board."""
    rng = np.random.default_rng(0)
    samples = rng.normal(size=N_SAMPLES)
    made = 0
    for model in range(math.ceil(n_records / (len(DATASETS) * n_seeds))):
        error = 0.01 * math.exp(rng.uniform(0, 4))
        for dataset in DATASETS:
            record = RunRecord.load(BOARD / "records" / "lite" / f"{dataset}_fno_seed1.json")
            evaluation = Evaluation.load(BOARD / "evaluations" / "lite" / f"{dataset}_fno_seed1.json")
            for seed in range(n_seeds):
                if made == n_records:
                    return
                errors = error * np.exp(0.4 * samples + 0.05 * rng.normal() + 0.15 * rng.normal(size=N_SAMPLES))
                numbers = {"rel_l2": float(errors.mean())}
                own: dict[str, Any] = {
                    "run_id": f"lite-{dataset}-model{model}-{model:08x}-s{seed}",
                    "metrics": {**record.metrics, **numbers},
                    "samples": {"rel_l2": errors.tolist()},
                    "profile": _profile(errors, rng).to_json(),
                }
                named = {"model": f"model{model}", "variant": f"default-{model:08x}", "config_hash": f"{model:08x}"}
                replace(record, **own, **named, seed=seed).save(folder / "records" / "lite" / f"{made}.json")
                own["metrics"] = {**evaluation.metrics, **numbers}
                replace(evaluation, **own).save(folder / "evaluations" / "lite" / f"{made}.json")
                made += 1


def measure(folder: Path) -> dict[str, float]:
    """Seconds and MiB for a board of all records in a folder."""
    command = [sys.executable, "-c", _CHILD, str(folder), str(folder / "board")]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if found.pop("status"):
        raise RuntimeError(f"The board of {folder} wasn't made: {done.stderr}")
    return {**found, "page_mib": (folder / "board" / "index.html").stat().st_size / 2**20}


def _profile(errors: np.ndarray, rng: np.random.Generator) -> Profile:
    x = np.arange(RESOLUTION) / RESOLUTION
    field = sum(
        np.sin(2 * np.pi * (k * np.add.outer(x, m * x)) + rng.uniform(0, 6)) / k for k in range(1, 7) for m in (1, 2)
    )
    cycles = np.arange(1.0, N_SHELLS + 1)
    noise = rng.lognormal(0, 0.1, (N_SAMPLES, N_STEPS))
    return Profile(
        times=np.arange(10.0, 10 + N_STEPS),
        step_errors=np.multiply.outer(errors, np.linspace(0.3, 2, N_STEPS)) * noise,
        cycles=cycles,
        energy_target=cycles**-3,
        energy_prediction=cycles**-3 * rng.lognormal(0, 0.1, N_SHELLS),
        energy_error=cycles**-2 * 1e-4 * rng.lognormal(0, 0.1, N_SHELLS),
        fields=Fields("vorticity", "1/s", 19.0, (1.0, 1.0), np.asarray(field), 0.02 * rng.normal(size=field.shape)),
    )


def main() -> None:
    """Measure and save the figures."""
    sizes = [int(n) for n in sys.argv[1:]] or [1000, 10_000]
    found: dict[str, Any] = {}
    for n_records in sizes:
        for n_seeds in (3, 100):
            with tempfile.TemporaryDirectory() as folder:
                make(Path(folder), n_records, n_seeds)
                line = {**measure(Path(folder)), "asked_seconds": n_records * ASKED_SECONDS, "asked_mib": ASKED_MIB}
            found[f"{n_records:,} records, {n_seeds} of a row"] = line
            print(n_records, n_seeds, line, flush=True)
    save("boards", {"boards": found})


if __name__ == "__main__":
    main()
