"""Published values: all of them are there, and whether a run is comparable with one follows from a rule."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from neuralop_bench.board.collect import Collection
from neuralop_bench.board.rows import Board
from neuralop_bench.board.run import Run
from neuralop_bench.config import schema
from neuralop_bench.config.compose import compose
from neuralop_bench.config.identity import identity
from neuralop_bench.config.recorded import of_record
from neuralop_bench.records import published
from neuralop_bench.records.published import Published, comparable, differences, nearest
from neuralop_bench.records.record import RunRecord
from neuralop_bench.runtime.place import CONFIG_DIR

# The published values that the protocol lists, by problem: who, points per axis, value. Written by hand.
BURGERS_AND_DARCY = """
    burgers1d  fno_2020      256   .0149
    burgers1d  fno_2020      512   .0158
    burgers1d  fno_2020      1024  .0160
    burgers1d  fno_2020      2048  .0146
    burgers1d  fno_2020      4096  .0142
    burgers1d  fno_2020      8192  .0139
    burgers1d  fno_2020      1024  .0025
    darcy2d    fno_2020      85    .0108
    darcy2d    fno_2020      141   .0109
    darcy2d    fno_2020      211   .0109
    darcy2d    fno_2020      421   .0098
    darcy2d    fno           421   .0076
    burgers1d  galerkin      2048  1e-3
    darcy2d    galerkin      141   8e-3
    darcy2d    galerkin      141   1e-2
"""
NS = "1e-3 fno_3d .0086  1e-3 fno_2020 .0128  1e-5 fno_2020 .1556  1e-5 fno_3d .1893"
LSM_TABLE = """
    unet .1982/.0080  ResNet .2753/.0587  Swin .2248/.0397  deeponet .2972/.0588  fno_2020 .1556/.0108
    U-FNO .2231/.0183  mwt_nsl .1541/.0082  galerkin .2684/.0170  SNO .2568/.0495  uno .1713/.0113  ffno .2322/.0077
    HT-Net .1847/.0079  lsm .1535/.0065
"""
TRANSOLVER_TABLE = """
    galerkin .1401/.0084  OFormer .1705/.0124  gnot .1380/.0105  factformer .1214/.0109  ONO .1195/.0076
    transolver .0900/.0057
"""
QUOTED = """
    darcy2d    mgno          256  .00339  rel_l2
    darcy2d    mgno          256  .0138   rel_h1
    darcy2d    mgno          256  .00715  rel_l2
    darcy2d    mgno          256  .01756  rel_h1
    burgers1d  deeponet      128  .0215   rel_l2
    burgers1d  pod_deeponet  128  .0194   rel_l2
    burgers1d  fno_2020      128  .0193   rel_l2
    darcy2d    deeponet      29   .0298   rel_l2
    darcy2d    pod_deeponet  29   .0232   rel_l2
    darcy2d    fno_2020      29   .0241   rel_l2
"""
# Medians for Burgers, Korteweg-de Vries and Kuramoto-Sivashinsky.
APEBENCH = """
    conv_net .0265/.1225/.343  res_net .0128/.876/.242  unet_strided .0649/.0963/.411
    dilated_res_net .0571/.0769/.284  fno_apebench .0698/.210/1.04
