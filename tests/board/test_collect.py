"""What belongs on a board, and why the rest doesn't: a bad file never takes the others with it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.made_records import evaluation, record, save, three_models

from neuralop_bench.board.collect import Collection, collect
from neuralop_bench.records.record import RECORD_FORMAT, RECORD_NAME, RunRecord

FOREIGN = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda _: "",
    "no JSON": lambda _: "\x89PNG",
    "a list": lambda _: "[1, 2]",
    "of another program": lambda _: json.dumps({"accuracy": 0.9}),
    "edited": lambda text: text.replace('"seed": 0', '"seed": 7'),
    "not text": lambda _: b"\xff\xfe\x00".decode("latin-1"),
}


def only_reason(found: Collection) -> str:
    (refusal,) = found.refusals
    return refusal.reason


@pytest.mark.parametrize("damage", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_record_is_named_and_the_others_stand(tmp_path: Path, damage: Callable[[str], str]) -> None:
    save(tmp_path, record(seed=1), record(seed=0))
    path = tmp_path / "records" / "lite" / "1.json"
    path.write_text(damage(path.read_text()))
    found = collect([tmp_path])
    assert [run.record.seed for run in found.runs] == [1]
    assert found.refusals[0].path == str(path)
    assert "isn't a readable record" in only_reason(found)


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    save(tmp_path, record(seed=1), record(seed=0))
    path = tmp_path / "records" / "lite" / "1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": RECORD_FORMAT + 1}))
    found = collect([tmp_path])
    assert len(found.runs) == 1
    assert f"has format {RECORD_FORMAT + 1}" in only_reason(found)
    assert "the release that wrote it" in only_reason(found)


def test_copies_count_once_and_of_different_ones_the_later_stands(tmp_path: Path) -> None:
    first = record()
    save(tmp_path / "a", first)
    save(tmp_path / "b", first)
    assert len(collect([tmp_path / "a", tmp_path / "b"]).runs) == 1
    assert collect([tmp_path / "a", tmp_path / "b"]).refusals == ()
    later = replace(first, date_utc="2026-02-01T00:00:00+00:00", metrics={**first.metrics, "vrmse": 0.5})
    save(tmp_path / "c", later)
    found = collect([tmp_path / "c", tmp_path / "a"])
    assert [run.record.metrics["vrmse"] for run in found.runs] == [0.5]
    assert "another record claims the same run" in only_reason(found)
    assert "Keep one of the two" in only_reason(found)


def test_one_id_for_two_models_is_one_too_many(tmp_path: Path) -> None:
    stolen = replace(record("unet"), run_id=record().run_id, date_utc="2025-01-01T00:00:00+00:00")
    found = collect([save(tmp_path, record(), stolen)])
    assert [run.record.model for run in found.runs] == ["fno"]
    assert "another record claims the same run" in only_reason(found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {}}, "hash of the test data"),
        ({"data": {"test": {"n": 3}}}, "hash of the test data"),
        ({"config": {}}, "the configuration is missing"),
        ({"config_hash": ""}, "config_hash"),
        ({"environment": {}}, "environment"),
        ({"bench_version": ""}, "bench_version"),
        ({"metric_versions": {}}, "version of the metric rel_l2"),
    ],
)
def test_a_record_without_provenance_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    found = collect([save(tmp_path, record("good"), record("bad", **changes))])
    assert [run.record.model for run in found.runs] == ["good"]
    assert "no provenance" in only_reason(found)
    assert words in only_reason(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda errors: [error / 2 for error in errors], "the mean over its samples is"),
        (lambda errors: [errors[0] * (1 + 1e-6), *errors[1:]], "the mean over its samples is"),
        (lambda errors: [math.inf, *errors[1:]], "the mean over its samples is inf"),
        (lambda errors: [sum(errors) / len(errors)] * 2, "rel_l2 of 2 samples, but its test data have 20"),
    ],
    ids=["half", "a little", "infinite", "too few"],
)
@pytest.mark.parametrize("kind", ["record", "evaluation"])
def test_errors_per_sample_that_are_not_those_of_the_mean_are_refused(
    tmp_path: Path, kind: str, change: Callable[[list[float]], list[float]], words: str
) -> None:
    of = record()
    samples = {"rel_l2": change(of.samples["rel_l2"])}
    is_record = kind == "record"
    entries = [replace(of, samples=samples)] if is_record else [of, evaluation(of, samples=samples)]
    found = collect([save(tmp_path, record(seed=1), *entries)])
    assert [run.record.seed for run in found.runs] == ([1] if is_record else [0, 1])
    assert [run.evaluations for run in found.runs] == [[] for _ in found.runs]
    assert words in only_reason(found)


def test_a_run_that_diverged_needs_no_test_data(tmp_path: Path) -> None:
    diverged = record("bad", status="diverged", metrics={}, metric_versions={}, data={}, samples={}, profile={})
    assert collect([save(tmp_path, diverged)]).refusals == ()


def _other_data(of: RunRecord) -> RunRecord:
    return replace(of, data={**of.data, "test": {**of.data["test"], "sha256": "99" * 32}})


def test_other_test_data_are_refused_in_their_group_alone(tmp_path: Path) -> None:
    others = [_other_data(record("unet", dataset="darcy2d"))]
    found = collect([save(tmp_path, record(), record(seed=1), _other_data(record("late")), *others)])
    assert {run.record.model for run in found.runs} == {"fno", "unet"}
    assert "its test data (999999999999)" in only_reason(found)
    assert "paths.data" in only_reason(found)
    assert found.refusals[0].run_id == record("late").run_id


def test_of_two_halves_the_later_data_stand(tmp_path: Path) -> None:
    later = replace(_other_data(record("unet")), date_utc="2026-03-01T00:00:00+00:00")
    found = collect([save(tmp_path, record(), later)])
    assert [run.record.model for run in found.runs] == ["unet"]


def test_other_versions_of_metrics_are_refused(tmp_path: Path) -> None:
    old = record("old", metric_versions={"rel_l2": 1, "vrmse": 9})
    found = collect([save(tmp_path, record(), record(seed=1), old)])
    assert [run.record.model for run in found.runs] == ["fno", "fno"]
    assert "vrmse/v9, not v1" in only_reason(found)
    assert "force=true" in only_reason(found)


def test_custom_runs_have_data_of_their_own(tmp_path: Path) -> None:
    mine = [record("a", track="custom"), _other_data(record("b", track="custom"))]
    found = collect([save(tmp_path, *mine)])
    assert len(found.runs) == 2
    assert found.refusals == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"test": {"sha256": "other"}}}, "its test data aren't those of the record"),
        ({"metric_versions": {"rel_l2": 2}}, "rel_l2 in another version"),
        ({"metrics": {"rel_l2": 0.5}}, "its rel_l2 is 0.5"),
        ({"cost": {"n_parameters": 10}}, "its n_parameters is 10, but the record's is 1000"),
    ],
)
def test_an_evaluation_of_something_else_is_refused_and_its_record_stands(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    found = collect([save(tmp_path, record(), evaluation(record(), **changes))])
    assert [run.evaluations for run in found.runs] == [[]]
    assert words in only_reason(found)
    assert "force=true" in only_reason(found)


def test_an_evaluation_without_its_record_is_passed_over(tmp_path: Path) -> None:
    assert collect([save(tmp_path, record(), evaluation(record(seed=3)))]).refusals == ()


def test_superseded_runs_are_not_looked_at(tmp_path: Path) -> None:
    record().save(tmp_path / "lite" / "seed=0" / RECORD_NAME)
    record(seed=1).save(tmp_path / ".superseded" / "old" / RECORD_NAME)
    assert [run.record.seed for run in collect([tmp_path]).runs] == [0]


def test_the_order_of_files_says_nothing(tmp_path: Path) -> None:
    entries = [*three_models(), *(evaluation(one) for one in three_models()), _other_data(record("late"))]
    expected = collect([save(tmp_path / "0", *entries)])
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(entries, len(entries))
        found = collect([save(tmp_path / str(seed), *shuffled)])
        assert found.runs == expected.runs
        assert [one.reason for one in found.refusals] == [one.reason for one in expected.refusals]
