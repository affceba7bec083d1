"""mode=generate: all splits of a configuration, by one process, in parts, and by a launcher; and what can't be made."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from helpers.command import told

from data_gen import store
from data_gen.generation import cache
from data_gen.generation.certificate import CertificateError
from data_gen.grids import Grid
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.random_fields import PeriodicGaussianField
from data_gen.store import DatasetFile
from neuralop_bench import pipeline
from neuralop_bench.config.compose import compose as composed
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.messages import describe
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.data.sources import GeneratedDataset, RegriddedDataset
from neuralop_bench.runs.splits import _grouped, ensure, generate, split_of

ROOT = Path(__file__).parents[2]
# Seconds become tenths: few points, few frames, few samples.
TINY = (
    *("track=smoke", "dataset.tolerance=null", "dataset.test_splits.test_long.tolerance=null"),
    *("dataset.problem.resolution=8", "dataset.problem.n_snapshots=3", "splits.train=20", "splits.valid=2"),
    *("splits.test=3", "dataset.test_splits.test_long.problem.n_snapshots=5"),
)
EXTRA = (
    *("test_half", "test_double", "test_long", "test_ood_length_scale", "test_ood_amplitude"),
    *("test_ood_viscosity_high", "test_ood_viscosity_low"),
)

Compose = Callable[..., RunConfig]


def _extra(name: str, **values: object) -> str:
    """The override that adds a further test set."""
    entry = ", ".join(f"{key}: {value}" for key, value in values.items())
    return f"+dataset.test_splits={{{name}: {{{entry}}}}}"


@pytest.fixture
def tiny(tmp_path: Path) -> Compose:
    def compose(*overrides: str) -> RunConfig:
        paths = (f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}")
        return composed(*TINY, "mode=generate", *paths, *overrides)

    return compose


# Splits ---------------------------------------------------------------------------------------------------------------


def test_the_splits_of_a_run_come_from_its_own_problem(tiny: Compose) -> None:
    cfg = tiny("dataset.tolerance=0.5", "dataset.seed=7")
    for name, n in (("train", 20), ("valid", 2), ("test", 3)):
        split = split_of(cfg, name)
        source = cast(GeneratedDataset, split.source)
        assert (split.name, split.n_samples, split.horizon) == (name, n, 10)
        assert (source.problem.spec.grid, source.tolerance, source.seed) == (Grid.periodic(8), 0.5, 7)


def test_a_further_test_set_differs_in_what_it_says(tiny: Compose) -> None:
    cfg = tiny("dataset.test_splits.test_long.tolerance=0.5")
    problem = cast(NavierStokes2D, split_of(cfg, "test").source.problem)
    expected = {
        "test_long": replace(problem, n_snapshots=5),
        "test_ood_length_scale": replace(problem, initial=PeriodicGaussianField(tau=10.0)),
        "test_ood_viscosity_high": replace(problem, viscosity=2e-3),
        "test_ood_viscosity_low": replace(problem, viscosity=5e-4, oversampling=1.5),
    }
    for name, other in expected.items():
        split = split_of(cfg, name)
        assert split.source.problem == other
        assert split.n_samples == 3, "as many as test has"
        assert split.source.folder != split_of(cfg, "test").source.folder
    assert split_of(cfg, "test_long").horizon == 40
    assert cast(GeneratedDataset, split_of(cfg, "test_long").source).tolerance == 0.5
    assert cast(GeneratedDataset, split_of(cfg, "test_ood_amplitude").source).tolerance is None
    assert cfg.dataset.problem["n_snapshots"] == 3, "the configuration is left as it is"


def test_a_regridded_test_set_lies_beside_its_origin(tiny: Compose) -> None:
    cfg = tiny(_extra("test_quarter", source="test_half", refine=0.5, n=5, horizon=2))
    half, quarter = split_of(cfg, "test_half"), split_of(cfg, "test_quarter")
    assert isinstance(half.source, RegriddedDataset)
    assert half.source.folder == quarter.source.folder == split_of(cfg, "test").source.folder
    assert (half.source.spec.grid, quarter.source.spec.grid) == (Grid.periodic(4), Grid.periodic(2))
    assert (half.n_samples, half.horizon) == (3, 10)
    assert (quarter.n_samples, quarter.horizon) == (5, 2)
    path = ensure(quarter, workers=1)
    with DatasetFile(path) as file:
        assert (file.n_samples, file.spec.grid) == (5, Grid.periodic(2))
    with DatasetFile(ensure(split_of(cfg, "test"), workers=1)) as file:
        assert file.n_samples == 5, "made longer than test itself is asked for"


def test_an_unknown_split_is_named(tiny: Compose) -> None:
    with pytest.raises(ConfigError, match="There is no split test_ood; there are train, valid, test,"):
        split_of(tiny(), "test_ood")


# Generating -----------------------------------------------------------------------------------------------------------


def test_all_splits_are_made_and_made_once(
    tiny: Compose, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny("generation.splits=[all]")
    paths = generate(cfg)
    assert {path.parent.name for path in paths} == {"train", "valid", "test", *EXTRA}
    printed = capsys.readouterr().out.splitlines()
    assert printed == [str(path) for path in paths]
    for path in paths:
        split = split_of(cfg, path.parent.name)
        with DatasetFile(path) as file:
            file.sha256()
            assert (file.n_samples, file.split, file.spec) == (split.n_samples, split.name, split.source.spec)
            assert file.certificate["error"] > 0
    assert not Path(cfg.paths.outputs).exists()
    monkeypatch.setattr(cache, "_solve_shard", lambda *_: pytest.fail("solved again"))
    assert generate(cfg) == paths


def test_the_splits_of_a_run_are_made_unless_others_are_named(tiny: Compose) -> None:
    assert {path.parent.name for path in generate(tiny())} == {"train", "valid", "test"}
    (path,) = generate(tiny("generation.splits=[test_ood_amplitude,test_ood_amplitude]"))
    assert path.parent.name == "test_ood_amplitude"


def test_paired_test_sets_start_alike(tiny: Compose) -> None:
    paths = {p.parent.name: p for p in generate(tiny("generation.splits=[test,test_long,test_ood_amplitude]"))}
    first = {}
    for name, path in paths.items():
        with DatasetFile(path) as file:
            first[name] = file.read_states(slice(None), slice(0, 1))
    assert np.array_equal(first["test"], first["test_long"])
    np.testing.assert_allclose(first["test_ood_amplitude"], 1.5 * first["test"], rtol=1e-5, atol=1e-6)


def test_one_dataset_is_generated_at_a_time_and_regridded_last(tiny: Compose) -> None:
    cfg = tiny("generation.splits=[all]", _extra("test_more", n=5), _extra("test_strict", n=6, tolerance=1e-3))
    splits = [split_of(cfg, name) for name in ("test_half", "train", "test_long", "test_more", "test_strict", "test")]
    groups = [[split.name for split in group] for group in _grouped(splits)]
    assert groups == [["train", "test_more", "test"], ["test_long"], ["test_strict"], ["test_half"]]


def test_a_further_test_set_of_the_same_problem_has_its_own_tolerance(tiny: Compose) -> None:
    strict = _extra("test_strict", tolerance=1e-12)
    with pytest.raises(CertificateError, match=r"test_strict: .*dataset\.tolerance=1e-12"):
        generate(tiny("generation.splits=[test,test_strict]", strict))
    assert {path.parent.name for path in Path(tiny().paths.data).rglob("*.hdf5")} == {"test"}


def test_the_device_of_the_generation_reaches_it(tiny: Compose) -> None:
    cfg = tiny("generation.splits=[test]", "generation.device='cpu:0'")
    assert cast(GeneratedDataset, split_of(cfg, "test").source).device == "cpu:0"
    (path,) = generate(cfg)
    with store.to_xarray(path) as dataset:
        assert dataset.attrs["device"] == "cpu:0"


def test_a_dry_run_tells_and_makes_nothing(tiny: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tiny("generation.splits=[test]"))
    before = sorted(Path(tiny().paths.data).rglob("*"))
    capsys.readouterr()
    pipeline.execute(tiny("generation.splits=[test,train,test_half]", "splits.test=5", "dry_run=true"))
    words = [re.findall(r"[\w.]+", line) for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: " ".join(line) for line in words if line}
    assert "2 missing" in rows["test"]
    assert "20 missing" in rows["train"]
    assert "4x4" in rows["test_half"]
    assert "regridded" in rows["test_half"]
    assert "solved" in rows["test"]
    assert sorted(Path(tiny().paths.data).rglob("*")) == before
    pipeline.execute(tiny("generation.splits=[test]", "dry_run=true"))
    assert "present" in capsys.readouterr().out


def test_parts_leave_the_files_to_a_later_command(tiny: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    which = "generation.splits=[train,test,test_half,test_ood_amplitude]"
    for part in range(2):
        assert generate(tiny(which, f"generation.part={part}", "generation.n_parts=2")) == []
        assert f"Part {part} of 2 is solved." in capsys.readouterr().out
    assert not list(Path(tiny().paths.data).rglob("*.hdf5"))
    paths = generate(tiny(which))
    assert [path.parent.name for path in paths] == ["train", "test", "test_ood_amplitude", "test_half"]


# As people start it ---------------------------------------------------------------------------------------------------


def test_parts_on_the_command_line_are_put_together(tmp_path: Path) -> None:
    paths = (f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}")
    which = (*TINY, *paths, "mode=generate", "generation.splits=[train,test,test_half]")
    parts = told("-m", "generation.part=0,1", "generation.n_parts=2", *which)
    assert parts.status == 0, parts.err
    assert "Part 0 of 2 is solved." in parts.out
    assert "Part 1 of 2 is solved." in parts.out
    assert len(list((tmp_path / "data").rglob("*.npz"))) == 3
    together = told(*which)
    assert together.status == 0, together.err
    assert "error: " in together.err, "the certificate"
    made = {Path(line).parent.name: Path(line) for line in together.out.splitlines()}
    assert set(made) == {"train", "test", "test_half"}
    cfg = composed(*which, f"paths.data={tmp_path / 'one'}")
    for path in generate(cfg):
        assert path.read_bytes() == made[path.parent.name].read_bytes(), "as one process makes them"


@pytest.mark.exhaustive  # on a real Slurm it is tried in any case
@pytest.mark.cluster
@pytest.mark.skipif(not importlib.util.find_spec("submitit"), reason="needs the extra 'cluster'")
def test_a_launcher_solves_parts_in_processes_of_its_own(tmp_path: Path) -> None:
    launcher = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=3")
    parts = ("generation.n_parts=2", "generation.part=range(2)", "generation.splits=[train]")
    paths = (f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}")
    command = [sys.executable, "scripts/generate_data.py", "-m", *TINY, *launcher, *parts, *paths]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "data").rglob("*.hdf5"))
    assert len(list((tmp_path / "data").rglob("*.npz"))) == 2
    assert len(list((tmp_path / "data").rglob("train-errors.json"))) == 1
    cfg = composed(*TINY, "mode=generate", f"paths.data={tmp_path / 'data'}", "generation.splits=[train]")
    (path,) = generate(cfg)
    with DatasetFile(path) as file:
        assert file.n_samples == 20


def test_a_file_adds_test_sets_without_code(tmp_path: Path) -> None:
    # As docs/datasets.md shows; the law of the second is of another class, with arguments of its own.
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "more.yaml").write_text(
        "# @package _global_\n"
        "dataset:\n"
        "  test_splits:\n"
        "    test_ood_thin: {problem: {viscosity: 2.0e-5, oversampling: 4}, tolerance: 1.0e-2}\n"
        "    test_band:\n"
        "      problem: {initial: {_target_: data_gen.random_fields.VortexBandField, length: 1.0}}\n"
        "    test_quarter: {source: test, refine: 0.25}\n"
    )
    script = (sys.executable, "scripts/generate_data.py")
    command = (*script, "--config-dir", str(tmp_path), "track=smoke", "experiment=more")
    overrides = ("dry_run=true", "generation.splits=[all]", f"paths.data={tmp_path / 'data'}")
    done = subprocess.run([*command, *overrides], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = {line.split("|")[1].strip(): line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")}
    grids = {name: (row[2].strip(), row[3].strip(), row[4].strip()) for name, row in rows.items()}
    assert grids["test_ood_thin"] == grids["test_band"] == ("8", "32x32", "solved")
    assert grids["test_quarter"] == ("8", "8x8", "regridded")
    assert len({row[6] for name, row in rows.items() if name in ("test", "test_ood_thin", "test_band")}) == 3


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("generation.splits=[test_lnog]",), r"generation\.splits contains 'test_lnog'.* Did you mean .*test_long"),
        (
            ("generation.splits=[train,nothing]",),
            r"generation\.splits contains 'nothing'.*Known: .*test_half.*and all",
        ),
        (("dataset.test_splits.test_half.source=test_haf",), r"test_half\.source=test_haf isn't a test set"),
        (("dataset.test_splits.test_half.source=train",), r"test_half\.source=train isn't a test set"),
        (("dataset.test_splits.test_half.source=test_half",), r"test_half\.source leads back to test_half itself"),
        (
            ("dataset.test_splits.test_half.source=test_double", "dataset.test_splits.test_double.source=test_half"),
            r"source leads back to test_\w+ itself",
        ),
        (  # a loop that the first of them leads to without being part of it
            ("dataset.test_splits.test_half.source=test_double", "dataset.test_splits.test_double.source=test_double"),
            r"source leads back to test_double itself",
        ),
        (("+dataset.test_splits.test_half.problem.viscosity=1",), r"test_half has both source and problem"),
        (
            ("dataset.test_splits.test_half.tolerance=1",),
            r"test_half\.tolerance has no effect: the data come from test",
        ),
        (("dataset.test_splits.test_long.refine=2",), r"test_long\.refine has no effect without .*source=test"),
        ((_extra("long", n=2),), r"test_splits\.long: a further test set must be called test_<name>"),
        ((_extra("test", n=2),), r"test_splits\.test: a further test set must be called test_<name>"),
        ((_extra("test_a-b", n=2),), r"test_splits\.test_a-b: a further test set"),
        (("+splits.test_half=3",), r"test_splits\.test_half: .*unlike any other split"),
        (("dataset.test_splits.test_half.n=0",), r"test_half\.n must be at least 1, got 0"),
        (("dataset.test_splits.test_half.refine=0",), r"test_half\.refine must be at least"),
        (("dataset.test_splits.test_half.refine=1000",), r"test_half\.refine must be at most 64"),
        (("dataset.test_splits.test_half.refine=nan",), r"test_half\.refine must be at least"),
        (("dataset.test_splits.test_long.horizon=0",), r"test_long\.horizon must be at least 1"),
        (("dataset.test_splits.test_half.refien=2",), r"Unknown key .*refien. Did you mean .*test_half\.refine"),
        ((_extra("test_more", refien=2),), r"refien"),
        (("dataset.test_splits.test_long.problem.viscosty=1",), r"viscosty"),
        (("generation.part=2", "generation.n_parts=2"), r"generation\.part must be at most 1, got 2"),
        (("generation.part=-1",), r"generation\.part must be at least 0"),
        (("generation.n_parts=0",), r"generation\.n_parts must be at least 1"),
        (
            ("generation.part=0", "generation.n_parts=2", "mode=run"),
            r"generation\.part only has an effect with mode=",
        ),
    ],
)
def test_mistakes_are_explained(tiny: Compose, overrides: tuple[str, ...], expected: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011  (Hydra has its own)
        tiny(*(("+" + o if "viscosty" in o else o) for o in overrides))
    message = describe(raised.value)
    assert re.search(expected, message), message
    assert "debug=true" not in message


def test_a_grid_that_has_no_such_refinement_is_explained(tiny: Compose) -> None:
    cfg = tiny("dataset.test_splits.test_half.refine=0.3", "generation.splits=[test,test_half]")
    with pytest.raises(ValueError, match=r"^refine=0\.3 of a test split: .*not a whole number"):
        generate(cfg)
    assert not Path(cfg.paths.data).exists(), "known before anything is made"


def test_imported_data_are_not_generated(tmp_path: Path) -> None:
    cfg = composed(*TINY, "mode=generate")
    cfg.dataset.path = str(tmp_path)
    with pytest.raises(ConfigError, match="dataset=file uses imported data"):
        generate(cfg)
    assert list(tmp_path.iterdir()) == []
