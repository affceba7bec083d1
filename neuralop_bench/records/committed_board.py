"""A committed board: the records that a repository keeps, with later evaluations and verifications of the same runs.

    <board>/records/<track>/<task>_<model>_seed<k>.json       other variants: <task>_<model>_<variant>_seed<k>
    <board>/evaluations/<track>/<the record's name>.json      other evaluators than thorough: <name>.<evaluator>
    <board>/verifications/<track>/<the record's name>-<its own name>.json

A run whose record is there counts as done, whether or not it was run on this machine.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_gen.files import make_folder, replacing, write_errors
from neuralop_bench.records import foreign
from neuralop_bench.records.record import (
    EVALUATIONS,
    RECORD_NAME,
    RECORDS,
    UNTESTED,
    VERIFICATIONS,
    Evaluation,
    RecordError,
    RunRecord,
    Verification,
)
from neuralop_bench.runtime.table import plain

# An evaluation by this evaluator gets the record's own name.
_MAIN_EVALUATOR = "thorough"
# Marks the directory of a run that was forced: the board's record of it doesn't count until the new one is filed.
_ANEW_NAME = ".anew"
# A run that diverged is a result, too: it has its place on the board and isn't run again.
_ENDED = ("finished", "diverged")
# Records and evaluations begin with the run_id. Reading a thousand whole files, with their hashes, would take seconds.
_RUN_ID = re.compile(rb'"run_id"\s*:\s*"([^"\\]+)"')
_HEAD_BYTES = 1024
_Kept = TypeVar("_Kept", RunRecord, Evaluation, Verification)


class FilingError(RuntimeError):
    """A run can't be filed on a committed board. The message says why and what to do."""


@dataclass(frozen=True)
class Committed:
    """A run on the board that finished or diverged; ``path`` is the path of its record."""

    record: RunRecord
    path: Path

    @property
    def reason(self) -> str:
        """Why the run counts as done, in words."""
        if self.record.status != "finished":
            return f"committed: {self.path}, {self.record.status}"
        return f"committed: {self.path}, {self.record.result}"


