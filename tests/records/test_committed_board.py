"""A committed board: what lies there is done, what is run is filed there, and nothing is taken for what it isn't."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import pytest
from helpers.command import told

from data_gen.generation import cache
from neuralop_bench import pipeline
from neuralop_bench.board.collect import collect
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import identity, run_directory
from neuralop_bench.config.recorded import for_evaluation
from neuralop_bench.records.committed_board import CommittedBoard, FilingError, stem
from neuralop_bench.records.record import Evaluation, RecordError, RunRecord, Verification
from neuralop_bench.records.run_directory import RunError
from neuralop_bench.records.sweep_file import sweeps

pytestmark = pytest.mark.usefixtures("no_figures")

COMMITTED = Path(__file__).parents[2] / "leaderboard"
NAME = "burgers1d_mean_field_seed0"
SCORED = RunRecord.load(COMMITTED / "records" / "lite" / f"{NAME}.json")
EVALUATED = Evaluation.load(COMMITTED / "evaluations" / "lite" / f"{NAME}.json")


def run_folder(folder: Path, record: RunRecord, *evaluators: str) -> Path:
    record.save(folder / "record.json")
    for name in evaluators:
        evaluation = replace(EVALUATED, evaluator=name, run_id=record.run_id)
        evaluation.save(folder / "evaluations" / f"{name}.json")
    return folder


def renamed(record: RunRecord, config_hash: str, label: str = "default") -> RunRecord:
    """The same with another configuration."""
    run_id = record.run_id.replace(record.config_hash, config_hash)
    return replace(record, run_id=run_id, config_hash=config_hash, variant=f"{label}-{config_hash}")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# Filing and finding --------------------------------------------------------------------------------------------------


def test_a_run_that_was_filed_is_found_with_its_evaluations(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", SCORED, "thorough", "standard-0a1b2c3d")
    board = CommittedBoard(tmp_path / "board")
    assert board.find("lite", SCORED.run_id, run=run) is None
    assert len(board.file(run)) == 3
    assert files(board.folder) == {
        f"records/lite/{NAME}.json",
        f"evaluations/lite/{NAME}.json",
        f"evaluations/lite/{NAME}.standard-0a1b2c3d.json",
    }
    for reader in (board, CommittedBoard(tmp_path / "board")):
        for evaluator in (None, "thorough", "standard-0a1b2c3d"):
            found = reader.find("lite", SCORED.run_id, evaluator, run=run)
            assert found is not None
            assert found.record == SCORED
            assert found.reason == f"committed: {board.folder}/records/lite/{NAME}.json, relative L2 0.9992"
        assert reader.find("lite", SCORED.run_id, "thorough-0a1b2c3d", run=run) is None
        assert reader.find("lite", renamed(SCORED, "00000000").run_id, run=run) is None
        assert reader.find("smoke", SCORED.run_id, run=run) is None
    assert board.seeds("lite", SCORED.run_id.removesuffix("-s0")) == [SCORED]
    assert board.seeds("lite", SCORED.run_id.removesuffix("8b-s0")) == []
    (both,) = collect([board.folder]).runs
    assert [entry.evaluator for entry in both.evaluations] == ["standard-0a1b2c3d", "thorough"]
    before = {path: path.stat().st_mtime_ns for path in board.folder.rglob("*.json")}
    assert board.file(run) == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_committed_names_are_those_that_runs_are_filed_under() -> None:
    for path in (COMMITTED / "records").rglob("*.json"):
        assert path.stem == stem(RunRecord.load(path))
    assert stem(renamed(SCORED, "00000000", "width=3")) == "burgers1d_mean_field_width=3-00000000_seed0"


def test_a_damaged_file_does_not_count_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run", SCORED, "thorough")
    board = CommittedBoard(tmp_path / "board")
    board.file(run)
    record, evaluation = (board.folder / kind / "lite" / f"{NAME}.json" for kind in ("records", "evaluations"))
    for path in (evaluation, record):
        text = path.read_text()
        for damaged in (
            "",
            "{",
            text[: len(text) // 2],
            text.replace('"seed": 0', '"seed": 1').replace("test", "tset"),
        ):
            path.write_text(damaged)
            assert CommittedBoard(board.folder).find("lite", SCORED.run_id, "thorough", run=run) is None
            assert f"is ignored: {path}" in capsys.readouterr().err
        path.write_text(text)
    record.write_text("{")
    assert CommittedBoard(board.folder).file(run) == [f"Filed: {record}, in place of a damaged file"]
    assert CommittedBoard(board.folder).find("lite", SCORED.run_id, "thorough", run=run) is not None


def test_what_was_measured_of_a_record_goes_with_it(tmp_path: Path) -> None:
    board = CommittedBoard(tmp_path / "board")
    old = run_folder(tmp_path / "old", SCORED, "thorough")
    (old / "verifications").mkdir()
    confirmed = Verification(
        SCORED.run_id, SCORED.fingerprint, True, 1e-6, 0.0, "rel_l2", {}, "0", "", False, SCORED.date_utc
    )
    confirmed.save(old / "verifications" / "here.json")
    replace(confirmed, fingerprint="another").save(old / "verifications" / "there.json")
    board.file(old)
    kept = {f"{kind}/lite/{NAME}.json" for kind in ("records", "evaluations")}
    assert files(board.folder) == {*kept, f"verifications/lite/{NAME}-here.json"}
    # The same run made again, without its evaluation yet; a recipe that has changed; and another variant beside it.
    again = replace(SCORED, date_utc="2030-01-01T00:00:00+00:00")
    board.file(run_folder(tmp_path / "again", again))
    assert files(board.folder) == {f"records/lite/{NAME}.json"}
    changed = renamed(SCORED, "00000000")
    (said,) = board.file(run_folder(tmp_path / "changed", changed))
    assert said.endswith(f", in place of {SCORED.run_id} of {again.date_utc}")
    assert board.find("lite", SCORED.run_id, run=tmp_path) is None
    assert board.find("lite", changed.run_id, run=tmp_path) is not None
    board.file(run_folder(tmp_path / "variant", renamed(SCORED, "11111111", "a=1")))
    assert len(files(board.folder)) == 2


def test_a_run_never_takes_the_place_of_another_row(tmp_path: Path) -> None:
    board = CommittedBoard(tmp_path / "board")
    board.file(run_folder(tmp_path / "run", SCORED))
    before = (board.folder / "records" / "lite" / f"{NAME}.json").read_bytes()
    other = replace(SCORED, dataset="mine", run_id=SCORED.run_id.replace("burgers1d", "mine"))
    with pytest.raises(FilingError, match=r"holds another run, lite-burgers1d.*with paths\.board"):
        board.file(run_folder(tmp_path / "other", other))
    for foreign in (replace(SCORED, track="../../x"), replace(SCORED, model="../../x")):
        with pytest.raises(RecordError, match=r"track|model"):
            board.file(run_folder(tmp_path / "foreign", replace(foreign, run_id="x")))
    run = run_folder(tmp_path / "evaluated", SCORED)
    replace(EVALUATED, evaluator="x/../../../victim", run_id=SCORED.run_id).save(run / "evaluations" / "x.json")
    with pytest.raises(RecordError, match="evaluator"):
        board.file(run)
    with pytest.raises(FilingError, match="failed: only runs that finished or diverged"):
        board.file(run_folder(tmp_path / "diverged", replace(SCORED, status="failed")))
    assert files(board.folder) == {f"records/lite/{NAME}.json"}
    assert (board.folder / "records" / "lite" / f"{NAME}.json").read_bytes() == before


def test_a_run_that_diverged_is_filed_and_done_without_an_evaluation(tmp_path: Path) -> None:
    board = CommittedBoard(tmp_path / "board")
    diverged = replace(SCORED, status="diverged", message="The loss became nan.", metrics={})
    board.file(run_folder(tmp_path / "run", diverged))
    found = CommittedBoard(board.folder).find("lite", diverged.run_id, "thorough", run=tmp_path / "elsewhere")
    assert found is not None
    assert found.reason.endswith(f"{NAME}.json, diverged")


def test_a_run_is_filed_where_it_lies_under_a_name_of_somebody_elses(tmp_path: Path) -> None:
    board = CommittedBoard(tmp_path / "board")
    SCORED.save(board.folder / "records" / "lite" / "mine.json")
    found = board.find("lite", SCORED.run_id, run=tmp_path)
    assert found is not None
    assert found.path.name == "mine.json"
    board.file(run_folder(tmp_path / "run", replace(SCORED, commit="another"), "thorough"))
    assert files(board.folder) == {"records/lite/mine.json", "evaluations/lite/mine.json"}


# One run -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Folders of one user, and the runs of mean fields that are made there."""

    folder: Path
    data: Path
    board: Path

    def __call__(self, *overrides: str) -> tuple[str, ...]:
        paths = (f"paths.data={self.data}", f"paths.outputs={self.outputs}", f"paths.board={self.board}")
        return ("track=smoke", "dataset=burgers1d", "model=mean_field", "dataset.ladder=[]", *paths, *overrides)

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"


