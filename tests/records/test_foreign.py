"""Files of strangers: one wrong value is refused in words, or the board is made all the same."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import shutil
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.made_records import EVALUATION, RECORD, evaluation, record, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralop_bench import leaderboard, status
from neuralop_bench.board.collect import collect
from neuralop_bench.board.rows import Board
from neuralop_bench.records import run_directory
from neuralop_bench.records.profile import Profile, ProfileError
from neuralop_bench.records.record import RecordError, RunRecord, Verification
from neuralop_bench.runtime.table import plain

GOOD = record("good")
OTHER = record("other", error=0.03, seed=1)
VERIFICATION = Verification(
    run_id=OTHER.run_id,
    fingerprint=OTHER.fingerprint,
    confirmed=True,
    tolerance=1e-6,
    difference=3e-8,
    column="rel_l2",
    environment={"device": "cpu"},
    bench_version="0.1.0",
    commit="c0ffee",
    dirty=False,
    date_utc="2026-01-02T00:00:00+00:00",
)
# What files hold, by the folder of their kind.
KINDS: dict[str, Any] = {
    "records": OTHER,
    "evaluations": evaluation(OTHER),
    "verifications": VERIFICATION,
}


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = {"a": value}
    return value


WRONG = st.one_of(
    st.sampled_from(
        [
            *(None, True, -1, 0, 10**30, 10**400, -0.5, 1e308, 5e-324, "", "0", "inf", "x" * 100_000, [], [None], {}),
            *("\x1b[2J", "../../x", "un\u200bet", "\u0443net", "\ud800", "9999-12-31T00:00:00+00:00", "=1+1", "<b>"),
            *([[]], {"": None}, {"a": {"a": []}}, {"rel_l2": -1}, {"rel_l2": [0.1, None]}, ["a", 1]),
        ]
    ),
    st.builds(nested, st.sampled_from([30, 400])),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below one."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*above, key)
        yield from places(entry, (*above, key))


def content(entry: Any, folder: Path) -> dict[str, Any]:
    entry.save(folder / "plain.json")
    values = json.loads((folder / "plain.json").read_text())
    del values["sha256"]
    return values


def write(path: Path, values: dict[str, Any]) -> None:
    """With the right hash over the wrong content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**values, "sha256": found}))


def board_with(folder: Path, kind: str, values: dict[str, Any], *, draws: bool) -> Board:
    """The written board of one's own records and of somebody else's folder with a file of these values."""
    mine, theirs = folder / "mine", folder / "theirs"
    shutil.rmtree(mine, ignore_errors=True)
    shutil.rmtree(theirs, ignore_errors=True)
    save(mine, GOOD, *([OTHER] if kind != "records" else []))
    write(theirs / kind / "lite" / "foreign.json", values)
    found = Board.of(collect([mine, theirs]))
    leaderboard.write(found, folder / "out", draws=draws)
    return found


