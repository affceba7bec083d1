"""Finished runs: find, show, file and rank them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from neuralop_bench import leaderboard
from neuralop_bench.config import constructors
from neuralop_bench.config.identity import Identity, evaluator_name, run_directory
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.records.committed_board import Committed, CommittedBoard
from neuralop_bench.records.record import RECORD_NAME, RunRecord
from neuralop_bench.records.run_directory import REPORT_NAME, RunError
from neuralop_bench.runtime import environment
from neuralop_bench.runtime.process_group import OtherProcessFailed
from neuralop_bench.runtime.processes import Processes
from neuralop_bench.runtime.table import plain


def committed(cfg: RunConfig, who: Identity) -> Committed | None:
    """The run on the committed board, if there is a board and everything asked for is on it."""
    if cfg.paths.board is None or cfg.force:
        return None
    evaluator = evaluator_name(cfg) if cfg.evaluator.is_thorough else None
    board = CommittedBoard(Path(cfg.paths.board))
    return board.find(who.track, who.run_id(cfg.seed), evaluator, run=run_directory(cfg, who))


def is_done(folder: Path, cfg: RunConfig) -> bool:
    """Whether a run directory has all that is asked for. A trial of a search goes on with test, if asked."""
    path = folder / RECORD_NAME
    return path.exists() and (not cfg.evaluator.on_test or RunRecord.load(path).is_tested)


def returned_from_board(found: Committed, cfg: RunConfig) -> RunRecord:
    """Return a committed run, and print whether it is still current.

    Raises:
        RunError: it diverged.
    """
    if found.record.status != "finished":
        raise RunError(f"This run is {found.reason}. {found.record.message} force=true runs it again.")
    _describe(f"This run is {found.reason}", found.record, cfg)
    return found.record


def returned(folder: Path, cfg: RunConfig, processes: Processes, draws: bool) -> RunRecord:
    """Return the record in a run directory, and print whether it is still current.

    Raises:
        RunError: the run diverged.
    """
    record = RunRecord.load(folder / RECORD_NAME)
    if processes.is_first:
        rebuild_board(Path(cfg.paths.outputs), draws)
    if record.status != "finished":
        raise diverged(record, folder, cfg, processes)
    _describe(f"This run is done: {folder / RECORD_NAME}", record, cfg)
    print(report(folder / REPORT_NAME, record.files) if record.is_tested else record.result)
    return record


def file(board: str, folder: Path, processes: Processes) -> None:
    """Put a run on the committed board.

    Raises:
        FilingError, RecordError, WriteError: as for ``CommittedBoard.file``.
    """

    def copy() -> None:
        for line in CommittedBoard(Path(board)).file(folder):
            print(line)

    processes.first_does(copy)


def diverged(record: RunRecord, folder: Path, cfg: RunConfig, processes: Processes) -> RunError | OtherProcessFailed:
    """The exception for a run that diverged. Such a run is filed on a committed board, too."""
    if cfg.paths.board is not None and record.status == "diverged":
        file(cfg.paths.board, folder, processes)
    text = (
        f"{record.message} The run is recorded as {record.status} in {folder / RECORD_NAME}. "
        "Lower optimizer.lr or trainer.clip_norm; force=true runs the same configuration again."
    )
    return RunError(text) if processes.is_first else OtherProcessFailed(text)


def rebuild_board(outputs: Path, draws: bool) -> str:
    """Rebuild the board and return its path. If that fails for whatever reason, print a warning: a board also depends
    on the files of other runs, and this run is finished all the same."""
    try:
        return str(leaderboard.rebuild(outputs, draws=draws))
    except Exception as error:
        reason = plain(str(error) or type(error).__name__)
        print(f"Warning: the run is done, but the leaderboard wasn't rebuilt: {reason}", file=sys.stderr)
        return "not rebuilt"


def report(path: Path, files: Mapping[str, str]) -> str:
    """The tables of a finished run, or the reason why they aren't shown.

    Args:
        path: the report.
        files: SHA-256 of the files that the run wrote, by file name.
    """
    if not path.exists():
        return f"  {path} is missing; the record has all numbers except those over time"
    content = path.read_bytes()
    if path.name in files and hashlib.sha256(content).hexdigest() != files[path.name]:
        return (
            f"  {path} has changed since the run, so it isn't shown; the record has all numbers except those over time"
        )
    return f"\n{plain(content.decode('utf-8', errors='replace'))}"


def _describe(what: str, record: RunRecord, cfg: RunConfig) -> None:
    versions = ", ".join(f"{name}/v{version}" for name, version in sorted(record.metric_versions.items()))
    print(
        f"{what}\n"
        f"  made {_age(record.date_utc)} by version {record.bench_version}, "
        f"commit {record.commit[:10] or 'unknown'}{' with uncommitted changes' if record.dirty else ''}\n"
        f"  metrics {versions}"
    )
    for change in _changes_since(record, cfg):
        print(f"  {change}; force=true runs it again")


def _changes_since(record: RunRecord, cfg: RunConfig) -> list[str]:
    """Changes since a record was made."""
    changes = []
    commit, dirty = environment.commit()
    if commit != record.commit:
        changes.append(f"the code has changed since: it is now at commit {commit[:10] or 'unknown'}")
    elif dirty or record.dirty:
        changes.append("the code had or has uncommitted changes, so it may differ")
    metrics = [constructors.target(node) for node in cfg.evaluator.metrics.values()]
    versions = {metric.name: metric.version for metric in metrics}
    old = [name for name, version in record.metric_versions.items() if versions.get(name, version) != version]
    if old:
        changes.append(f"the definitions of {', '.join(sorted(old))} have changed since")
    if environment.bench_version() != record.bench_version:
        changes.append(f"this is version {environment.bench_version()}")
    return changes


def _age(date_utc: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(date_utc)).total_seconds()
    if seconds < -1:
        return f"on {date_utc}, which is in the future by this machine's clock,"
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit} ago"
    return f"{max(seconds, 0):.0f} seconds ago"