@pytest.fixture
def place(tmp_path: Path, data_folder: Path) -> Place:
    return Place(tmp_path / "here", data_folder, tmp_path / "board")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Place]:
    """Another machine with the same board and nothing else; from here on no data are made."""

    def make() -> Place:
        monkeypatch.setattr(cache, "ensure", lambda *_, **__: pytest.fail("data would be generated"))
        return Place(tmp_path / "clone", tmp_path / "clone" / "data", tmp_path / "board")

    return make


@contextmanager
def stopped_runs() -> Iterator[None]:
    """Whatever would train ends at once, as if it were killed."""

    def stop(*_: object) -> NoReturn:
        raise RunError("stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "train", stop)
        yield


def test_a_committed_run_is_returned_and_a_forced_one_replaces_it(
    place: Place, clone: Callable[[], Place], capsys: pytest.CaptureFixture[str]
) -> None:
    first = pipeline.run(compose(*place()))
    path = place.board / "records" / "smoke" / f"{NAME}.json"
    assert f"Filed: {path}" in capsys.readouterr().out
    assert RunRecord.load(path) == first
    forced = compose(*place("force=true"))
    folder = run_directory(forced)
    # However the forced run ends before its own end, the same command without force goes on with it.
    with stopped_runs(), pytest.raises(RunError, match="stopped"):
        pipeline.run(forced)
    assert RunRecord.load(path) == first
    second = pipeline.run(compose(*place()))
    assert f"Filed: {path}, in place of {first.run_id}" in capsys.readouterr().out
    assert RunRecord.load(path) == second
    assert second != first
    assert files(folder) >= {"record.json", "run.yaml"}
    assert ".anew" not in files(folder)
    # Elsewhere it is done.
    elsewhere = clone()
    assert pipeline.run(compose(*elsewhere())) == second
    assert f"This run is committed: {path}, relative L2" in capsys.readouterr().out
    pipeline.execute(compose(*elsewhere("dry_run=true")))
    assert f"finished (committed: {path}" in capsys.readouterr().out
    assert not elsewhere.folder.exists()
    # What is committed and was never here isn't among the runs that a sweep is noted to have.
    with stopped_runs():
        done = told("-m", *elsewhere(), "seed=0,1")
    assert done.states == {"seed=0": "finished", "seed=1": "failed"}
    (note,) = sweeps(elsewhere.outputs)
    assert [Path(run).name for run in note.runs] == ["seed=1"]


def test_an_evaluation_files_a_run_of_ones_own(place: Place, tmp_path: Path) -> None:
    cfg = compose(*place("paths.board=null"))
    pipeline.run(cfg)
    folder = str(run_directory(cfg))
    assert not place.board.exists()
    few = "evaluator.test_splits=[test_half]"
    asked = ("mode=evaluate", f"run={folder}", "evaluator=thorough", few)
    pipeline.execute(compose(*asked))
    assert not place.board.exists(), "only if it is asked for"
    pipeline.execute(compose(*asked, f"paths.board={place.board}"))
    name = Path(next(Path(folder).glob("evaluations/*.json"))).stem
    assert files(place.board) == {f"records/smoke/{NAME}.json", f"evaluations/smoke/{NAME}.{name}.json"}
    run, record = for_evaluation(compose(*asked, f"paths.outputs={tmp_path}"))
    assert run.paths.data == record.config["paths"]["data"] == str(place.data), "what isn't given is the record's"
    assert run.paths.outputs == str(tmp_path)


# Sweeps --------------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_a_sweep_leaves_out_what_is_committed_and_files_the_rest(place: Place, clone: Callable[[], Place]) -> None:
    """With an evaluation of a single further test set, which is cheap."""
    further = ("evaluator=thorough", "evaluator.test_splits=[test_half]")
    grid = (*place(*further), "seed=0,1")
    # What was finished before, without a board, is filed without a launch.
    assert told("-m", *place(*further, "paths.board=null"), "seed=0").status == 0
    assert not place.board.exists()
    done = told("-m", *grid)
    assert done.status == 0, done.err
    assert "1 of 2 runs are done already." in done.out
    for seed in (0, 1):
        assert f"Filed: {place.board}/records/smoke/burgers1d_mean_field_seed{seed}.json" in done.out
    assert len(files(place.board)) == 4
    # A forced one is launched without force, and replaces its record all the same; then it is done elsewhere.
    path = place.board / "records" / "smoke" / f"{NAME}.json"
    before = path.read_bytes()
    done = told("-m", *place(*further), "seed=0", "force=true")
    assert done.status == 0, done.err
    assert path.read_bytes() != before
    assert len(files(place.board)) == 4
    assert not [name for name in files(place.outputs) if name.endswith(".anew")]
    elsewhere = clone()
    there = (*elsewhere(*further), "seed=0,1")
    dry = told("-m", *there, "dry_run=true")
    assert dry.states == {"seed=0": "finished", "seed=1": "finished"}
    assert "committed:" in dry.out
    assert "Data to generate" not in dry.out
    done = told("-m", *there)
    assert done.status == 0, done.err
    assert "2 of 2 runs are done already." in done.out
    assert done.states == {"seed=0": "finished", "seed=1": "finished"}
    assert not elsewhere.folder.exists(), "nothing was launched, generated or noted"
    # A damaged record, a missing evaluation: both are left to do, as a whole.
    path.write_text(path.read_text().replace("rel_l2", "rel_l3"))
    next((place.board / "evaluations" / "smoke").glob("*seed1.*.json")).unlink()
    dry = told("-m", *there, "dry_run=true")
    assert dry.states == {"seed=0": "waiting", "seed=1": "waiting"}
    assert f"is ignored: {path}" in dry.err
    assert "Data to generate" in dry.out
    # Where the runs are, they are filed again from what lies there.
    done = told("-m", *grid)
    assert "2 of 2 runs are done already." in done.out
    assert len(files(place.board)) == 4
    assert RunRecord.load(path).seed == 0


# Configuration -------------------------------------------------------------------------------------------------------


def test_the_board_is_in_no_identity() -> None:
    plain = identity(compose("track=smoke"))
    assert identity(compose("track=smoke", "paths.board=leaderboard")) == plain
    assert compose("experiment=leaderboard").paths.board == COMMITTED.name


def test_a_board_that_cannot_be_is_refused(tmp_path: Path, place: Place) -> None:
    with pytest.raises(ConfigError, match=r"paths\.board must name a folder"):
        compose("track=smoke", "paths.board=' '")
    (tmp_path / "board").write_text("")
    with pytest.raises(FilingError, match=r"is a file.*paths\.board=null"):
        pipeline.run(compose(*place()))
    done = told("-m", *place("seed=0,1"))
    assert done.status == 1
    assert "is a file, so there can't be a board in" in done.err
    assert not place.folder.exists()


def test_a_damaged_evaluation_is_not_filed(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", SCORED, "thorough")
    (run / "evaluations" / "thorough.json").write_text("{")
    with pytest.raises(RecordError, match="delete it"):
        CommittedBoard(tmp_path / "board").file(run)
    assert not (tmp_path / "board").exists()
