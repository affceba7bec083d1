"""Published values, what they were measured on, and whether a run may be compared with one.

The values and their sources are in ``configs/published.yaml`` only. A run is comparable with a value if every condition
of both is known and the same. Data generated here are never those of a paper, so a comparable row needs imported data.
For all others, ``differences`` lists what differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from beartype import BeartypeConf
from beartype.door import is_bearable

from neuralop_bench.records.record import RunRecord
from neuralop_bench.runtime.place import CONFIG_DIR

PATH = CONFIG_DIR / "published.yaml"

# The column that boards rank by.
_METRIC = "rel_l2"
# Columns of every run that are defined as in the papers.
_AS_PUBLISHED = ("rel_l2", "nrmse")
# The test set of the rollout metrics.
_LONG = "test_long"
_INT_IS_FLOAT = BeartypeConf(is_pep484_tower=True)
_SAME_NUMBER = 1e-9  # relative; both were typed as decimals


@dataclass(frozen=True)
class Published:
    """A value from the literature. None means "unknown" and never equals anything, not even None.

    Attributes:
        id: name of the entry, for ``published.id`` of a configuration.
        model: label of our configuration of the network, or the paper's name for it.
        problem: module of ``data_gen.problems``.
        parameters: that define the problem, by their dotted keys in ``dataset.problem``.
        resolution: points per axis.
        n_train, n_test: samples.
        history, horizon: frames given and predicted; 0 and 1 for a steady problem.
        final_time: of the last predicted frame, in the problem's unit; 0 for a steady problem.
        metric: ``rel_l2`` as the FNO's tables have it, which is rel_l2/v1, ``nrmse`` as PDEBench has it, ``rel_h1``, or
            a metric of long rollouts, for which horizon and final time are those of ``test_long``.
        split: the epoch that was scored: last epoch, best on test, best on valid.
        normalization: of the fields: none, per place, per channel, or other words.
        data: the origin of the files.
        value: the error, as a fraction.
        source: authors, year, title, arXiv number, table.
        verified: read in the authors' own paper, not quoted by others.
        also: labels of variants of the network, beside which the value is shown, too.
        remark: anything else worth knowing.
        data_sha256: hashes of the test samples in the record of a run that has imported those files: one for each kind
            of processor on which code of the authors has made them. A record has no hash of ``test_long``: of a long
            rollout on imported files, the horizon is taken to be the entry's.
        url: of the source.
    """

    id: str
    model: str
    problem: str
    parameters: Mapping[str, float | None]
    resolution: int | None
    n_train: int | None
    n_test: int | None
    history: int | None
    horizon: int | None
    final_time: float | None
    metric: Literal["rel_l2", "rel_h1", "nrmse", "nrmse_gmean_100"]
    split: str | None
    normalization: str | None
    data: str | None
    value: float
    source: str
    verified: bool
    also: tuple[str, ...] = ()
    remark: str | None = None
    data_sha256: tuple[str, ...] = ()
    url: str | None = None


@cache
def load(path: Path = PATH) -> tuple[Published, ...]:
    """All published values, in the order of the file.

    Raises:
        ValueError: the file isn't valid YAML, or an entry lacks a key, has an unknown one, or a value of the wrong
            type. The message names the entry and the key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} isn't valid YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("entries"), list):
        raise ValueError(f"{path.name} must have a list of entries under the key entries.")
    entries = tuple(_entry(node, f"{path.name}, entry {i + 1}") for i, node in enumerate(content["entries"]))
    ids = [entry.id for entry in entries]
    for twice in sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"{path.name} has several entries with id {twice}. Give each an id of its own.")
    return entries


def by_id() -> dict[str, Published]:
    """All published values by their ids."""
    return {entry.id: entry for entry in load()}


def id_of(config: Mapping[str, Any]) -> str | None:
    """The entry that the configuration of a record names. Runs from before the list existed hold value and source
    themselves; the name of their task is now the entry's id."""
    node = _named(config)
    if "id" in node:
        return node["id"] if isinstance(node["id"], str) else None
    entry = by_id().get(str(config.get("task")))
    return entry.id if entry is not None and entry.value == node.get("value") else None


