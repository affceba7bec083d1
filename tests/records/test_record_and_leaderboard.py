"""Records survive a round trip; the board is a pure function of them."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.made_records import EVALUATION, RECORD

from neuralop_bench import leaderboard
from neuralop_bench.board.collect import Collection, Run, collect
from neuralop_bench.board.rows import COLUMNS, Board, Cell, board, run_rows
from neuralop_bench.board.tables import board_tables
from neuralop_bench.records.record import Evaluation, RecordError, RunRecord
from neuralop_bench.runtime.table import WIDTH, show


def _with(seed: int = 0, rel_l2: float = 0.2, model: str = "fno", **changes: object) -> RunRecord:
    metrics = {**RECORD.metrics, "rel_l2": rel_l2}
    samples = {"rel_l2": [0.9 * rel_l2, rel_l2, 1.1 * rel_l2]}
    run_id = f"{model}-s{seed}"
    return replace(RECORD, seed=seed, metrics=metrics, model=model, run_id=run_id, samples=samples, **changes)


def rows(records: Sequence[RunRecord]) -> list[dict[str, Cell]]:
    """Of runs that were never evaluated again."""
    return _board([Run(record) for record in records]).rows


def _board(runs: Sequence[Run]) -> Board:
    return board(Collection(tuple(runs)))


def test_record_round_trip_keeps_infinity_and_missing(tmp_path: Path) -> None:
    RECORD.save(tmp_path / "record.json")
    assert RunRecord.load(tmp_path / "record.json") == RECORD
    # Strict JSON: other programs read records too.
    json.loads((tmp_path / "record.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 99}'])
def test_an_unreadable_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RecordError, match=r"record\.json"):
        RunRecord.load(tmp_path / "record.json")


def test_seeds_are_aggregated_with_the_sample_standard_deviation() -> None:
    (row,) = rows([_with(0, 0.1), _with(1, 0.2), _with(2, 0.6)])
    assert row["rel_l2_mean"] == pytest.approx(0.3)
    assert row["rel_l2_sd"] == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert (row["n_seeds"], row["seeds"], row["rank"]) == (3, "0;1;2", 1)


def test_custom_runs_are_shown_and_never_ranked() -> None:
    table = rows([_with(track="custom", rel_l2=0.01), _with()])
    assert {row["track"]: row["rank"] for row in table} == {"custom": None, "lite": 1}


def test_diverged_runs_are_shown_without_numbers() -> None:
    diverged = replace(_with(model="bad"), status="diverged", metrics={}, data={})
    table = rows([diverged, _with()])
    assert [(row["model"], row["rank"], row["rel_l2_mean"], row["status"]) for row in table] == [
        ("fno", 1, 0.2, "self"),
        ("bad", None, None, "diverged"),
    ]


def test_a_seed_that_diverged_is_seen_in_its_row() -> None:
    (row,) = rows([_with(0), replace(_with(1), status="diverged", metrics={})])
    assert (row["n_seeds"], row["seeds"], row["status"]) == (1, "0;1", "diverged;self")


def test_a_metric_that_only_one_model_has_leaves_an_empty_cell() -> None:
    more = _with(0, 0.1, model="other", metric_versions={"rel_l2": 1, "vrmse": 3})
    more = replace(more, metrics={**more.metrics, "vrmse": 0.5})
    first, second = rows([_with(0), more])
    assert (first["model"], first["vrmse"]) == ("other", 0.5)
    assert second["vrmse"] is None
    (row,) = rows([more, replace(_with(1, model="other"), variant=more.variant)])
    assert row["vrmse"] is None, "a mean over some of the seeds would pass for one over all"


def test_csv_is_rfc_4180_with_empty_cells_for_what_is_missing(tmp_path: Path) -> None:
    awkward = replace(RECORD, variant='a,"b"', metrics={**RECORD.metrics, "rel_l2": 1 / 3})
    leaderboard.write(_board([Run(awkward)]), tmp_path)
    raw = (tmp_path / "leaderboard.csv").read_bytes()
    assert raw.count(b"\r\n") == 2
    assert b'"a,""b"""' in raw
    with open(tmp_path / "leaderboard.csv", newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        (row,) = reader
        assert list(reader.fieldnames or ()) == COLUMNS
    assert row["rel_l2_mean"] == "0.333333"
    assert row["n_parameters"] == "12345678"
    assert (row["vrmse"], row["max_error"], row["k_eff"], row["dirty"]) == ("", "inf", "", "false")
    with open(tmp_path / "runs.csv", newline="", encoding="utf-8") as handle:
        values = {row["metric"]: row["value"] for row in csv.DictReader(handle)}
    assert values["rel_l2"] == "0.333333"
    assert values["train_seconds"] == "1.5"


def test_command_line_writes_the_board_and_explains_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RECORD.save(tmp_path / "outputs" / "lite" / "record.json")
    RECORD.save(tmp_path / "outputs" / ".superseded" / "old" / "record.json")
    arguments = [str(tmp_path / "outputs"), "-o", str(tmp_path / "board")]
    assert leaderboard.main(arguments) == 0
    assert "1 records" in capsys.readouterr().out
    first = (tmp_path / "board" / "leaderboard.csv").read_bytes()
    assert leaderboard.main(arguments) == 0
    assert (tmp_path / "board" / "leaderboard.csv").read_bytes() == first
    assert leaderboard.main([str(tmp_path / "nowhere"), "-o", str(tmp_path / "board")]) == 1
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "outputs" / "record.json").write_text("{")
    assert leaderboard.main(arguments) == 0
    assert "record.json" in capsys.readouterr().err
    assert (tmp_path / "board" / "leaderboard.csv").read_bytes() == first


