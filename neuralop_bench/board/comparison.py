"""Two runs on the same test samples: whether they can be compared, what differs, and which is better."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.agreement import agree
from neuralop_bench.board import columns
from neuralop_bench.board.run import Run
from neuralop_bench.evaluation.statistics import SIGNIFICANCE, ModelComparison
from neuralop_bench.records.record import RunRecord
from neuralop_bench.runtime.table import Table, number

# The tables: families of columns of a board, and further numbers that boards don't show, each with its metric.
_FAMILIES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "Accuracy on test": (
        ("always", "accuracy"),
        {"rel_l2_p95": "rel_l2", "rel_l2_max": "rel_l2", "nrmse": "nrmse", "n_diverged": "rel_l2"},
    ),
    "By scale": (("spectrum",), dict.fromkeys(("specn_low", "specn_mid", "specn_high"), "specn")),
    "Elsewhere": (("elsewhere",), {}),
    "Cost": (("cost", "solver"), {}),
}

# Keys of a configuration that say where and how a run was done rather than what was done, what else is measured, or
# what other keys say already.
_NOISE = (
    *("paths", "overrides", "choices", "device", "tracker", "workers", "preload_gib", "generation", "mode", "run"),
    *("dry_run", "force", "trust", "debug", "seed", "evaluator", "published", "trainer.workers", "data.workers"),
    *("trainer.checkpoint_seconds", "dataset.path", "dataset.tolerance", "dataset.test_splits", "dataset.ladder"),
)
_PLUMBING = ("_partial_", "_convert_")
# Shown for every pair, so not listed among the differing keys.
_ALWAYS = ("trainer.epochs",)


class CompareError(RuntimeError):
    """Two runs that can't be compared; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Side:
    """One of two compared runs, with all its finished seeds.

    Attributes:
        place: as it was given.
        runs: by seed.
        errors: relative L2 of each test sample, [seed, sample].
        remarks: on what was left out.
    """

    place: Path
    runs: Sequence[Run]
    errors: NDArray[np.float64]
    remarks: Sequence[str] = ()

    @property
    def first(self) -> RunRecord:
        """The record of the first seed, which stands for all in what they share."""
        return self.runs[0].record

    def joined(self, of: Callable[[RunRecord], object]) -> str:
        """What the seeds say, each word once."""
        return ", ".join(sorted({str(of(run.record)) for run in self.runs}))


def check(one: Side, other: Side) -> list[str]:
    """Remarks on a comparison.

    Raises:
        CompareError: the two weren't tested on the same samples and frames, or they share a run.
    """
    shared = {run.record.fingerprint for run in one.runs} & {run.record.fingerprint for run in other.runs}
    if shared:
        raise CompareError(
            f"{one.place} and {other.place} hold the same run ({one.first.run_id}): there is nothing to compare. Give "
            "two different ones."
        )

    def require_equal(what: str, of: Callable[[Side], object], todo: str) -> None:
        first, second = of(one), of(other)
        if first != second:
            raise CompareError(
                f"{one.place} and {other.place} can't be compared sample by sample, because they differ in the {what}: "
                f"{first} and {second}. {todo}."
            )

    require_equal("dataset", lambda side: side.first.dataset, "Give runs of one dataset")
    # Predicting other frames of the same samples is another task.
    for key, what in (("history", "number of given frames"), ("horizon", "number of predicted frames")):
        require_equal(
            f"{what} (dataset.{key})",
            lambda side, key=key: side.first.config.get("dataset", {}).get(key),
            f"Give runs with one dataset.{key}",
        )
    if not agree(one.runs[0].test_data, other.runs[0].test_data):
        again = "Run the older one again with force=true, so that both are tested on the same file (paths.data)"
        require_equal("test data (SHA-256)", lambda side: side.runs[0].test_hash or "unknown", again)
    again = "Run the older one again with this version of neuralop-bench (force=true)"
    require_equal("version of rel_l2", lambda side: side.first.metric_versions.get("rel_l2"), again)
    again = "Evaluate both again (mode=evaluate force=true)"
    require_equal("number of test samples", lambda side: side.errors.shape[1], again)
    return [*one.remarks, *other.remarks, *_remarks(one, other)]


