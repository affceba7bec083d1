"""Which runs can be compared: those measured on the same test data with the same metrics as most of their group."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_gen.agreement import agree
from neuralop_bench.board.run import Refusal, Run

# File of a committed board: entries of ``data`` for the test data of records from before entries had an agreement.
TEST_DATA_NAME = "test_data.json"


def known_test_data(folders: Iterable[Path], refusals: list[Refusal]) -> dict[str, Mapping[str, Any]]:
    """Entries of ``data`` that committed boards keep for old records, by hash. Files that can't be read are refused."""
    known: dict[str, Mapping[str, Any]] = {}
    for path in (folder / TEST_DATA_NAME for folder in folders):
        if not path.is_file():
            continue
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            known = {str(entry["sha256"]): dict(entry) for entry in entries} | known  # the first folder counts
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            refusals.append(Refusal(str(path), f"it can't be read ({type(error).__name__}: {error}). Restore it"))
    return known


def comparable(
    runs: Sequence[Run], places: Mapping[str, int], own_data: Sequence[Mapping[str, Any]]
) -> tuple[list[Run], dict[str, str]]:
    """Those with the test data and metrics of most runs of their group in the first folder that has some (in a tie, of
    those used last), and why the others can't be compared with them, by ``run_id``.

    Args:
        runs: of any groups.
        places: number of the folder of each run, by ``run_id``.
        own_data: entries of ``data`` that the first folder keeps. Test data that agree with one of them count, however
            many runs there have others.
    """
    groups: defaultdict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.group_key].append(run)
    kept: list[Run] = []
    reasons: dict[str, str] = {}
    for key, members in groups.items():
        finished = [run for run in members if run.record.status == "finished"]
        kept += [run for run in members if run.record.status != "finished"]
        if not finished:
            continue
        first = min(places[run.record.run_id] for run in finished)
        leading = [run for run in finished if places[run.record.run_id] == first]
        test, same = _most_used_data(finished, leading, own_data)
        versions = _most_used_versions([run for run in finished if run.test_hash in same])
        versions |= _most_used_versions([run for run in leading if run.test_hash in same])
        where = "/".join(key)
        for run in finished:
            if run.test_hash in same:
                reason = _other_metrics(run, versions, where)
            else:
                reason = _other_test_data(run, test, where)
            if reason:
                reasons[run.record.run_id] = reason
            else:
                kept.append(replace(run, most_used_data=test))
    return kept, reasons


def _most_used_data(
    runs: Sequence[Run], leading: Sequence[Run], own_data: Sequence[Mapping[str, Any]]
) -> tuple[str, set[str]]:
    """The hash of the test data with which those of most leading runs agree, and the hashes of all runs that do.

    Data that the board keeps come first. In a tie it is that of most runs, then that of the latest.
    """
    entries: dict[str, Mapping[str, Any]] = {}
    for run in sorted(runs, key=lambda run: (run.record.date_utc, run.record.run_id)):
        if "agreement" not in entries.get(run.test_hash, {}):
            entries[run.test_hash] = run.test_data
    counts = Counter(run.test_hash for run in leading)
    latest = dict.fromkeys(entries, "")
    for run in leading:
        latest[run.test_hash] = max(latest[run.test_hash], run.record.date_utc)
    same = {one: {other for other in entries if agree(entries[one], entries[other])} for one in entries}
    most = max(
        counts,
        key=lambda one: (
            any(agree(entries[one], kept) for kept in own_data),
            sum(counts[other] for other in same[one]),
            max(latest[other] for other in same[one]),
            counts[one],
            latest[one],
            one,
        ),
    )
    return most, same[most]


def _other_test_data(run: Run, test: str, where: str) -> str:
    if "agreement" in run.test_data or run.record.data["test"].get("error") is None:
        todo = "Run it again on the same data (paths.data)."
    else:
        todo = (
            "Its record has only their hash, which is another one if the data were made on another kind of processor. "
            "Evaluate the run again (mode=evaluate force=true), which compares the data themselves, or run it again on "
            "the same data (paths.data)."
        )
    return (
        f"its test data ({run.test_hash[:12]}) aren't those of most records of {where} ({test[:12]}), so they can't be "
        f"compared. {todo}"
    )


def _other_metrics(run: Run, versions: Mapping[str, int], where: str) -> str:
    """Why a run's metrics can't be compared with those of its group; empty if they can."""
    other = sorted(
        f"{name}/v{version}, not v{versions[name]}"
        for name, version in run.metric_versions.items()
        if versions.get(name, version) != version
    )
    if other:
        return (
            f"it was measured by other versions of metrics than most records of {where} ({'; '.join(other)}). Run it "
            "again with force=true, or evaluate it again."
        )
    return ""


def _most_used(choices: Iterable[tuple[Any, str]]) -> Any:
    """The value that occurs most often; in a tie, the one with the latest date."""
    counts: Counter[Any] = Counter()
    latest: dict[Any, str] = {}
    for value, date in choices:
        counts[value] += 1
        latest[value] = max(latest.get(value, ""), date)
    return max(counts, key=lambda value: (counts[value], latest[value], value))


def _most_used_versions(runs: Sequence[Run]) -> dict[str, int]:
    choices: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for run in runs:
        for name, version in run.metric_versions.items():
            choices[name].append((version, run.record.date_utc))
    return {name: _most_used(found) for name, found in choices.items()}