"""
# One of each problem.
REPRESENTATIVES = ("fno_burgers1024", "fno_darcy85", "fno_ns_nu1e-5", "apebench_burgers", "apebench_kdv", "apebench_ks")
# APEBench's results for its two linear equations aren't in the list.
PAPERS = sorted(
    {path.stem for path in (CONFIG_DIR / "experiment" / "paper").glob("*.yaml")}
    - {"apebench_advection", "apebench_diffusion", "apebench_imported"}
)

LAW = {"viscosity": 1e-5, "interval": 1.0, "initial.tau": 7.0}
RECORD = RunRecord(
    run_id="full-ns2d-fno-abc-s0",
    model="fno",
    variant="default-abc",
    dataset="ns2d",
    track="full",
    task="ns2d",
    seed=0,
    status="finished",
    message="",
    metrics={"rel_l2": 0.2},
    metric_versions={"rel_l2": 1},
    cost={},
    data={"train": {"n": 1000}, "test": {"sha256": "aa", "n": 200, "version": 1, "resolution": "64x64"}},
    config={
        "dataset": {
            "problem": {
                "_target_": "data_gen.problems.ns2d.NavierStokes2D",
                "viscosity": 1e-5,
                "first_time": 1.0,
                "interval": 1.0,
                "initial": {"tau": 7},
            },
            "path": None,
            "history": 10,
            "horizon": 10,
        },
        "published": {"id": None},
    },
    config_hash="abc",
    environment={},
    bench_version="0.1.0",
    commit="c0ffee",
    dirty=False,
    date_utc="2026-01-01T00:00:00+00:00",
    wall_seconds=2.0,
)
MATCHING = Published(
    id="matching",
    model="fno",
    problem="ns2d",
    parameters=LAW,
    resolution=64,
    n_train=1000,
    n_test=200,
    history=10,
    horizon=10,
    final_time=20.0,
    metric="rel_l2",
    split="best on valid",
    normalization="per channel",
    data="files of somebody",
    data_sha256=("aa", "cc"),
    value=0.1,
    source="Somebody (2026)",
    verified=True,
)


def _of_dataset(**changes: Any) -> RunRecord:
    dataset = {**RECORD.config["dataset"], **changes}
    return replace(RECORD, config={**RECORD.config, "dataset": dataset})


# The list ------------------------------------------------------------------------------------------------------------


# Of the FNO, for each parameter in the two printed versions.
PDEBENCH = {
    "advection1d": (0.0077, 0.0093, 0.010, 0.011, 0.0097, 0.0059, 0.0067, 0.010),
    "burgers1d": (0.0040, 0.0031, 0.0029, 0.0045, 0.0078, 0.020, 0.029, 0.042),
}


def _expected() -> list[tuple[object, ...]]:
    """Problem, viscosity of Navier-Stokes, model, points per axis, value, metric and whether it is verified."""
    rows: list[tuple[object, ...]] = []
    for line in BURGERS_AND_DARCY.split("\n")[1:-1]:
        problem, model, points, value = line.split()
        rows.append((problem, None, model, int(points), float(value), "rel_l2", True))
    words = NS.split()
    for viscosity, model, value in zip(words[::3], words[1::3], words[2::3], strict=True):
        rows.append(("ns2d", float(viscosity), model, 64, float(value), "rel_l2", True))
    for words in (LSM_TABLE.split(), TRANSOLVER_TABLE.split()):
        for model, pair in zip(words[::2], words[1::2], strict=True):
            ns, darcy = map(float, pair.split("/"))
            rows += [("ns2d", 1e-5, model, 64, ns, "rel_l2", True), ("darcy2d", None, model, 85, darcy, "rel_l2", True)]
    words = APEBENCH.split()
    for model, values in zip(words[::2], words[1::2], strict=True):
        for problem, value in zip(("burgers1d", "kdv1d", "ks1d"), values.split("/"), strict=True):
            rows.append((problem, None, model, 160, float(value), "nrmse_gmean_100", False))
    for problem, values in PDEBENCH.items():
        rows += [(problem, None, "fno", 256, value, "nrmse", False) for value in values]
    rows.append(("ns2d", 1e-3, "sfno", 64, 0.00864, "rel_l2", False))  # Spectral-Refiner
    for line in QUOTED.split("\n")[1:-1]:
        problem, model, points, value, metric = line.split()
        rows.append((problem, None, model, int(points), float(value), metric, False))
    return rows


def test_the_list_has_every_value_of_the_protocol_and_no_other() -> None:
    found = [
        (
            entry.problem,
            entry.parameters["viscosity"] if entry.problem == "ns2d" else None,
            entry.model,
            entry.resolution,
            entry.value,
            entry.metric,
            entry.verified,
        )
        for entry in published.load()
    ]
    assert sorted(map(str, found)) == sorted(map(str, _expected()))


def test_every_source_can_be_looked_up() -> None:
    for entry in published.load():
        assert "arXiv" in entry.source or "issue" in entry.source, entry.id
        assert entry.url is not None
        assert entry.url.startswith("https://"), entry.id
        assert ("quoted" in entry.source) == (not entry.verified), entry.id


def test_names_of_models_are_ours_where_we_have_them() -> None:
    ours = {path.stem for path in (CONFIG_DIR / "model").glob("*.yaml")}
    for entry in published.load():
        assert entry.model in ours or not entry.model.islower(), entry.id
        assert set(entry.also) <= ours - {entry.model}, entry.id


# The rule ------------------------------------------------------------------------------------------------------------


def test_a_run_that_matches_in_everything_is_comparable() -> None:
    assert differences(MATCHING, RECORD) == ()
    assert comparable(MATCHING, RECORD)


CHANGES: dict[str, Mapping[str, Any]] = {
    "model": {"model": "fno_2020"},
    "problem": {"problem": "burgers1d"},
    "viscosity": {"parameters": {**LAW, "viscosity": 1e-4}},
    "initial.tau": {"parameters": {**LAW, "initial.tau": 5.0}},
    "resolution": {"resolution": 128},
    "history": {"history": 1},
    "horizon": {"horizon": 40},
    "final_time": {"final_time": 19.0},
    "n_train": {"n_train": 999},
    "n_test": {"n_test": 100},
    "metric": {"metric": "rel_h1"},
    "split": {"split": "last epoch"},
    "normalization": {"normalization": "per place"},
    "data": {"data_sha256": ("bb",)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_condition_that_differs_is_named(name: str) -> None:
    (text,) = differences(replace(MATCHING, **CHANGES[name]), RECORD)
    assert text.startswith(f"{name}: ")
    assert not comparable(replace(MATCHING, **CHANGES[name]), RECORD)


@pytest.mark.parametrize(
    "name", ["resolution", "history", "horizon", "final_time", "n_train", "n_test", "split", "normalization"]
)
def test_a_condition_that_is_not_known_counts_as_differing(name: str) -> None:
    (text,) = differences(replace(MATCHING, **{name: None}), RECORD)
    assert text.startswith(f"unknown {name} there")


def test_a_parameter_that_is_not_known_counts_as_differing() -> None:
    (text,) = differences(replace(MATCHING, parameters={**LAW, "viscosity": None}), RECORD)
    assert text == "unknown viscosity there, 1e-05 here"
    (text,) = differences(replace(MATCHING, parameters={**LAW, "forcing.sine": 0.1}), RECORD)
    assert text == "unknown forcing.sine here, 0.1 there"
    (text,) = differences(replace(MATCHING, parameters={**LAW, "forcing.sine": None}), RECORD)
    assert text == "unknown forcing.sine"


def test_data_are_the_same_by_their_hash_alone() -> None:
    (text,) = differences(replace(MATCHING, data_sha256=()), RECORD)
    assert text == "data: files of somebody there, drawn and solved here"
    (text,) = differences(replace(MATCHING, data_sha256=(), data=None), RECORD)
    assert text.startswith("unknown data")
    imported = replace(_of_dataset(path="folder", problem={}), dataset="files of somebody")
    assert "unknown hash of the data" in differences(replace(MATCHING, data_sha256=()), imported)[-1]


def test_imported_files_with_the_hash_are_comparable_though_a_record_does_not_tell_their_law() -> None:
    imported = replace(_of_dataset(path="folder", problem={}), dataset="navier_stokes")
    assert differences(MATCHING, imported) == ()
    assert nearest(imported, [MATCHING]) == MATCHING
    assert nearest(imported, [replace(MATCHING, data_sha256=("bb",))]) is None


def test_the_grid_and_the_last_time_of_a_run() -> None:
    oblong = replace(RECORD, data={**RECORD.data, "test": {**RECORD.data["test"], "resolution": "64x32"}})
    assert differences(MATCHING, oblong) == ("resolution: 64 there, 64x32 here",)
    assert differences(replace(MATCHING, history=0, final_time=0.0), _of_dataset(history=0)) == ()


def test_a_failed_run_has_much_that_is_not_known() -> None:
    failed = replace(RECORD, data={}, config={}, status="failed")
    assert {"unknown resolution here, 64 there", "unknown n_train here, 1000 there"} <= set(
        differences(MATCHING, failed)
    )
    assert published.cells(failed) == {"comparable": None, "published_value": None, "published_source": None}


# The row -------------------------------------------------------------------------------------------------------------


def test_the_nearest_has_the_fewest_differences() -> None:
    further = [replace(MATCHING, id=f"n{i}", source="A", n_train=i, n_test=i) for i in range(3)]
    assert nearest(RECORD, [*further, MATCHING]) == MATCHING


def test_the_nearest_does_not_depend_on_the_order() -> None:
    ties = [
        replace(MATCHING, id=f"{source}{value}{name}", source=source, value=value)
        for source in ("A", "B")
        for value in (0.1, 0.2)
        for name in ("a", "b")
    ]
    for seed in range(10):
        shuffled = random.Random(seed).sample(ties, len(ties))
        assert nearest(RECORD, shuffled) == ties[0]


@pytest.mark.parametrize("name", ["model", "problem", "viscosity", "initial.tau", "resolution"])
def test_another_task_or_model_is_not_near(name: str) -> None:
    assert nearest(RECORD, [replace(MATCHING, **CHANGES[name])]) is None


def test_a_variant_of_the_network_is_near_and_differs() -> None:
    kin = replace(MATCHING, model="fno_2020", also=("fno",))
    assert nearest(RECORD, [kin]) == kin
    assert differences(kin, RECORD) == ("model: fno_2020 there, fno here",)


def test_a_parameter_that_nobody_knows_does_not_hide_a_value() -> None:
    entry = replace(MATCHING, parameters={**LAW, "initial.tau": None})
    assert nearest(RECORD, [entry]) == entry
    assert nearest(_of_dataset(problem={**RECORD.config["dataset"]["problem"], "initial": {}}), [entry]) is None


def _with(node: Mapping[str, Any], **changes: Any) -> RunRecord:
    return replace(RECORD, config={**RECORD.config, "published": node}, **changes)


def test_the_board_shows_the_value_that_the_configuration_names() -> None:
    (row,) = Board.of(Collection((Run(_with({"id": "lsm_ns_nu1e-5"})),))).rows
    assert (row["comparable"], row["published_value"]) == ("no", 0.1535)
    assert "2301.12664" in str(row["published_source"])


def test_the_board_shows_the_value_that_an_older_record_holds() -> None:
    node = {"value": 0.0108, "source": "as it was written then"}
    (row,) = Board.of(Collection((Run(_with(node)),))).rows
    assert (row["comparable"], row["published_value"], row["published_source"]) == ("no", *node.values())
    assert published.shown(_with(node)) is None, "it isn't of this task, so nothing tells what it was measured on"
    older = replace(_with(node), config={**_with(node).config, "task": "fno_darcy85"})
    assert published.shown(older) == published.by_id()["fno_darcy85"]
    assert published.cells(older)["published_source"] == "as it was written then"


@cache
def _lsm_problem() -> dict[str, Any]:
    return compose("track=full", "model=lsm").dataset.problem


@pytest.mark.parametrize(
    "node", [None, {}, {"id": None}, {"value": None, "source": None}, {"id": "of a later version"}]
)
def test_the_board_shows_the_nearest_beside_other_runs(node: Any) -> None:
    record = _with(node, model="lsm")
    problem = _lsm_problem()
    near = replace(record, config={**record.config, "dataset": {**record.config["dataset"], "problem": problem}})
    assert published.cells(near)["published_value"] == 0.1535
    assert published.cells(_with(node, model="nothing known"))["comparable"] is None


def test_comparable_runs_are_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "load", lambda: (MATCHING,))
    assert published.cells(RECORD) == {
        "comparable": "yes",
        "published_value": 0.1,
        "published_source": "Somebody (2026)",
    }


# Experiments ---------------------------------------------------------------------------------------------------------


def _as_record(cfg: schema.RunConfig) -> RunRecord:
    """What a finished run's record would tell of a configuration."""
    n_axes = 1 if "burgers1d" in cfg.dataset.problem["_target_"] else 2
    test = {
        "n": cfg.splits["test"],
        "sha256": "aa",
        "resolution": "x".join([str(cfg.dataset.problem["resolution"])] * n_axes),
    }
    return replace(
        RECORD,
        model=cfg.model["label"],
        task=cfg.task,
        config=asdict(cfg),
        data={"train": {"n": cfg.splits["train"]}, "test": test},
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in REPRESENTATIVES else pytest.mark.exhaustive) for name in PAPERS],
)
def test_an_experiment_is_the_task_of_its_value(name: str) -> None:
    cfg = compose(f"experiment=paper/{name}")
    record = _as_record(cfg)
    entry = published.shown(record)
    assert entry is not None
    # For several networks or parameters, the value follows from those.
    assert entry.id.startswith(cfg.published.id or name)
    unlike = [text for text in differences(entry, record) if not text.startswith("unknown")]
    # What docs/published_experiments.md says to be otherwise than in the papers, and nothing else.
    assert {text.partition(":")[0] for text in unlike} <= {"data", "split", "normalization"}
    assert entry in published.load()
    assert nearest(record, [entry]) == entry