def _remarks(one: Side, other: Side) -> Iterator[str]:
    for what in ("track", "task"):
        first, second = getattr(one.first, what), getattr(other.first, what)
        if first != second:
            yield (
                f"The runs belong to different {what}s ({first} and {second}): the samples are the same, but the rules "
                "for training may not be."
            )
    if one.runs[0].test_hash != other.runs[0].test_hash:
        yield "The test data were made on different kinds of processor: they agree to a tenth of their own error."
    if one.joined(_place_of_computing) != other.joined(_place_of_computing):
        yield "Times and memory were measured on different devices or numbers of threads: their ratios say little."
    shown = {metric for title in _FAMILIES for metric in _shown(title).values()}
    if unlike := sorted(metric for metric in shown if _unlike(one, other, metric)):
        yield f"Columns of {', '.join(unlike)} are left out: the runs measured them in different versions."


def verdict(found: ModelComparison, one: Side, other: Side) -> str:
    """Which is better, in one sentence. A second one follows if a side has a single seed."""
    first, second = names(one, other)
    n_samples = one.errors.shape[1]
    if not math.isfinite(found.ratio) or found.ratio == 0:
        diverged = [int(np.isinf(side.errors).any(axis=0).sum()) for side in (one, other)]
        who = "neither is better" if all(diverged) else f"{second if diverged[0] else first} is better"
        return (
            f"Of {n_samples} samples, {first} diverged on {diverged[0]} and {second} on {diverged[1]}: there is no "
            f"ratio of errors, and {who}."
        )
    sure = found.p_value < SIGNIFICANCE
    word = ("significantly better" if found.ratio < 1 else "significantly worse") if sure else "no difference shown"
    sentence = (
        f"{first} has {_short(found.ratio)} times the error of {second} (95 %: {_short(found.low)} to "
        f"{_short(found.high)}): {word} (p = {found.p_value:.1g})."
    )
    single = [name for name, side in ((first, one), (second, other)) if len(side.runs) == 1]
    if single:
        sentence += (
            f" For {' and '.join(single)} this counts only one training: with other seeds the ratio may lie outside "
            "the interval, unless training is deterministic."
        )
    return sentence


def names(one: Side, other: Side) -> tuple[str, str]:
    """Names for the two, as short as possible while they differ."""
    for of in (
        lambda side: side.first.model,
        lambda side: f"{side.first.model} {side.first.variant.rpartition('-')[0]}",
        lambda side: f"{side.first.model} {side.first.variant}",
        lambda side: f"{side.first.model} {side.first.track}",
        lambda side: f"{side.first.model} seed {side.joined(lambda record: record.seed)}",
    ):
        if of(one) != of(other):
            return of(one), of(other)
    return f"{one.first.model} (first)", f"{other.first.model} (second)"


# Tables --------------------------------------------------------------------------------------------------------------


def tables(one: Side, other: Side, found: ModelComparison) -> list[Table]:
    """What differs, metrics and cost side by side, and the comparison on the same samples."""
    who = names(one, other)
    described = [*_descriptions(one, other), *_differing(one.first.config, other.first.config)]
    candidates = [Table("What differs", ("", *who), described, wraps=True)]
    means = [_means([{**run.metrics, **run.cost} for run in side.runs]) for side in (one, other)]
    for title in _FAMILIES:
        known = [name for name, metric in _shown(title).items() if not _unlike(one, other, metric)]
        candidates.append(_side_by_side(title, who, known, *means))
    return [*(table for table in candidates if table.rows), _paired(one, other, found)]


def _shown(title: str) -> dict[str, str]:
    """The numbers of a table, each with the metric that measures it; costs have none."""
    families, further = _FAMILIES[title]
    return {**columns.numbers(*families), **further}


