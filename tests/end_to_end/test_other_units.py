"""Whole runs on data in other units, and on data that vanish in part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from data_gen.importing.convert import About, Part, import_data
from neuralop_bench import pipeline
from neuralop_bench.config.compose import compose
from neuralop_bench.records.record import RunRecord

Run = Callable[..., RunRecord]
pytestmark = pytest.mark.usefixtures("no_figures")


def waves() -> NDArray[np.float64]:
    """Travelling waves, [sample, time, point]."""
    x = (np.arange(32) + 0.5) / 32
    phase = np.random.default_rng(0).uniform(0, 1, (30, 1, 1))
    return np.sin(2 * np.pi * (x - 0.05 * np.arange(5)[:, None] + phase))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Import fields, train on them: run("name", "overrides", channel=values) -> RunRecord."""

    def execute(name: str, *overrides: str, **channels: NDArray[np.float64]) -> RunRecord:
        path = tmp_path / f"{name}.hdf5"
        with h5py.File(path, "w") as file:
            for channel, values in channels.items():
                file[channel] = values
            file["x-coordinate"], file["t-coordinate"] = (np.arange(32) + 0.5) / 32, 0.1 * np.arange(6)
        parts = [Part("train", path, 12), Part("valid", path, 8), Part("test", path)]
        import_data("pdebench", parts, About(name), tmp_path / name)
        small = ("model=fno", "model.n_modes=6", "model.width=8", "model.n_layers=2", "optimizer.lr=1e-2")
        where = (f"dataset.path={tmp_path / name}", f"paths.outputs={tmp_path / 'out'}")
        cfg = compose("track=smoke", "dataset=file", *small, *where, *overrides)
        return pipeline.run(cfg)

    return execute


@pytest.mark.parametrize(
    ("unit", "tolerance", "loss"),
    [
        (2.0**-50, 0.0, "relative_l2"),  # about 1e-15; a power of two changes no digit
        *(
            pytest.param(unit, 1e-3, loss, marks=pytest.mark.exhaustive)
            for unit in (1e-30, 1e30)
            for loss in ("relative_l2", "relative_h1", "relative_l2_per_step", "mse")
        ),
    ],
)
def test_a_run_scores_the_same_in_any_units(run: Run, unit: float, tolerance: float, loss: str) -> None:
    # With one step, the loss per step is the standard one, and refused.
    chosen = [f"loss={loss}", *(["trainer.unroll=2"] if loss == "relative_l2_per_step" else [])]
    expected, found = (run(name, *chosen, tensor=factor * waves()) for name, factor in (("one", 1.0), ("other", unit)))
    measured, same = (
        {name: value for name, value in one.metrics.items() if value is not None} for one in (found, expected)
    )
    assert measured == pytest.approx(same, rel=tolerance, abs=0.0)
    assert 0 < same["rel_l2"] < 1


def test_a_channel_that_vanishes_neither_decides_the_error_nor_goes_unsaid(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run("channel", Vx=1e-12 * waves(), Vy=0 * waves())
    assert record.metrics["rel_l2"] < 1
    assert record.metrics["vrmse"] < 1
    assert record.metrics["n_floored_rel_l2"] == 10
    said = capsys.readouterr()
    assert "Vy never varies: it is 0 everywhere" in said.err
    assert "Vy in every sample" in said.out


def test_samples_that_vanish_are_measured_by_the_size_of_the_channel(run: Run, tmp_path: Path) -> None:
    fields = 1e-12 * waves()
    fields[-3:, 1:] = 0  # trajectories that die out; the last of test
    record = run("samples", tensor=fields)
    assert record.metrics["rel_l2_max"] < 100
    assert record.metrics["n_floored_rel_l2"] == 3
    (report,) = (tmp_path / "out").rglob("report.md")
    assert "velocity in 3 samples (7, 8, 9)" in report.read_text()
    assert "some references vanish" in (tmp_path / "out" / "leaderboard" / "leaderboard.md").read_text()
