"""The folder of a run: its files, its lock, and the run's progress."""

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
from pydantic import TypeAdapter

from data_gen.files import WriteError, make_folder, replacing, write_errors
from neuralop_bench.records import foreign
from neuralop_bench.records.record import RECORD_NAME, RecordError, RunRecord
from neuralop_bench.runtime import plain_yaml
from neuralop_bench.runtime.place import IN_CHECKOUT

CONFIG_NAME = "run.yaml"  # the whole configuration, written before anything else
BEST_NAME = "best.pt"
LAST_NAME = "last.pt"
CURVE_NAME = "curve.csv"
ERRORS_NAME = "errors.nc"
REPORT_NAME = "report.md"
FIGURES = "figures"
FAILURE_NAME = "failure.json"  # why the last attempt failed; removed when the run is resumed
LOCK_NAME = ".lock"
# Folder below the outputs for runs that force=true replaced. Their records are ignored.
SUPERSEDED = ".superseded"

# First line of run.yaml.
_HASH_MARK = "# sha256 of the lines below: "
# Checking the lock holds it for a moment. A run that starts in that moment waits up to this long.
_LOCK_PATIENCE_SECONDS = 1.0

Progress = Literal["new", "running", "resumable", "failed", "finished", "diverged"]


_CONFIG: TypeAdapter[foreign.Config] = TypeAdapter(foreign.Config)


class RunError(RuntimeError):
    """A run can't start or didn't finish. The message says why and what to do."""


@dataclass(frozen=True)
class State:
    """The progress of a run.

    progress: new (no files yet), running (a process is working on it), resumable, failed (the last attempt ended with
        an error; the same command resumes it), finished or diverged.
    reason: an explanation in words.
    command: the command that completes the run, or runs it again; empty if there is nothing to do, or if run.yaml is
        missing or damaged.
    """

    progress: Progress
    reason: str
    command: str = ""


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Lock the run directory. The system releases the lock when the process ends, for whatever reason.

    Raises:
        RunError: another process holds the lock.
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK_NAME)
    try:
        with write_errors(folder / LOCK_NAME):
            lock.acquire(timeout=_LOCK_PATIENCE_SECONDS)
    except Timeout:
        raise RunError(f"Another process is working on this run in {folder}. Wait for it, or stop it.") from None
    try:
        yield
    finally:
        lock.release()


def write_config(folder: Path, text: str) -> None:
    """Write run.yaml with a hash over it, so that no command is read from a damaged file.

    Raises:
        WriteError: as for ``replacing``.
    """
    with replacing(folder / CONFIG_NAME) as temporary:
        temporary.write_text(f"{_HASH_MARK}{_hash(text)}\n{text}", encoding="utf-8")


def note_failure(folder: Path, message: str) -> None:
    """Write down why an attempt failed. If that isn't possible, nothing happens: the error is reported anyway."""
    entry = {"message": message, "date_utc": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        with replacing(folder / FAILURE_NAME) as temporary:
            temporary.write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n")
    except (OSError, WriteError):
        pass


def clear_leftovers(folder: Path) -> None:
    """Remove the half-written files of a killed attempt, and the note of its failure. Needs the lock.

    Raises:
        WriteError: the folder can't be written.
    """
    for leftover in (*folder.rglob(".*.tmp"), folder / FAILURE_NAME):
        with write_errors(leftover):
            leftover.unlink(missing_ok=True)


def move_aside(folder: Path, outputs: Path) -> Path:
    """Move a run that is to be replaced to a folder that boards ignore; returns its new path."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    place = folder.relative_to(outputs)
    attempt = 0
    while (target := outputs / SUPERSEDED / f"{stamp}-{attempt}" / place).exists():
        attempt += 1  # two runs in the same second, or a clock that was set back
    make_folder(target.parent)
    with write_errors(target):
        folder.rename(target)
    return target


def state(folder: Path) -> State:
    """The progress of the run in a directory."""
    if (folder / RECORD_NAME).exists():
        return _state_of_record(folder)
    if not any((folder / name).exists() for name in (CONFIG_NAME, LAST_NAME, FAILURE_NAME)):
        return State("new", "it hasn't started")
    command, n_epochs = _command_and_epochs(folder)
    done = _epochs_done(folder)
    where = f"{done} of {n_epochs or '?'} epochs done" if done else "before the end of the first epoch"
    if not command:
        where += f"; {folder / CONFIG_NAME} is missing or damaged: repeat the command that started the run"
    if _is_held(folder):
        return State("running", where)
    if (folder / FAILURE_NAME).exists():
        return State("failed", f"{_failure(folder)} ({where})", command)
    return State("resumable", where, command)


def command_line(overrides: Sequence[str], *more: str) -> str:
    """The command that runs a configuration: the overrides it was composed of, without force, dry_run and debug."""
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
        return State("finished", record.result)
    command = command_line(record.config.get("overrides", ()), "force=true")
    return State("diverged" if record.status == "diverged" else "failed", record.message, command)


def _command_and_epochs(folder: Path) -> tuple[str, int | None]:
    try:
        mark, _, text = foreign.content(folder / CONFIG_NAME).decode("utf-8").partition("\n")
        if mark != _HASH_MARK + _hash(text):
            return "", None
        config = plain_yaml.load(text, CONFIG_NAME)
        foreign.check(_CONFIG, config)
        return command_line(config["overrides"]), config["trainer"]["epochs"]
    except (OSError, ValueError, KeyError, yaml.YAMLError):
        return "", None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _epochs_done(folder: Path) -> int:
    try:
        lines = foreign.content(folder / CURVE_NAME).decode("utf-8").splitlines()
        return sum(1 for _ in csv.DictReader(lines))
    except (OSError, ValueError, csv.Error):
        return 0


def _failure(folder: Path) -> str:
    try:
        return str(foreign.json_content(folder / FAILURE_NAME)["message"])
    except (OSError, ValueError, KeyError):
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
        return False  # the folder can't be written, so no process can be working there
    lock.release()
    return False
