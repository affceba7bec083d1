"""A file that lists the runs of a sweep, including those that haven't started and left no trace on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from data_gen.files import replacing
from neuralop_bench.records import foreign
from neuralop_bench.records.foreign import DateUtc, Text

# Folder below the outputs for files that belong to no single run.
FOLDER = ".sweeps"
_FORMAT = 1


@dataclass(frozen=True)
class SweepFile:
    """A sweep, as last started.

    Attributes:
        command: the command that completes it.
        date_utc: when the command was given.
        runs: run directories, relative to the outputs.
    """

    command: Text
    date_utc: DateUtc
    runs: tuple[Text, ...]

    @property
    def name(self) -> str:
        """A hash of its runs, so that repeating a command gives the same sweep."""
        return hashlib.sha256("\n".join(sorted(self.runs)).encode()).hexdigest()[:8]

    def save(self, outputs: Path) -> Path:
        path = outputs / FOLDER / f"{self.name}.json"
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n", encoding="utf-8")
        return path


_SCHEMA = TypeAdapter(SweepFile)


def sweeps(outputs: Path) -> Iterator[SweepFile]:
    """The sweeps below the outputs, oldest first. Unreadable files are skipped: they are only informative."""
    found = []
    for path in (outputs / FOLDER).glob("*.json"):
        try:
            found.append(_SCHEMA.validate_python(foreign.json_content(path)))
        except (OSError, ValueError):
            continue
    yield from sorted(found, key=lambda sweep: sweep.date_utc)
