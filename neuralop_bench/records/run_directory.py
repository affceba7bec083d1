"""The folder of a run: what lies in it, who may write there, and how far the run has come."""

from __future__ import annotations

import csv
import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import yaml
from filelock import FileLock, Timeout

from data_gen.files import WriteError, make_folder, replacing, write_errors
from neuralop_bench.records.record import RECORD_NAME, RecordError, RunRecord
from neuralop_bench.runtime.place import IN_CHECKOUT

CONFIG_NAME = "run.yaml"  # the whole configuration, written before anything else
BEST_NAME = "best.pt"
LAST_NAME = "last.pt"
CURVE_NAME = "curve.csv"
ERRORS_NAME = "errors.nc"
REPORT_NAME = "report.md"
FIGURES = "figures"
FAILURE_NAME = "failure.json"  # why the last attempt ended; gone when the run is taken up again
LOCK_NAME = ".lock"
# Folder below the outputs for runs that force=true replaced; their records don't count.
SUPERSEDED = ".superseded"

# First line of run.yaml.
_HASH_MARK = "# sha256 of the lines below: "
# A look at the lock holds it for a moment: a run that starts just then waits that long.
_LOCK_PATIENCE_SECONDS = 1.0

Progress = Literal["new", "running", "resumable", "failed", "finished", "diverged"]


class RunError(RuntimeError):
    """A run that can't start or didn't finish; the message says why and what to do."""


@dataclass(frozen=True)
class State:
    """How far a run has come.

    progress: new (nothing is there), running (a process is at work), resumable, failed (the last attempt ended with an
        error; the same command goes on), finished or diverged.
    reason: in words.
    command: what completes the run, or runs it again; empty if nothing needs to be done, or if run.yaml doesn't tell.
    """

    progress: Progress
    reason: str
    command: str = ""


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold the run directory; the system releases it when the process ends, however it ends.

    Raises:
        RunError: another process holds it.
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK_NAME)
    try:
        with write_errors(folder / LOCK_NAME):
            lock.acquire(timeout=_LOCK_PATIENCE_SECONDS)
    except Timeout:
        raise RunError(f"Another process is at work on this run in {folder}. Wait for it, or end it.") from None
    try:
        yield
    finally:
        lock.release()


def write_config(folder: Path, text: str) -> None:
    """Write run.yaml, with a hash over it: a command read from a damaged one would be another run's.

    Raises:
        WriteError: as for ``replacing``.
    """
    with replacing(folder / CONFIG_NAME) as temporary:
        temporary.write_text(f"{_HASH_MARK}{_hash(text)}\n{text}", encoding="utf-8")


def note_failure(folder: Path, message: str) -> None:
    """Leave word of why an attempt ended. What can't be written is let go: the error itself is reported anyway."""
    entry = {"message": message, "date_utc": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        with replacing(folder / FAILURE_NAME) as temporary:
            temporary.write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n")
    except (OSError, WriteError):
        pass


def clear_leftovers(folder: Path) -> None:
    """Remove what an attempt that was killed left half written, and its note of failure. Needs the lock.

    Raises:
        WriteError: the folder can't be written.
    """
    for leftover in (*folder.rglob(".*.tmp"), folder / FAILURE_NAME):
        with write_errors(leftover):
            leftover.unlink(missing_ok=True)


def move_aside(folder: Path, outputs: Path) -> Path:
    """Keep a run that is to be replaced, out of the board's sight; returns where it went."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    place = folder.relative_to(outputs)
    attempt = 0
    while (target := outputs / SUPERSEDED / f"{stamp}-{attempt}" / place).exists():
        attempt += 1  # two in one second, or a clock that was set back
    make_folder(target.parent)
    with write_errors(target):
        folder.rename(target)
    return target


def state(folder: Path) -> State:
    """How far the run in a directory has come."""
    if (folder / RECORD_NAME).exists():
        return _state_of_record(folder)
    if not any((folder / name).exists() for name in (CONFIG_NAME, LAST_NAME, FAILURE_NAME)):
        return State("new", "nothing is there yet")
    command, n_epochs = _command_and_epochs(folder)
    done = _epochs_done(folder)
    where = f"{done} of {n_epochs or '?'} epochs done" if done else "before the end of the first epoch"
    if not command:
        where += f"; {folder / CONFIG_NAME} is missing or damaged: the command that started the run goes on with it"
    if _is_held(folder):
        return State("running", where)
    if (folder / FAILURE_NAME).exists():
        return State("failed", f"{_failure(folder)} ({where})", command)
    return State("resumable", where, command)


def command_line(overrides: Sequence[str], *more: str) -> str:
    """The command that runs a configuration: the overrides it was composed of, without those of the moment."""
    momentary = ("force=", "dry_run=", "debug=")
    kept = [override for override in overrides if not override.lstrip("+").startswith(momentary)]
    program = ["python", "run.py"] if IN_CHECKOUT else ["neuralop-bench"]
    return shlex.join([*program, *kept, *more])


def _state_of_record(folder: Path) -> State:
    try:
        record = RunRecord.load(folder / RECORD_NAME)
    except RecordError as error:
        command, _ = _command_and_epochs(folder)
        return State("failed", str(error), command and f"{command} force=true")
    if record.status == "finished":
        score = record.metrics.get("rel_l2")
        return State("finished", f"relative L2 {score:.4g}" if score is not None else "no relative L2")
    command = command_line(record.config.get("overrides", ()), "force=true")
    return State("diverged" if record.status == "diverged" else "failed", record.message, command)


def _command_and_epochs(folder: Path) -> tuple[str, int | None]:
    try:
        mark, _, text = (folder / CONFIG_NAME).read_text(encoding="utf-8").partition("\n")
        if mark != _HASH_MARK + _hash(text):
            return "", None
        config = yaml.safe_load(text)
        return command_line(config["overrides"]), int(config["trainer"]["epochs"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return "", None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _epochs_done(folder: Path) -> int:
    try:
        with open(folder / CURVE_NAME, newline="") as handle:
            return sum(1 for _ in csv.DictReader(handle))
    except (OSError, ValueError, csv.Error):
        return 0


def _failure(folder: Path) -> str:
    try:
        return str(json.loads((folder / FAILURE_NAME).read_text())["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return "The last attempt failed."


def _is_held(folder: Path) -> bool:
    if not (folder / LOCK_NAME).exists():
        return False
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False  # a folder that can't be written: nobody can be at work there
    lock.release()
    return False
