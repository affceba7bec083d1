"""Jobs of a launcher that end without a result."""

from __future__ import annotations

import pytest

from neuralop_bench.runs import launcher


class Cluster:
    """A job, and submitit's watcher, which keeps the first final state that it sees."""

    job_id = "1"

    def __init__(self, *states: str) -> None:
        self.states, self.kept, self.watcher = list(states), "", self

    def clear(self) -> None:
        self.kept = ""

    def get_info(self) -> dict[str, str]:
        self.kept = self.kept or (self.states.pop(0) if len(self.states) > 1 else self.states[0])
        found = self.kept
        if found in ("PENDING", "RUNNING"):
            self.kept = ""
        return {"State": found}

    def results(self) -> list[str]:
        if self.states != ["COMPLETED"]:
            raise RuntimeError("the job has not produced any output")
        return ["a result"]


@pytest.mark.parametrize("states", [("FAILED", "PENDING", "RUNNING", "COMPLETED"), ("PENDING", "COMPLETED")])
def test_a_job_that_is_queued_again_is_waited_for(states: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_PAUSE_SECONDS", 0)
    assert launcher._outcome(Cluster(*states)) == "a result"