def test_a_run_made_before_there_was_a_list_can_be_evaluated() -> None:
    cfg = compose("experiment=paper/fno_darcy85")
    record = _as_record(cfg)
    for node, expected in (
        ({"value": 0.0108, "source": "as it was written then"}, "fno_darcy85"),
        ({"value": 0.5, "source": "another"}, None),
        ({"value": None, "source": None}, None),
        ({"id": "fno_darcy85"}, "fno_darcy85"),
    ):
        before = replace(record, config={**record.config, "published": node})
        assert of_record(before, Path("run")).published.id == expected


def test_the_published_value_is_no_part_of_the_identity() -> None:
    named = compose("experiment=paper/fno_darcy85")
    without = compose("experiment=paper/fno_darcy85", "published.id=null")
    assert identity(without) == identity(named)


# Mistakes in the file ------------------------------------------------------------------------------------------------

GOOD = """
entries:
  - {id: a, model: fno, problem: ns2d, parameters: {viscosity: 1.0e-5}, resolution: 64, n_train: 1, n_test: 1,
     history: 10, horizon: 10, final_time: null, metric: rel_l2, split: null, normalization: null, data: null,
     value: 0.1, source: "S (2026)", verified: true}
"""


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("value: 0.1, ", "", r"broken\.yaml, entry 1 \(a\): value is missing"),
        ('source: "S (2026)", ', "", r"entry 1 \(a\): source is missing"),
        ('"S (2026)"', '" "', r"\(a\): source must not be empty"),
        ("value: 0.1", "value: null", r"\(a\): value must be of type float, got None"),
        ("value: 0.1", "value: 1e-5", r"\(a\): value must be of type float, got '1e-5'"),
        ("value: 0.1", "value: -0.1", r"\(a\): value must be a positive number"),
        ("value: 0.1", "value: .nan", r"\(a\): value must be a positive number"),
        ("resolution: 64", "resolution: 64x64", r"\(a\): resolution must be of type int \| None, got '64x64'"),
        ("verified: true", "verified: 1", r"\(a\): verified must be of type bool, got 1"),
        ("n_train: 1,", "n_train: true,", r"\(a\): n_train must be of type int \| None, got True"),
        ("metric: rel_l2", "metric: l2", r"\(a\): metric must be of type .*rel_l2.*, got 'l2'"),
        ("{viscosity: 1.0e-5}", "{forcing: 1.0, viscosity: 1e-5}", r"\(a\): parameters\.viscosity must be a number"),
        ("id: a, ", "id: a, valeu: 1, ", r"\(a\): unknown key valeu\. Known: id, model"),
        ("id: a, ", "", r"entry 1: id is missing"),
        ("entries:", "entry:", "must have a list of entries"),
        ("entries:", "entries:\n  - 3", "entry 1 must be a mapping"),
        ("entries:", "entries: {", "isn't valid YAML"),
    ],
)
def test_mistakes_in_the_file_are_explained(tmp_path: Path, right: str, wrong: str, expected: str) -> None:
    path = tmp_path / "broken.yaml"
    assert GOOD.count(right) == 1
    path.write_text(GOOD.replace(right, wrong))
    with pytest.raises(ValueError, match=expected):
        published.load(path)


def test_an_id_is_given_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(GOOD)
    (entry,) = published.load(path)
    assert (entry.id, entry.also, entry.remark) == ("a", (), None)
    path = tmp_path / "again.yaml"
    path.write_text(GOOD + GOOD.split("entries:")[1])
    with pytest.raises(ValueError, match="several entries with id a"):
        published.load(path)