# Evaluations ---------------------------------------------------------------------------------------------------------


def _evaluated(seed: int = 0, **changes: object) -> Run:
    return Run(_with(seed), [replace(EVALUATION, run_id=f"fno-s{seed}", **changes)])


def test_evaluation_round_trip_keeps_infinity_in_every_table(tmp_path: Path) -> None:
    EVALUATION.save(tmp_path / "thorough.json")
    assert Evaluation.load(tmp_path / "thorough.json") == EVALUATION
    json.loads((tmp_path / "thorough.json").read_text(), parse_constant=pytest.fail)


def test_an_evaluation_fills_what_its_record_lacks() -> None:
    (row,) = _board([_evaluated()]).rows
    assert (row["transfer_half"], row["speedup_at_equal_error"], row["speedup_is_bound"]) == (0.25, 0.4, "<")
    assert (row["breakeven_solves"], row["data_error"], row["vrmse"]) == (math.inf, 0.01, 0.7)
    assert row["rel_l2_median"] == 0.1, "what the record has measured stands"
    assert row["metric_version"] == "rel_l2/v1;vrmse/v2"


def test_a_column_that_some_seeds_lack_is_empty() -> None:
    (row,) = _board([_evaluated(0), Run(_with(1))]).rows
    assert (row["n_seeds"], row["rel_l2_mean"], row["transfer_half"]) == (2, 0.2, None)
    other = _evaluated(1, metrics={**EVALUATION.metrics, "transfer_half": 0.35})
    (row,) = _board([_evaluated(0), other]).rows
    assert row["transfer_half"] == pytest.approx(0.3)


@pytest.mark.parametrize(("signs", "shown"), [((0.0, 0.0), "no"), ((1.0, 0.0), ">"), ((-1.0, 1.0), "mixed")])
def test_bounds_of_several_seeds(signs: tuple[float, float], shown: str) -> None:
    runs = [_evaluated(s, cost={**EVALUATION.cost, "speedup_is_bound": sign}) for s, sign in enumerate(signs)]
    (row,) = _board(runs).rows
    assert row["speedup_is_bound"] == shown


def test_further_test_sets_have_rows_of_their_own() -> None:
    table = {(row["setting"], row["metric"]): row for row in run_rows([_evaluated()])}
    assert table["test", "transfer_half"]["value"] == 0.25
    assert table["test_half", "rel_l2"]["value"] == 0.25
    assert table["test_half", "rel_l2"]["data_sha256"] == "bb"
    assert table["test", "rel_l2"]["data_sha256"] == "aa"


