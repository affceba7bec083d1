"""A committed board: the records that a repository keeps, with what was measured of the same runs later.

    <board>/records/<track>/<task>_<model>_seed<k>.json       other variants: <task>_<model>_<variant>_seed<k>
    <board>/evaluations/<track>/<the record's name>.json      other evaluators than thorough: <name>.<evaluator>
    <board>/verifications/<track>/<the record's name>-<its own name>.json

A run whose record lies there is done, whatever has been run on the machine at hand.
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_gen.files import make_folder, replacing, write_errors
from neuralop_bench.records.record import (
    EVALUATIONS,
    RECORD_NAME,
    RECORDS,
    VERIFICATIONS,
    Evaluation,
    RecordError,
    RunRecord,
    Verification,
)

# Its evaluation takes the record's own name.
_MAIN_EVALUATOR = "thorough"
# In the directory of a run that was forced: what the board has of it doesn't count until the new one is filed.
_ANEW_NAME = ".anew"
# Losses are reported like wins: a run that diverged has its place, and isn't run again.
_ENDED = ("finished", "diverged")
_SAFE_NAME = r"[A-Za-z0-9][A-Za-z0-9=._+-]*"
# Records and evaluations begin with it. Reading a thousand of them whole, with their hashes, would take seconds.
_RUN_ID = re.compile(rb'"run_id"\s*:\s*"([^"\\]+)"')
_HEAD_BYTES = 1024
_Kept = TypeVar("_Kept", RunRecord, Evaluation, Verification)


class FilingError(RuntimeError):
    """A run can't be filed into a committed board; the message says why and what to do."""


@dataclass(frozen=True)
class Committed:
    """A run on the board that has come to its end, finished or diverged; ``path`` is that of its record."""

    record: RunRecord
    path: Path

    @property
    def reason(self) -> str:
        """Why the run is done, in words."""
        if self.record.status != "finished":
            return f"committed: {self.path}, {self.record.status}"
        score = self.record.metrics.get("rel_l2")
        return f"committed: {self.path}, " + (f"relative L2 {score:.4g}" if score is not None else "no relative L2")