class CommittedBoard:
    """A committed board. It lists its files only once, so one instance serves all jobs of a sweep.

    Args:
        folder: the board's folder; it is created when something is filed.

    Raises:
        FilingError: there can't be such a folder.
    """

    def __init__(self, folder: Path) -> None:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not nearest.is_dir():
            raise FilingError(
                f"paths.board: {nearest} is a file, so there can't be a board in {folder}. Choose another folder, or "
                "paths.board=null for no committed board."
            )
        self.folder = folder
        self._indices: dict[tuple[str, str], dict[str, list[Path]]] = {}

    def find(self, track: str, run_id: str, evaluator: str | None = None, *, run: Path) -> Committed | None:
        """The run, if the board has all of it. A warning names each file that can't be read.

        Args:
            track, run_id: identify the run.
            evaluator: the name of an evaluation that has to be there, too.
            run: its run directory. If the run was forced there and hasn't been filed since, the board's record doesn't
                count, as it will be replaced.
        """
        if (run / _ANEW_NAME).exists():
            return None
        for path in self._index(RECORDS, track).get(run_id, ()):
            record = _readable(RunRecord, path)
            if record is None or record.run_id != run_id or record.status not in _ENDED or not record.is_tested:
                continue
            is_whole = evaluator is None or record.status == "diverged"  # a run that diverged has nothing to evaluate
            if is_whole or self._has_evaluation(track, run_id, evaluator):
                return Committed(record, path)
        return None

    def seeds(self, track: str, configuration: str) -> list[RunRecord]:
        """Records of a configuration, i.e. of runs that differ only in their seed."""
        found = (paths for name, paths in self._index(RECORDS, track).items() if name.startswith(f"{configuration}-s"))
        return [record for paths in found for path in paths if (record := _readable(RunRecord, path)) is not None]

    def file(self, run: Path) -> list[str]:
        """Copy the record of a run directory, its evaluations and its verifications to the board, each atomically.

        A record with the same name is replaced if it has the same row and seed. The old record's evaluations and
        verifications are then removed.

        Returns:
            A line for each change; empty if everything was already there.

        Raises:
            FilingError: the run neither finished nor diverged, was never evaluated on test, or has the name of a run of
                another row.
            RecordError: the record or an evaluation can't be read.
            WriteError: the board can't be written.
        """
        record = RunRecord.load(run / RECORD_NAME)
        if record.status not in _ENDED:
            raise FilingError(f"The run in {run} {record.status}: only runs that finished or diverged can be filed.")
        if not record.is_tested:
            raise FilingError(f"The run in {run} {UNTESTED}")
        evaluations = _evaluations(run, record)
        target = self._place(record)
        done, note = self._make_way(record, target)
        done += self._copied(RECORDS, run / RECORD_NAME, target, record, note)
        for path, evaluation in evaluations:
            main = evaluation.evaluator == _MAIN_EVALUATOR
            name = f"{target.stem}.json" if main else f"{target.stem}.{evaluation.evaluator}.json"
            done += self._copied(EVALUATIONS, path, self._folder(EVALUATIONS, record.track) / name, record)
        for path in sorted((run / VERIFICATIONS).glob("*.json")):
            verification = _readable(Verification, path)
            if verification is not None and verification.fingerprint == record.fingerprint:
                name = f"{target.stem}-{path.name}"
                done += self._copied(VERIFICATIONS, path, self._folder(VERIFICATIONS, record.track) / name, record)
        with write_errors(run / _ANEW_NAME):
            (run / _ANEW_NAME).unlink(missing_ok=True)
        return done

    def _has_evaluation(self, track: str, run_id: str, evaluator: str | None) -> bool:
        found = (_readable(Evaluation, path) for path in self._index(EVALUATIONS, track).get(run_id, ()))
        return any(entry is not None and (entry.run_id, entry.evaluator) == (run_id, evaluator) for entry in found)

    def _folder(self, kind: str, track: str) -> Path:
        return self.folder / kind / track

    def _index(self, kind: str, track: str) -> dict[str, list[Path]]:
        """Files of a kind, by the run they belong to."""
        if (kind, track) not in self._indices:
            index: dict[str, list[Path]] = {}
            for path in sorted(self._folder(kind, track).glob("*.json")):
                if (run_id := _run_id(path)) is None:
                    _warn(f"{path} has no run_id")
                else:
                    index.setdefault(run_id, []).append(path)
            self._indices[kind, track] = index
        return self._indices[kind, track]

    def _place(self, record: RunRecord) -> Path:
        """The path for a record: that of the file that already holds this run, or else one with the default name."""
        known = self._index(RECORDS, record.track).get(record.run_id)
        return known[0] if known else self._folder(RECORDS, record.track) / f"{stem(record)}.json"

    def _make_way(self, record: RunRecord, target: Path) -> tuple[list[str], str]:
        """Remove the evaluations and verifications of a record that is about to be replaced.

        This comes first, so that a board never joins them with the new record.

        Returns:
            A line for each removed file, and a remark about the replacement.
        """
        if not target.exists():
            return [], ""
        old = _readable(RunRecord, target)
        if old is None:
            return [], ", in place of a damaged file"
        if _row(old) != _row(record):
            raise FilingError(
                f"{record.run_id} can't be filed as {target}, which holds another run, {old.run_id}. Move that file "
                "away, or choose another folder with paths.board."
            )
        if old.fingerprint == record.fingerprint:
            return [], ""
        removed = []
        for kind in (EVALUATIONS, VERIFICATIONS):
            for path in self._index(kind, old.track).pop(old.run_id, []):
                with write_errors(path):
                    path.unlink(missing_ok=True)
                removed.append(f"Removed: {path}, which belongs to the replaced record")
        return removed, f", in place of {old.run_id} of {old.date_utc}"

    def _copied(self, kind: str, source: Path, target: Path, record: RunRecord, note: str = "") -> list[str]:
        found = foreign.content(source)
        if target.is_file() and target.read_bytes() == found:
            return []
        with replacing(target) as temporary:
            temporary.write_bytes(found)
        index = self._index(kind, record.track)
        for paths in index.values():
            if target in paths:
                paths.remove(target)
        index.setdefault(record.run_id, []).append(target)
        return [f"Filed: {target}{note}"]


def stem(record: RunRecord) -> str:
    """The file name of a run's record on a committed board, without the suffix."""
    variant = "" if _label(record) == "default" else f"_{record.variant}"
    return f"{record.task}_{record.model}{variant}_seed{record.seed}"


def ask_anew(run: Path) -> None:
    """Mark a run directory because its run is to be repeated.

    A committed board's record of the run doesn't count until the new one is filed, however often it is interrupted.

    Raises:
        WriteError: the directory can't be written.
    """
    make_folder(run)
    with write_errors(run / _ANEW_NAME):
        (run / _ANEW_NAME).touch()


def _row(record: RunRecord) -> tuple[str, str, str, str, str, int]:
    """Row and seed. A default variant stays in the same row when a recipe changes its hash."""
    return record.track, record.dataset, record.task, record.model, _label(record), record.seed


def _label(record: RunRecord) -> str:
    return record.variant.removesuffix(f"-{record.config_hash}")


def _run_id(path: Path) -> str | None:
    """The run_id in a file, without reading the rest of it."""
    try:
        found = _RUN_ID.search(foreign.content(path, _HEAD_BYTES)) or _RUN_ID.search(foreign.content(path))
        return found[1].decode() if found else None
    except (OSError, ValueError):
        return None


def _evaluations(run: Path, record: RunRecord) -> list[tuple[Path, Evaluation]]:
    loaded = [(path, Evaluation.load(path)) for path in sorted((run / EVALUATIONS).glob("*.json"))]
    return [(path, evaluation) for path, evaluation in loaded if evaluation.run_id == record.run_id]


def _readable(kind: type[_Kept], path: Path) -> _Kept | None:
    try:
        return kind.load(path)
    except RecordError as error:
        _warn(str(error))
        return None


def _warn(text: str) -> None:
    print(f"Warning: a file of the committed board is ignored: {plain(text)}", file=sys.stderr)
