"""Rows of a board beside the published values of their model on their problem."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neuralop_bench.board.rows import Entry, Group
from neuralop_bench.records import published
from neuralop_bench.records.published import Published


@dataclass(frozen=True)
class Reached:
    """A row and the published value that is shown beside it.

    Attributes:
        entry: the row.
        published: the value.
        errors: of the finished seeds, in the metric of the value; empty if one of them wasn't measured by it.
        differences: conditions that differ; none if the two are comparable.
    """

    entry: Entry
    published: Published
    errors: tuple[float, ...]
    differences: tuple[str, ...]

    @property
    def is_of_paper(self) -> bool:
        """Whether it is a paper's experiment, perhaps with other parameters or fewer epochs, and no other task that is
        close to the value's."""
        return str(self.entry.seeds.first.config.get("choices", {}).get("experiment", "")).startswith("paper/")

    @property
    def mean(self) -> float | None:
        return math.fsum(self.errors) / len(self.errors) if self.errors else None


def reached(groups: Sequence[Group]) -> Iterator[Reached]:
    """Every row with a finished seed for which there is a published value."""
    for entry in (entry for group in groups for entry in group.entries if entry.seeds.finished):
        record = entry.seeds.first
        if (value := published.shown(record)) is not None:
            errors = [run.metrics.get(value.metric) for run in entry.seeds.finished]
            known = tuple(error for error in errors if error is not None)
            complete = known if len(known) == len(errors) else ()
            yield Reached(entry, value, complete, tuple(published.differences(value, record)))