def differences(entry: Published, record: RunRecord) -> tuple[str, ...]:
    """The conditions in which a published value and a run differ: each starts with its name, or with "unknown" and its
    name if one side isn't known."""
    here, there = _conditions(record, entry), _conditions_of(entry)
    found = (_difference(name, there[name], here.get(name)) for name in there)
    return tuple(text for text in (*found, _difference_of_data(entry, record)) if text)


def comparable(entry: Published, record: RunRecord) -> bool:
    """Whether every condition of a published value is known and equal to that of the run."""
    return not differences(entry, record)


def nearest(record: RunRecord, entries: Iterable[Published]) -> Published | None:
    """The value to show beside a run: the one with the fewest differences among those of its model, problem, parameters
    and resolution. Ties are broken by source, value and id, so the order of the entries doesn't matter.

    None if there is none. An unknown parameter of an entry doesn't rule it out.
    """

    def rank(entry: Published) -> tuple[int, str, float, str]:
        return len(differences(entry, record)), entry.source, entry.value, entry.id

    return min((entry for entry in entries if _is_near(entry, record)), key=rank, default=None)


def shown(record: RunRecord) -> Published | None:
    """The value shown beside a run: the one that its configuration names, otherwise the nearest. None if there is none,
    or if the record holds its own value and that isn't in the list."""
    name = id_of(record.config)
    if name is None and _named(record.config).get("value") is not None:
        return None
    named = None if name is None else by_id().get(name)
    return named or nearest(record, load())


def cells(record: RunRecord) -> dict[str, str | float | None]:
    """The columns ``comparable`` (yes or no), ``published_value`` and ``published_source`` of a run's row; None if
    there is nothing to compare with. If the record itself holds value and source, those are shown."""
    entry, own = shown(record), _named(record.config)
    value, source = (None, None) if entry is None else (entry.value, entry.source)
    if own.get("value") is not None:
        value, source = own["value"], own.get("source")
    verdict = "yes" if entry is not None and comparable(entry, record) else "no"
    return {
        "comparable": None if value is None else verdict,
        "published_value": value,
        "published_source": source,
    }


def _named(config: Mapping[str, Any]) -> Mapping[str, Any]:
    node = config.get("published")
    return node if isinstance(node, Mapping) else {}


# Conditions ----------------------------------------------------------------------------------------------------------


def _conditions_of(entry: Published) -> dict[str, Any]:
    names = "model problem resolution history horizon final_time n_train n_test metric split normalization".split()
    return {**{name: getattr(entry, name) for name in names}, **entry.parameters}


def _conditions(record: RunRecord, entry: Published) -> dict[str, Any]:
    """Of a run, with the names of ``_conditions_of``; what the record doesn't say is missing or None."""
    dataset = record.config.get("dataset") or {}
    is_long = entry.metric in ((record.config.get("evaluator") or {}).get("rollout_metrics") or {})
    if is_long:
        dataset = {**dataset, "horizon": _at(dataset, f"test_splits.{_LONG}.horizon")}
    problem = dataset.get("problem") or {}
    sizes = {name: record.data.get(name, {}).get("n") for name in ("train", "test")}
    conditions = {
        "model": record.model,
        "resolution": _points_per_axis(record.data.get("test", {}).get("resolution")),
        "history": dataset.get("history"),
        "horizon": dataset.get("horizon"),
        "n_train": sizes["train"],
        "n_test": sizes["test"],
        "metric": entry.metric if is_long or entry.metric in _AS_PUBLISHED else _METRIC,
        "split": "last epoch" if _at(record.config, "trainer.keep") == "last" else "best on valid",
        "normalization": "none" if _at(record.config, "surrogate.normalize") is False else "per channel",
    }
    if _has_data_of(entry, record) and not problem:  # imported files: a record has their hash, not their problem
        horizon = {"horizon": entry.horizon} if is_long else {}
        return {**conditions, "problem": entry.problem, "final_time": entry.final_time, **horizon, **entry.parameters}
    law = {name: _at(problem, name) for name in entry.parameters}
    return {**conditions, "problem": _module(problem), "final_time": _final_time(dataset), **law}


