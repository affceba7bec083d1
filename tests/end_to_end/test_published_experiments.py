"""experiment=paper/...: every one of them runs from data to record, at sizes of seconds."""

from pathlib import Path

import pytest

from neuralop_bench import pipeline
from neuralop_bench.config.compose import compose
from neuralop_bench.config.identity import run_directory
from neuralop_bench.records import published
from neuralop_bench.records.record import Evaluation
from neuralop_bench.records.run_directory import REPORT_NAME
from neuralop_bench.runtime.place import CONFIG_DIR

# On imported data: tests/end_to_end/test_imported.py.
NAMES = sorted(
    {path.stem for path in (CONFIG_DIR / "experiment" / "paper").glob("*.yaml")} - {"apebench_imported"},
)
_SHORT = ("dataset.problem.n_snapshots=3", "dataset.horizon=2", "dataset.test_splits.test_long.n=1")
SMALL_DATA = {
    "darcy2d": ("dataset.problem.resolution=43", "dataset.problem.solver_resolution=43"),
    "burgers1d": ("dataset.problem.resolution=64",),
    **dict.fromkeys(
        ("advection1d_sines", "burgers1d_sines"),
        ("dataset.problem.resolution=64", "dataset.problem.n_snapshots=12", "dataset.horizon=2", "trainer.unroll=2"),
    ),
    **dict.fromkeys(("advection1d", "burgers1d_waves", "diffusion1d", "kdv1d"), _SHORT),
    "ks1d": (*_SHORT, "dataset.problem.warm_up=0", "dataset.test_splits.test_long.tolerance=100"),
    "ns2d": (
        *("dataset.problem.resolution=32", "dataset.problem.oversampling=1", "dataset.problem.n_snapshots=4"),
        *("dataset.history=2", "dataset.horizon=2", "trainer.unroll=2"),
    ),
}
SMALL_MODEL = {"lsm": ("model.width=8", "model.patch=2"), "galerkin_darcy141": ("model.coarse=11",)}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("no_figures")
def test_a_published_experiment_runs(
    name: str, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = compose(f"experiment=paper/{name}").choices["dataset"]
    cfg = compose(
        f"experiment=paper/{name}",
        *("splits.train=8", "splits.valid=2", "splits.test=2", "trainer.epochs=1", "dataset.tolerance=null"),
        *SMALL_DATA[dataset],
        *next((overrides for key, overrides in SMALL_MODEL.items() if name.startswith(key)), ()),
        *(f"paths.data={data_folder}", f"paths.outputs={tmp_path}", "device=cpu"),
    )
    record = pipeline.run(cfg)
    assert (record.status, record.track) == ("finished", "custom"), "at other sizes it isn't the published task"
    assert 0 < record.metrics["rel_l2"] < 100
    if name.startswith("apebench"):
        evaluation = next((run_directory(cfg) / "evaluations").glob("*.json"))
        assert 0 < Evaluation.load(evaluation).metrics["nrmse_gmean_100"] < 100
        return
    if cfg.published.id is None:
        return
    entry = published.by_id()[name]
    assert entry.source in (run_directory(cfg) / REPORT_NAME).read_text()
    assert entry.source in capsys.readouterr().out.replace("\n", " ")
    row = (tmp_path / "leaderboard" / "leaderboard.csv").read_text()
    assert f",no,{entry.value:.6g},{entry.source}" in row.replace('"', "")