def ways(kind: str, folder: Path) -> list[tuple[Any, ...]]:
    # Fifty samples or a thousand characters of one array teach nothing new.
    return [place for place in places(content(KINDS[kind], folder)) if place[-1] not in range(2, 99)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


def put(values: dict[str, Any], place: tuple[Any, ...], wrong: Any) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = wrong
    return changed


def assert_good_row_stays(folder: Path, kind: str, values: dict[str, Any], *, draws: bool = False) -> None:
    board = board_with(folder, kind, values, draws=draws)
    kept = {run.record.run_id: run.record for run in board.runs}
    assert kept[GOOD.run_id].metrics == GOOD.metrics
    assert all(plain(str(refusal)) == str(refusal) for refusal in board.refusals)


@pytest.mark.parametrize(
    "examples", [pytest.param(10, id="few"), pytest.param(200, id="many", marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_value_at_any_depth_never_ends_a_board(scratch: Path, kind: str, examples: int) -> None:
    values = content(KINDS[kind], scratch)

    @settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )
    @given(place=st.sampled_from(ways(kind, scratch)), wrong=WRONG)
    def tried(place: tuple[Any, ...], wrong: Any) -> None:
        assert_good_row_stays(scratch, kind, put(values, place, wrong))

    tried()


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["records", "evaluations"])
def test_a_wrong_value_at_any_depth_never_ends_the_page(scratch: Path, kind: str) -> None:
    values = content(KINDS[kind], scratch)
    shown = [place for place in ways(kind, scratch) if place[0] not in ("environment", "files", "config")]

    @settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(place=st.sampled_from(shown), wrong=WRONG)
    def tried(place: tuple[Any, ...], wrong: Any) -> None:
        assert_good_row_stays(scratch, kind, put(values, place, wrong), draws=True)

    tried()


REFUSED: dict[str, tuple[str, tuple[str, ...], Any, str]] = {
    "a text for a number": ("records", ("seed",), "0", "seed: Input should be a valid integer"),
    "a missing table": ("records", ("config", "trainer"), None, "config.trainer"),
    "a negative error": ("records", ("samples", "rel_l2"), [0.1, -0.1], "samples.rel_l2.1"),
    "an error that is no number": ("records", ("samples", "rel_l2"), [0.1, None], "samples.rel_l2.1"),
    "a negative mean": ("records", ("metrics", "rel_l2"), -0.1, "rel_l2 is negative"),
    "a huge integer": ("records", ("metrics", "rel_l2"), 10**400, "metrics.rel_l2"),
    "a huge number": ("records", ("cost", "latency_ms"), 1e300, "latency_ms is too large"),
    "deep nesting": ("records", ("config", "a"), nested(400), "nested too deeply"),
    "deeper nesting": ("records", ("config", "a"), nested(900), "nested too deeply"),
    "a path": ("records", ("model",), "../../x", "model: String should match"),
    "a path of an evaluator": ("evaluations", ("evaluator",), "x/../../victim/settings", "evaluator: String"),
    "an invisible character": ("records", ("model",), "un\u200bet", "model: String should match"),
    "a letter that looks like another": ("records", ("model",), "\u0443net", "model: String should match"),
    "an escape sequence": ("records", ("message",), "\x1b[2J", "message: String should match"),
    "one in the configuration": ("records", ("config", "a"), ["\x1b[2J"], "can't be printed"),
    "the year 9999": ("records", ("date_utc",), "9999-01-01T00:00:00+00:00", "in the future"),
    "no date": ("records", ("date_utc",), "2026-13-01T00:00:00+00:00", "date_utc"),
    "10,000 test sets": (
        "evaluations",
        ("columns",),
        {f"t{i}": {"rel_l2": 1.0} for i in range(10_000)},
        "columns: Dict",
    ),
    "an unfinished rung": ("evaluations", ("rungs",), [{"resolution": "8x8"}], "rungs.0.relaxation"),
    "a wrong profile": ("records", ("profile", "times", "dtype"), "O", "profile.times.dtype"),
    "a text for a verdict": ("verifications", ("confirmed",), "yes", "confirmed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_with_its_reason(tmp_path: Path, name: str) -> None:
    kind, place, wrong, words = REFUSED[name]
    values = put(content(KINDS[kind], tmp_path), place, wrong)
    board = board_with(tmp_path, kind, values, draws=False)
    (refusal,) = board.refusals
    assert refusal.path.endswith("foreign.json")
    assert words in refusal.reason
    assert GOOD.run_id in {run.record.run_id for run in board.runs}


@pytest.mark.parametrize("overrides", ["[" * 2000 + "]" * 2000, "&a [*a]", "[1]", "[{a: b}]", "3", "[seed=0]"])
def test_a_foreign_configuration_of_a_run_never_ends_a_status(tmp_path: Path, overrides: str) -> None:
    run_directory.write_config(tmp_path, f"overrides: {overrides}\ntrainer: {{epochs: 2}}\n")
    command = run_directory.state(tmp_path).command
    assert command.endswith("run.py seed=0") == (overrides == "[seed=0]")


@pytest.mark.parametrize("what", ["a pipe", "a device", "a large file", "NaN", "no object"])
def test_what_is_no_ordinary_json_file_is_refused_at_once(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "outputs" / "lite" / "seed=0"
    run.mkdir(parents=True)
    path = run / "record.json"
    if what == "a pipe":
        os.mkfifo(path)
        os.mkfifo(run / "run.yaml")
    elif what == "a device":
        path.symlink_to("/dev/zero")
    elif what == "a large file":
        path.touch()
        os.truncate(path, 2**26)
    else:
        path.write_text('{"format": NaN}' if what == "NaN" else "[1]")
    with pytest.raises(RecordError, match=r"record\.json isn't a readable record"):
        RunRecord.load(path)
    assert status.main([str(tmp_path / "outputs")]) == 3
    assert "record.json isn't a readable record" in capsys.readouterr().out


def bomb(values: dict[str, Any], n: int, shape: list[int]) -> dict[str, Any]:
    packed = base64.b64encode(zlib.compress(bytes(4 * n), 9)).decode()
    return {**values, "step_errors": {"shape": shape, "dtype": "<f4", "zlib_base64": packed}}


@pytest.mark.parametrize("shape", [[20, 4], [2048, 2048], [2**22, 2**22]])
def test_a_profile_unpacks_to_no_more_than_its_shape_says(shape: list[int]) -> None:
    tracemalloc.start()
    with pytest.raises(ProfileError):
        Profile.from_json(bomb(GOOD.profile, 2**24, shape))
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()


def test_a_record_whose_profile_cannot_be_unpacked_keeps_its_row(tmp_path: Path) -> None:
    changed = replace(OTHER, profile=bomb(OTHER.profile, 100, [50, 2]))
    board = board_with(tmp_path, "records", content(changed, tmp_path), draws=True)
    assert {run.record.model for run in board.runs} == {"good", "other"}


def test_two_evaluations_within_a_second_with_a_hundred_test_sets_make_a_page(tmp_path: Path) -> None:
    many = {f"test_{i}": {"rel_l2": 1.0} for i in range(100)}
    twice = [replace(evaluation(OTHER), evaluator=name, columns=many) for name in ("thorough", "mine")]
    save(tmp_path, OTHER, *twice)
    leaderboard.write(Board.of(collect([tmp_path])), tmp_path / "out")
    assert "test_99" in (tmp_path / "out" / "index.html").read_text()


def other_hash(of: RunRecord) -> RunRecord:
    return replace(of, data={**of.data, "test": {**of.data["test"], "sha256": "99" * 32}})


@pytest.mark.parametrize("what", ["other data", "other versions", "the same run"])
def test_records_of_others_never_displace_ones_own(tmp_path: Path, what: str) -> None:
    theirs = [record(name, error=0.001, date_utc="2026-05-01T00:00:00+00:00") for name in ("a", "b", "c")]
    if what == "other data":
        theirs = [other_hash(entry) for entry in theirs]
    elif what == "other versions":
        theirs = [replace(entry, metric_versions={**GOOD.metric_versions, "rel_l2": 9}) for entry in theirs]
    else:
        theirs = [replace(GOOD, date_utc="2026-05-01T00:00:00+00:00", wall_seconds=1e-6)]
    found = collect([save(tmp_path / "mine", GOOD), save(tmp_path / "theirs", *theirs)])
    assert [run.record for run in found.runs] == [GOOD]
    assert len(found.refusals) == len(theirs)
    assert GOOD not in [run.record for run in collect([tmp_path / "theirs", tmp_path / "mine"]).runs]


def test_evaluations_of_others_never_displace_ones_own(tmp_path: Path) -> None:
    theirs = replace(evaluation(GOOD), date_utc="2026-05-01T00:00:00+00:00", cost={"latency_ms": 1e-3})
    mine = replace(evaluation(GOOD), cost={"latency_ms": 5.0})
    folders = [save(tmp_path / "mine", GOOD, mine), save(tmp_path / "theirs", theirs)]
    assert collect(folders).runs[0].cost["latency_ms"] == 5.0
    assert collect(folders[::-1]).runs[0].cost["latency_ms"] == 1e-3


def test_whatever_a_configuration_says_goes_to_the_terminal_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "\x1b[2J").mkdir()
    (tmp_path / "\x1b[2J" / "record.json").write_text('{"format": "\\u001b[2J"}')
    GOOD.save(tmp_path / "record.json")
    assert leaderboard.main([str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    status.main([str(tmp_path)])
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "\\x1b[2J" in printed.err


def test_the_schema_takes_what_is_saved(tmp_path: Path) -> None:
    for entry in (RECORD, EVALUATION, VERIFICATION, GOOD):
        entry.save(tmp_path / "one.json")
        assert asdict(type(entry).load(tmp_path / "one.json")) == asdict(entry)
