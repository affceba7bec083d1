"""What a sweep says when Slurm refuses it, isn't there, or ends its jobs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.login_node import ON_SLURM, Cluster, running_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as started:
        yield started


def _refused(cluster: Cluster, tmp_path: Path, *overrides: str) -> str:
    """The message of a sweep that must fail."""
    paths = (f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}")
    run = ("track=smoke", "dataset=burgers1d", "model=persistence", "seed=0,1")
    status, _, err = cluster.finish("-m", *ON_SLURM, *run, *paths, *overrides)
    assert status == 1
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("record.json"))
    return err


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("override", "reason", "knob"),
    [
        ("hydra.launcher.partition=nowhere", "Invalid partition name specified", "hydra.launcher.partition"),
        ("hydra.launcher.mem_gb=99999", "Memory specification can not be satisfied", "hydra.launcher.mem_gb"),
        ("hydra.launcher.gpus_per_node=9", "Requested node configuration is not", "hydra.launcher.gpus_per_node"),
    ],
)
def test_what_slurm_refuses_is_said_with_the_knob(
    cluster: Cluster, tmp_path: Path, override: str, reason: str, knob: str
) -> None:
    err = _refused(cluster, tmp_path, override)
    message = err[err.index("Error: ") :]
    assert reason in message
    assert knob in message


@pytest.mark.exhaustive
def test_a_slurm_that_does_not_answer(cluster: Cluster, tmp_path: Path) -> None:
    # A port that nobody listens on. It takes ten seconds: sbatch tries again so long (MessageTimeout in slurm.conf).
    conf = Path(cluster.environment["SLURM_CONF"])
    dead = tmp_path / "slurm.conf"
    dead.write_text(re.sub(r"(SlurmctldPort)=\d+", r"\1=1", conf.read_text()))
    lost = replace(cluster, environment={**cluster.environment, "SLURM_CONF": str(dead)})
    err = _refused(lost, tmp_path)
    message = err[err.index("Error: ") :]
    assert "Unable to contact slurm controller" in message
    assert "sinfo" in message
    assert "hydra/launcher=local" in message


def test_a_machine_without_slurm(cluster: Cluster, tmp_path: Path) -> None:
    bare = replace(cluster, environment={**cluster.environment, "PATH": os.fspath(tmp_path)})
    err = _refused(bare, tmp_path)
    assert "sbatch" in err or "srun" in err
    assert "login node" in err
    assert "hydra/launcher=local" in err


@pytest.mark.exhaustive
def test_a_job_that_takes_more_memory_than_it_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    err = _refused(cluster, tmp_path, "seed=0", "+hydra.launcher.additional_parameters={mem: 200M}")
    message = err[err.index("Error: ") :]
    assert "memory" in message
    assert "hydra.launcher.mem_gb" in message
    assert "same command" in message