class CommittedBoard:
    """A committed board. What lies there is looked at once, so one instance serves all jobs of a sweep.

    Args:
        folder: of the board; made when something is filed.

    Raises:
        FilingError: no such folder can be.
    """

    def __init__(self, folder: Path) -> None:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not nearest.is_dir():
            raise FilingError(
                f"paths.board: {nearest} is a file, so no board can be in {folder}. Choose another folder, or "
                "paths.board=null to do without a committed board."
            )
        self.folder = folder
        self._indices: dict[tuple[str, str], dict[str, list[Path]]] = {}

    def find(self, track: str, run_id: str, evaluator: str | None = None, *, run: Path) -> Committed | None:
        """The run, if the board has all of it. A warning names a file that can't be read.

        Args:
            track, run_id: of the run.
            evaluator: the name of an evaluation that has to be there, too.
            run: its directory here. If it was forced there and hasn't been filed since, the board's record is the one
                to be replaced.
        """
        if (run / _ANEW_NAME).exists():
            return None
        for path in self._index(RECORDS, track).get(run_id, ()):
            record = _readable(RunRecord, path)
            if record is None or record.run_id != run_id or record.status not in _ENDED:
                continue
            is_whole = evaluator is None or record.status == "diverged"  # then there is nothing to evaluate
            if is_whole or self._has_evaluation(track, run_id, evaluator):
                return Committed(record, path)
        return None

    def seeds(self, track: str, configuration: str) -> list[RunRecord]:
        """Records of a configuration, that is of runs which differ in their seed alone."""
        found = (paths for name, paths in self._index(RECORDS, track).items() if name.startswith(f"{configuration}-s"))
        return [record for paths in found for path in paths if (record := _readable(RunRecord, path)) is not None]

    def file(self, run: Path) -> list[str]:
        """Copy the record of a run directory, its evaluations and its verifications to the board, each atomically.

        What lies under the same name is replaced if it is of the same row and seed, and what was measured of it goes
        with it.

        Returns:
            What has changed, a line each; none if all was there.

        Raises:
            FilingError: the run neither finished nor diverged, or its place is taken by a run of another row.
            RecordError: the record or an evaluation can't be read.
            WriteError: the board can't be written.
        """
        record = RunRecord.load(run / RECORD_NAME)
        if record.status not in _ENDED:
            raise FilingError(f"{run} holds a run that {record.status}: a board takes those that finished or diverged.")
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
        """Files of a kind by the run they are of."""
        if (kind, track) not in self._indices:
            index: dict[str, list[Path]] = {}
            for path in sorted(self._folder(kind, track).glob("*.json")):
                if (run_id := _run_id(path)) is None:
                    _warn(f"{path} names no run")
                else:
                    index.setdefault(run_id, []).append(path)
            self._indices[kind, track] = index
        return self._indices[kind, track]

    def _place(self, record: RunRecord) -> Path:
        """Where a record goes: to the file that holds this run, whatever it is called, or to the name of its own."""
        name = stem(record)
        for part in (record.track, name):  # the record may be somebody else's
            if not re.fullmatch(_SAFE_NAME, part):
                raise FilingError(f"The record of {record.run_id} can't be filed: {part!r} is no name for a file.")
        known = self._index(RECORDS, record.track).get(record.run_id)
        return known[0] if known else self._folder(RECORDS, record.track) / f"{name}.json"

    def _make_way(self, record: RunRecord, target: Path) -> tuple[list[str], str]:
        """Remove what was measured of the record that is to be replaced, before the new one takes its place: a board
        must not join them. What was removed, a line each, and what has to be said of the replacement."""
        if not target.exists():
            return [], ""
        old = _readable(RunRecord, target)
        if old is None:
            return [], ", in place of a damaged file"
        if _row(old) != _row(record):
            raise FilingError(
                f"{target} holds another run, {old.run_id}, and so can't take {record.run_id}. Move it away, or choose "
                "another folder with paths.board."
            )
        if old.fingerprint == record.fingerprint:
            return [], ""
        removed = []
        for kind in (EVALUATIONS, VERIFICATIONS):
            for path in self._index(kind, old.track).pop(old.run_id, []):
                with write_errors(path):
                    path.unlink(missing_ok=True)
                removed.append(f"Removed: {path}, which was measured of the record that was there")
        return removed, f", in place of {old.run_id} of {old.date_utc}"

    def _copied(self, kind: str, source: Path, target: Path, record: RunRecord, note: str = "") -> list[str]:
        if target.exists() and target.read_bytes() == source.read_bytes():
            return []
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
        index = self._index(kind, record.track)
        for paths in index.values():
            if target in paths:
                paths.remove(target)
        index.setdefault(record.run_id, []).append(target)
        return [f"Filed: {target}{note}"]


def stem(record: RunRecord) -> str:
    """What the files of a run are called on a committed board."""
    variant = "" if _label(record) == "default" else f"_{record.variant}"
    return f"{record.task}_{record.model}{variant}_seed{record.seed}"


def ask_anew(run: Path) -> None:
    """Note in a run directory that the run is to be made again: what a committed board has of it doesn't count until
    the new one is filed, however often the run is interrupted.

    Raises:
        WriteError: the directory can't be written.
    """
    make_folder(run)
    with write_errors(run / _ANEW_NAME):
        (run / _ANEW_NAME).touch()


def _row(record: RunRecord) -> tuple[str, str, str, str, str, int]:
    """Row and seed. A default variant stays the same row when a recipe gives it another hash."""
    return record.track, record.dataset, record.task, record.model, _label(record), record.seed


def _label(record: RunRecord) -> str:
    return record.variant.removesuffix(f"-{record.config_hash}")


def _run_id(path: Path) -> str | None:
    """What a file says it is of, without a look at the rest."""
    try:
        with open(path, "rb") as handle:
            found = _RUN_ID.search(handle.read(_HEAD_BYTES)) or _RUN_ID.search(path.read_bytes())
        return found[1].decode() if found else None
    except (OSError, UnicodeDecodeError):
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
    print(f"Warning: a file of the committed board doesn't count: {text}", file=sys.stderr)