def _descriptions(one: Side, other: Side) -> Iterator[tuple[str, str, str]]:
    def row(name: str, of: Callable[[Side], str]) -> tuple[str, str, str]:
        return name, of(one), of(other)

    yield row("track, task", lambda side: f"{side.first.track}, {side.first.task}")
    yield row("variant", lambda side: side.first.variant)
    yield row("seeds", lambda side: ", ".join(str(run.record.seed) for run in side.runs))
    yield row("epochs", lambda side: _text(side.first.config.get("trainer", {}).get("epochs")))
    yield row("training [s]", lambda side: number(_means([run.cost for run in side.runs]).get("train_seconds")))
    yield row("device", lambda side: side.joined(lambda record: record.environment.get("device")))
    yield row("threads", lambda side: side.joined(lambda record: record.environment.get("threads")))
    yield row("commit", lambda side: side.joined(_commit))
    yield row("bench_version", lambda side: side.joined(lambda record: record.bench_version))


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Keys of two configurations whose values differ; blank where one has no such key."""
    first, second = dict(_flattened(one)), dict(_flattened(other))
    places = list(dict.fromkeys(key.partition(".")[0] for key in [*first, *second]))
    # Keys of the model together, whichever side has them.
    for key in sorted({**first, **second}, key=lambda key: places.index(key.partition(".")[0])):
        of_one, of_other = (_text(flat[key]) if key in flat else "" for flat in (first, second))
        if of_one != of_other:
            yield key, of_one, of_other


def _flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in _NOISE or key in _ALWAYS or name in _PLUMBING:
            continue
        if isinstance(value, dict):
            yield from _flattened(value, f"{key}.")
        else:
            yield key, value


def _side_by_side(
    title: str,
    who: tuple[str, str],
    names: Iterable[str],
    one: Mapping[str, float | None],
    other: Mapping[str, float | None],
) -> Table:
    """The numbers that both have."""
    rows = []
    for name in names:
        first, second = one.get(name), other.get(name)
        if first is not None and second is not None:
            rows.append((name, _amount(first), _amount(second), number(_ratio(first, second))))
    return Table(title, ("", *who, "ratio"), rows)


def _paired(one: Side, other: Side, found: ModelComparison) -> Table:
    first, second = names(one, other)
    alone = "" if found.counts_seeds else ", counting only this training"
    rows = [
        (f"error of {first} / error of {second}, geometric mean", number(found.ratio)),
        (f"  95 %, samples and seeds crossed{alone}", f"{number(found.low)} to {number(found.high)}"),
        ("  95 %, bootstrap over samples", f"{number(found.bootstrap_low)} to {number(found.bootstrap_high)}"),
        (f"p, samples and seeds crossed{alone}", f"{found.p_value:.2g}"),
        ("p, Wilcoxon over samples", f"{found.p_wilcoxon:.2g}"),
        ("test samples", str(one.errors.shape[1])),
        ("seeds", f"{len(one.runs)} and {len(other.runs)}"),
    ]
    return Table("On the same test samples: relative L2", ("", ""), rows)


def _means(tables: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Over seeds; None where one of them lacks a number."""
    found: dict[str, float | None] = {}
    for name in tables[0]:
        values = [entry.get(name) for entry in tables]
        known = [value for value in values if value is not None]
        found[name] = math.fsum(known) / len(known) if len(known) == len(values) else None
    return found


def _ratio(one: float, other: float) -> float | None:
    return one / other if other and math.isfinite(one) and math.isfinite(other) else None


def _unlike(one: Side, other: Side, metric: str) -> bool:
    """Whether the two measured a metric in different versions."""
    versions = {run.metric_versions.get(metric) for side in (one, other) for run in side.runs}
    return len(versions - {None}) > 1


def _place_of_computing(record: RunRecord) -> tuple[object, ...]:
    return tuple(record.environment.get(name) for name in ("device", "processor", "threads"))


def _commit(record: RunRecord) -> str:
    return f"{record.commit[:10] or 'unknown'}{' with uncommitted changes' if record.dirty else ''}"


def _short(value: float) -> str:
    """Two significant digits; three from 1 upwards, where two would hide a difference of 4 %.

    >>> _short(0.6144), _short(1.042), _short(12.34)
    ('0.61', '1.04', '12.3')
    """
    return f"{value:.2g}" if value < 1 else f"{value:.3g}"


def _amount(value: float) -> str:
    """Four significant digits, or all digits of a large whole number.

    >>> _amount(1774145.0), _amount(0.0233090)
    ('1,774,145', '0.02331')
    """
    return f"{value:,.0f}" if math.isfinite(value) and value >= 1e4 else number(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
