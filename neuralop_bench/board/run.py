"""A run with all that is known of it, as boards take it, and the reason why a file isn't on a board."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from neuralop_bench.records.record import Evaluation, RunRecord, Verification

# Tracks whose rows are shown but never ranked: each sets its own task, so only seeds of one row must agree.
UNRANKED_TRACKS = ("custom",)


@dataclass(frozen=True)
class Run:
    """A record, with later evaluations and verifications of the run.

    Attributes:
        record: of the run.
        evaluations: on the same data with the same metrics, oldest first; before them those of later folders.
        verifications: of this record.
        known_data: what a committed board says of data with the hash of its test data; empty if nothing.
        most_used_data: hash of the test data of most runs of its group, with which its own agree.
    """

    record: RunRecord
    evaluations: Sequence[Evaluation] = ()
    verifications: Sequence[Verification] = ()
    known_data: Mapping[str, Any] = field(default_factory=dict)
    most_used_data: str = ""

    @property
    def metrics(self) -> dict[str, float | None]:
        """Columns of the record, completed from evaluations."""
        return _completed(self.record.metrics, (entry.metrics for entry in self.evaluations))

    @property
    def cost(self) -> dict[str, float | None]:
        """Costs of the record, replaced by those of the latest evaluation: a speed-up belongs to the times it was
        computed from, and the runs of a sweep slow each other down, unlike a single evaluation."""
        merged = dict(self.record.cost)
        for entry in self.evaluations:
            merged |= {name: value for name, value in entry.cost.items() if value is not None or name not in merged}
        return merged

    @property
    def metric_versions(self) -> dict[str, int]:
        versions = dict(self.record.metric_versions)
        for entry in self.evaluations:
            versions = {**entry.metric_versions, **versions}
        return versions

    @property
    def samples(self) -> dict[str, list[float]]:
        """Columns before their mean over samples; empty for a record of an older format that wasn't evaluated again."""
        return next((entry.samples for entry in (self.record, *self.evaluations) if entry.samples), {})

    @property
    def profile(self) -> dict[str, Any]:
        return next((entry.profile for entry in (self.record, *self.evaluations) if entry.profile), {})

    @property
    def notes(self) -> dict[str, str]:
        """Why a column is empty, or a remark on it."""
        merged: dict[str, str] = {}
        for entry in self.evaluations:
            merged |= entry.notes
        return merged

    @property
    def data_error(self) -> float | None:
        """Of the test data."""
        known = (entry.data.get("test", {}).get("error") for entry in (self.record, *self.evaluations))
        return next((value for value in known if value is not None), None)

    @cached_property
    def further(self) -> dict[str, tuple[str, Mapping[str, float | None]]]:
        """Data hash and columns of each further test set, by its name, from the latest evaluation that has it."""
        latest = {setting: (entry, columns) for entry in self.evaluations for setting, columns in entry.columns.items()}
        found = {}
        for setting, (entry, columns) in sorted(latest.items()):
            data = entry.data.get(setting) or entry.data.get(setting.removesuffix("_interpolated"), {})
            found[setting] = (str(data.get("sha256", "")), columns)
        return found

    @property
    def test_hash(self) -> str:
        return str(self.record.data.get("test", {}).get("sha256", ""))

    @property
    def test_data(self) -> Mapping[str, Any]:
        """The record's entry for its test data, or another one for data with that hash that says more."""
        if self.known_data:
            return self.known_data
        entries = [entry.data.get("test", {}) for entry in (self.record, *self.evaluations)]
        fuller = (entry for entry in entries if "agreement" in entry and entry.get("sha256") == self.test_hash)
        return next(fuller, entries[0])

    @property
    def has_other_digits(self) -> bool:
        """Whether its test data differ from those of most runs of its group in their last digits."""
        return self.most_used_data not in ("", self.test_hash)

    @property
    def row_key(self) -> tuple[str, str, str, str, str]:
        """What seeds of one row share."""
        record = self.record
        return record.track, record.dataset, record.task, record.model, record.variant

    @property
    def group_key(self) -> tuple[str, ...]:
        """What compared rows share."""
        return self.row_key if self.record.track in UNRANKED_TRACKS else self.row_key[:3]


@dataclass(frozen=True, order=True)
class Refusal:
    """A file that isn't on the board, and why.

    Attributes:
        path: of the file.
        reason: what is wrong with it, and how to fix it.
        run_id: of the run, if known.
    """

    path: str
    reason: str
    run_id: str = ""

    def __str__(self) -> str:
        return f"{self.path}{f' ({self.run_id})' if self.run_id else ''}: {self.reason}"


def _completed(
    known: Mapping[str, float | None], later: Iterable[Mapping[str, float | None]]
) -> dict[str, float | None]:
    merged = dict(known)
    for entry in later:
        merged |= {name: value for name, value in entry.items() if merged.get(name) is None}
    return merged