def test_evaluations_are_found_beside_runs_and_in_a_committed_board(tmp_path: Path) -> None:
    run, committed = tmp_path / "outputs" / "lite" / "seed=0", tmp_path / "board"
    _with(0).save(run / "record.json")
    EVALUATION.save(run / "evaluations" / "thorough.json")
    _with(1).save(committed / "records" / "lite" / "one.json")
    replace(EVALUATION, run_id="fno-s1").save(committed / "evaluations" / "lite" / "one.json")
    found = collect([tmp_path / "outputs", committed]).runs
    assert sorted(run.record.seed for run in found) == [0, 1]
    assert all(len(run.evaluations) == 1 for run in found)


# Tables --------------------------------------------------------------------------------------------------------------


def test_tables_hold_every_model_and_fit_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    long = replace(_with(model="a_model_with_a_long_name", rel_l2=0.5), variant="width=64+n_layers=9+lr=0.1-abcd1234")
    diverged = replace(_with(model="bad"), status="diverged", metrics={}, cost={}, data={})
    numbers = dict.fromkeys(COLUMNS, 123456.789)
    cost = {**numbers, "speedup_is_bound": -1.0}
    full = replace(_with(model="full"), metrics={**numbers, "rel_l2": 0.0123456}, cost=cost)
    seeds = [replace(full, seed=seed, run_id=f"full-{seed}") for seed in (1, 2)]
    tables = board_tables(_board([Run(record) for record in (long, diverged, full, *seeds)]))
    show(tables)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= WIDTH
    assert "…" not in printed
    kinds = [table.title.partition(": ")[2] for table in tables]
    assert [kind.split()[0] for kind in kinds] == ["error", "ratio", "spectral", "elsewhere", "cost", "beside"]
    for table in tables:
        ranked = ["full", "a_model_with_a_lo..."]
        assert [row[1] for row in table.rows] == (ranked if "ratio" in table.title else [*ranked, "bad"])
    assert tables[0].rows[0][3] == "0.0123 ± 0"
    assert tables[0].rows[2][3] == "diverged"


@pytest.mark.parametrize(
    ("speedup", "bound", "words"),
    [
        (0.25, "no", "solver, 4x"),
        (0.25, "<", "solver, >4x"),
        (0.25, ">", "solver, <4x"),
        (3.0, "no", "model, 3x"),
        (3.0, ">", "model, >3x"),
        (3.0, "<", "model, <3x"),
    ],
)
def test_the_verdict_says_who_is_faster(speedup: float, bound: str, words: str) -> None:
    cost = {"speedup_at_equal_error": speedup, "speedup_is_bound": {"<": -1.0, "no": 0.0, ">": 1.0}[bound]}
    (table,) = [table for table in board_tables(_board([_evaluated(cost=cost)])) if "solver" in table.title]
    assert table.rows[0][-1] == words


def test_an_error_close_to_that_of_the_data_is_marked() -> None:
    data = {"test": {"sha256": "aa", "error": 0.1}}
    (table,) = [table for table in board_tables(_board([_evaluated(data=data)])) if "solver" in table.title]
    assert table.rows[0][3] == "2 (!)"


def test_committed_records_form_the_committed_board(tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "leaderboard"
    assert [path.parent for path in committed.rglob("leaderboard.csv")] == [committed]
    leaderboard.write(board(collect([committed])), tmp_path)
    assert (tmp_path / "leaderboard.csv").read_bytes() == (committed / "leaderboard.csv").read_bytes(), (
        "run `make board-pages`"
    )


def test_the_readme_and_the_results_show_the_committed_records(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("write_readme_table", root / "scripts" / "write_readme_table.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    committed = board(collect([root / "leaderboard"]))
    best = min(row["rel_l2_mean"] for row in committed.rows if (row["track"], row["dataset"]) == ("lite", "ns2d"))
    assert set(script.PAGES) == {root / "README.md", root / "docs" / "results.md"}
    for page, content in script.PAGES.items():
        text = page.read_text(encoding="utf-8")
        assert script.filled(page, content(script.shown(committed))) == text, "run `make board-pages`"
        assert f"**{best:.3f}**" in text
    (tmp_path / "page.md").write_text("# A page\n")
    with pytest.raises(ValueError, match="no place"):
        script.filled(tmp_path / "page.md", "")