def _difference(name: str, there: Any, here: Any) -> str | None:
    if there is None and here is None:
        return f"unknown {name}"
    if there is None:
        return f"unknown {name} there, {here} here"
    if here is None:
        return f"unknown {name} here, {there} there"
    return None if _same(there, here) else f"{name}: {there} there, {here} here"


def _difference_of_data(entry: Published, record: RunRecord) -> str | None:
    if _has_data_of(entry, record):
        return None
    is_imported = (record.config.get("dataset") or {}).get("path") is not None
    here = f"imported as {record.dataset}" if is_imported else "drawn and solved here"
    if entry.data is None:
        return f"unknown data there, {here}"
    if is_imported and not entry.data_sha256:  # they may be the same, but a name is no proof
        return f"unknown hash of the data there ({entry.data}), {here}"
    return f"data: {entry.data} there, {here}"


def _has_data_of(entry: Published, record: RunRecord) -> bool:
    return record.data.get("test", {}).get("sha256") in entry.data_sha256


def _is_near(entry: Published, record: RunRecord) -> bool:
    here = _conditions(record, entry)
    law = [(there, here[name]) for name, there in entry.parameters.items()]
    return (
        record.model in (entry.model, *entry.also)
        and here["problem"] == entry.problem
        and entry.resolution is not None
        and here["resolution"] == entry.resolution
        and all(own is not None and (there is None or _same(there, own)) for there, own in law)
    )


def _same(there: Any, here: Any) -> bool:
    if isinstance(there, int | float) and isinstance(here, int | float):
        return math.isclose(there, here, rel_tol=_SAME_NUMBER)
    return there == here


def _module(problem: Mapping[str, Any]) -> str | None:
    """Of a constructor ``data_gen.problems.<module>.<class>``."""
    parts = str(problem.get("_target_", "")).split(".")
    return parts[-2] if len(parts) > 1 else None


def _at(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _points_per_axis(shape: str | None) -> int | str | None:
    """85 for "85x85". A grid with different axes stays text, which no entry has."""
    axes = set(shape.split("x")) if shape else set()
    return int(axes.pop()) if len(axes) == 1 else shape


def _final_time(dataset: Mapping[str, Any]) -> float | None:
    problem, history, horizon = dataset.get("problem") or {}, dataset.get("history"), dataset.get("horizon")
    if history is None or horizon is None:
        return None
    if history == 0:
        return 0.0
    interval = problem.get("interval")
    return None if interval is None else problem.get("first_time", 0.0) + interval * (history + horizon - 1)


# Reading -------------------------------------------------------------------------------------------------------------


def _entry(node: Any, where: str) -> Published:
    if not isinstance(node, dict):
        raise ValueError(f"{where} must be a mapping of keys, got {node!r}.")
    name = f"{where} ({node['id']})" if node.get("id") else where
    known = {entry.name: entry for entry in fields(Published)}
    for key in node:
        if key not in known:
            raise ValueError(f"{name}: unknown key {key}. Known: {', '.join(known)}.")
    for key, entry in known.items():
        if key not in node and entry.default is MISSING:
            raise ValueError(
                f"{name}: {key} is missing. Write null for what is unknown; value and source are required."
            )
    values = {**node, **{key: tuple(node.get(key) or ()) for key in ("also", "data_sha256")}}
    hints = get_type_hints(Published)
    for key, value in values.items():
        if not is_bearable(value, hints[key], conf=_INT_IS_FLOAT) or isinstance(value, bool) != (hints[key] is bool):
            raise ValueError(f"{name}: {key} must be of type {known[key].type}, got {value!r}.")
    for key, value in values["parameters"].items():  # beartype checks only one of them
        if not (value is None or isinstance(value, int | float)):
            raise ValueError(f"{name}: parameters.{key} must be a number or null, got {value!r}.")
    if not (math.isfinite(values["value"]) and values["value"] > 0):
        raise ValueError(f"{name}: value must be a positive number, got {values['value']}.")
    for key in ("id", "source"):
        if not values[key].strip():
            raise ValueError(f"{name}: {key} must not be empty.")
    return Published(**values)
