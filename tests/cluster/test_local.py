"""A sweep through ``hydra/launcher=local``: processes of their own on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuralop_bench.records.record import RunRecord

ROOT = Path(__file__).parents[2]


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.cluster
def test_jobs_are_processes_with_the_threads_they_asked_for(data_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra 'cluster'")
    launcher = ("hydra/launcher=local", "hydra.launcher.cpus_per_task=2")
    run = ("track=smoke", "model=persistence", "dataset=burgers1d", "seed=0,1")
    paths = (f"paths.data={data_folder}", f"paths.outputs={tmp_path}")
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "-m", *launcher, *run, *paths],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    records = [RunRecord.load(path) for path in tmp_path.rglob("record.json")]
    assert sorted(record.seed for record in records) == [0, 1]
    assert {record.environment["threads"] for record in records} == {2}
    logs = [path.read_text() for path in tmp_path.glob(".sweeps/*/.submitit/*/*_log.out")]
    assert sum("Run directory:" in log for log in logs) == 2
