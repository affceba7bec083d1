"""Compare two finished runs on the same test samples: what differs, and which is better with what confidence.

    python -m neuralop_bench.compare outputs/lite/ns2d/fno/default-f3e46648 outputs/lite/ns2d/unet/default-21e023ab

Each is a run directory, a folder of several seeds (all finished ones take part), or a record file as committed boards
have it. Nothing is computed again: the records and what lies beside them are enough.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralop_bench.board.collect import Run, joined
from neuralop_bench.evaluation import statistics
from neuralop_bench.records import run_directory
from neuralop_bench.records.record import EVALUATIONS, RECORD_NAME, Evaluation, RecordError, RunRecord
from neuralop_bench.records.run_directory import ERRORS_NAME
from neuralop_bench.runtime.table import Table, number, show

# The columns that are shown side by side, with the metric that defines each; cost has no metric.
_COLUMNS: dict[str, dict[str, str]] = {
    "accuracy on test": {
        **dict.fromkeys(
            "rel_l2 rel_l2_median rel_l2_p95 rel_l2_max rel_l2_first_step rel_l2_last_step".split(), "rel_l2"
        ),
        **{name: name for name in ("rel_h1", "vrmse", "nrmse", "max_error")},
        "n_diverged": "rel_l2",
        "valid_rel_l2": "rel_l2",
    },
    "by scale": {
        **dict.fromkeys(("spec_low", "spec_mid", "spec_high"), "spectra"),
        **dict.fromkeys(("specn_low", "specn_mid", "specn_high"), "specn"),
        "lsd_db": "lsd",
        "k_eff": "coherence",
    },
    "elsewhere": {
        **dict.fromkeys(("transfer_half", "transfer_double", "ood_factor"), "rel_l2"),
        "correlation_time_0.8": "correlation",
        "stable_fraction": "stability",
    },
}
_COST = """
    n_parameters gflops_forward train_seconds peak_memory_mb latency_ms throughput speedup_at_equal_error
    breakeven_solves
""".split()

# Of a configuration: where and how a run was done rather than what was done, what else is measured of a model, and what
# other keys say already.
_NOISE = (
    *("paths", "overrides", "choices", "device", "tracker", "workers", "preload_gib", "generation", "mode", "run"),
    *("dry_run", "force", "trust", "debug", "seed", "evaluator", "published", "trainer.workers", "data.workers"),
    *("trainer.checkpoint_seconds", "dataset.path", "dataset.tolerance", "dataset.test_splits", "dataset.ladder"),
)
_PLUMBING = ("_partial_", "_convert_")
# Shown for every pair, so left out where keys differ.
_ALWAYS = ("trainer.epochs",)


class CompareError(RuntimeError):
    """Two runs that can't be compared; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two.

    Attributes:
        place: as it was given.
        runs: one per finished seed, in their order.
        errors: relative L2 of each seed and test sample, [seed, sample].
        remarks: what was left out.
    """

    place: Path
    runs: Sequence[Run]
    errors: NDArray[np.float64]
    remarks: Sequence[str] = ()

    @property
    def first(self) -> RunRecord:
        """The record of the first seed, which speaks for all in what they share."""
        return self.runs[0].record

    def joined(self, of: Callable[[RunRecord], object]) -> str:
        """What the seeds say, each word once."""
        return ", ".join(sorted({str(of(run.record)) for run in self.runs}))


# Reading -------------------------------------------------------------------------------------------------------------


def read(place: Path) -> Side:
    """All finished seeds of a run with their errors per sample.

    Args:
        place: a run directory, a folder with ``seed=<n>`` directories, or a record file.

    Raises:
        CompareError: there is no finished run, or no errors per sample are kept of one.
        RecordError: a record or an evaluation can't be read.
    """
    remarks: list[str] = []
    if place.is_file():
        paths = [place]
    elif (place / RECORD_NAME).is_file():
        paths = [place / RECORD_NAME]
    else:
        paths, remarks = _finished_seeds(place)
    runs = [_run(path) for path in paths]
    _require_one_run(place, runs)
    found = sorted(zip(runs, paths, strict=True), key=lambda entry: entry[0].record.seed)
    errors = [_errors_per_sample(run, path) for run, path in found]
    _require_same(
        place, [len(entry) for entry in errors], "have errors of another number of test samples", "Evaluate them again"
    )
    return Side(place, [run for run, _ in found], np.array(errors, np.float64), remarks)


def _finished_seeds(place: Path) -> tuple[list[Path], list[str]]:
    """Record files of the finished seeds in a folder, and a word about the others."""
    finished, remarks = [], []
    for folder in sorted(place.glob("seed=*")):
        where = run_directory.state(folder)
        if where.progress == "finished":
            finished.append(folder / RECORD_NAME)
        else:
            remarks.append(f"{folder} takes no part: {where.progress} ({where.reason}).")
    if finished:
        return finished, remarks
    where = run_directory.state(place)
    if remarks or where.progress != "new":
        reason = " ".join(remarks) or f"{where.progress}: {where.reason}."
        todo = where.command or f"python -m neuralop_bench.status {place} tells the command that completes it"
        raise CompareError(f"{place} holds no finished run. {reason} Complete it first: {todo}.")
    kind = "is neither a record nor a run directory, and holds no seed=<n>" if place.exists() else "doesn't exist"
    raise CompareError(
        f"{place} {kind}. Give a run directory (outputs/<track>/<dataset>/<model>/<variant>/seed=<n>), the folder "
        "above it for all its seeds, or a record file."
    )


def _run(path: Path) -> Run:
    record = RunRecord.load(path)
    if record.status != "finished":
        raise CompareError(
            f"{path} is of a run that {record.status}{record.message and f' ({record.message})'}, so there are no "
            "errors to compare. Change what made it fail and run it again with force=true."
        )
    run, refusals = joined(record, [(entry, Evaluation.load(entry)) for entry in _evaluations_of(path)])
    for refusal in refusals:
        print(f"Warning: left out: {refusal}", file=sys.stderr)
    return run


def _evaluations_of(path: Path) -> list[Path]:
    """Beside a run's record, or, on a committed board, in ``evaluations/<track>`` beside ``records/<track>``."""
    if path.name == RECORD_NAME:
        return sorted(path.parent.glob(f"{EVALUATIONS}/*.json"))
    track = path.absolute().parent
    if track.parent.name != "records":
        return []
    committed = track.parent.with_name(EVALUATIONS) / track.name / path.name
    return [committed] if committed.is_file() else []


def _require_one_run(place: Path, runs: Sequence[Run]) -> None:
    """Refuse seeds that aren't repetitions of each other."""
    records = [run.record for run in runs]
    same = [(entry.track, entry.dataset, entry.task, entry.model, entry.config_hash) for entry in records]
    _require_same(place, same, "are of different configurations", "Give one of them")
    again = "Run the older ones again with force=true"
    _require_same(place, [_test_hash(entry) for entry in records], "were tested on different data", again)
    versions = [entry.metric_versions.get("rel_l2") for entry in records]
    _require_same(place, versions, "measured rel_l2 in different versions", again)
    seeds = [entry.seed for entry in records]
    if len(set(seeds)) < len(seeds):
        raise CompareError(
            f"{place} holds a seed twice ({', '.join(map(str, sorted(seeds)))}), but seeds count as independent "
            "trainings. Remove the copy."
        )


def _require_same(place: Path, values: Sequence[object], differ: str, todo: str) -> None:
    if len(set(values)) > 1:
        raise CompareError(f"The seeds in {place} {differ}, so they can't be taken together. {todo}.")


def _errors_per_sample(run: Run, path: Path) -> list[float]:
    """Relative L2 of each test sample: from the record, else from an evaluation, else from errors.nc."""
    for entry in (run.record, *reversed(run.evaluations)):
        if entry.samples.get("rel_l2"):
            return entry.samples["rel_l2"]
    errors = path.with_name(ERRORS_NAME)
    expected = run.record.files.get(ERRORS_NAME)
    reason = f"no evaluation that has them and no {ERRORS_NAME} lie beside it"
    if path.name == RECORD_NAME and errors.is_file() and expected is not None:
        with open(errors, "rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() == expected:
                return _from_file(errors, path)
        reason = f"{ERRORS_NAME} beside it isn't the one that was written with it"
    raise CompareError(
        f"{path} has no errors per test sample (it is of format {run.record.format}; they came with format 4), and "
        f"{reason}. Evaluate the run once more, from its directory: python run.py mode=evaluate run=<directory>."
    )


def _from_file(errors: Path, record: Path) -> list[float]:
    import xarray as xr

    from neuralop_bench.evaluation.profiling import samples  # imports torch, so only where it is needed

    with xr.open_dataset(errors, engine="h5netcdf") as found:
        if values := samples(found).get("rel_l2"):
            return values
    raise CompareError(f"The evaluator of {record} didn't measure rel_l2. Evaluate the run again with one that does.")


# Comparing -----------------------------------------------------------------------------------------------------------


def check(one: Side, other: Side) -> list[str]:
    """What has to be said about a comparison.

    Raises:
        CompareError: the two have no errors of the same predictions, or share a run.
    """
    shared = {run.record.fingerprint for run in one.runs} & {run.record.fingerprint for run in other.runs}
    if shared:
        raise CompareError(
            f"{one.place} and {other.place} hold the same run ({one.first.run_id}): there is nothing to compare. Give "
            "two different ones."
        )
    first, second = one.first, other.first
    _require_equal(one, other, "dataset", first.dataset, second.dataset, "Give runs of one dataset")
    # The same samples, of which other frames are predicted, are another task.
    for key, what in (("history", "number of given frames"), ("horizon", "number of predicted frames")):
        of = [record.config.get("dataset", {}).get(key) for record in (first, second)]
        _require_equal(one, other, f"{what} (dataset.{key})", of[0], of[1], f"Give runs with one dataset.{key}")
    again = "Run the older one again with force=true, so that both are tested on the same file (paths.data)"
    _require_equal(one, other, "test data (SHA-256)", _test_hash(first), _test_hash(second), again)
    versions = [record.metric_versions.get("rel_l2") for record in (first, second)]
    again = "Run the older one again with this version of neuralop-bench (force=true)"
    _require_equal(one, other, "version of rel_l2", versions[0], versions[1], again)
    sizes = [side.errors.shape[1] for side in (one, other)]
    again = "Evaluate both again (mode=evaluate force=true)"
    _require_equal(one, other, "number of test samples", sizes[0], sizes[1], again)
    return [*one.remarks, *other.remarks, *_remarks(one, other)]


def _require_equal(one: Side, other: Side, what: str, first: object, second: object, todo: str) -> None:
    if first != second:
        raise CompareError(
            f"{one.place} and {other.place} can't be compared sample by sample, because they differ in the {what}: "
            f"{first} and {second}. {todo}."
        )


def _remarks(one: Side, other: Side) -> Iterator[str]:
    for what in ("track", "task"):
        first, second = getattr(one.first, what), getattr(other.first, what)
        if first != second:
            yield (
                f"The runs are of different {what}s ({first} and {second}): the samples are the same, but not what was "
                "allowed for the training."
            )
    if one.joined(_place_of_computing) != other.joined(_place_of_computing):
        yield "Times and memory were measured on different devices or threads: their ratios say little."
    shown = {metric for columns in _COLUMNS.values() for metric in columns.values()}
    if unlike := sorted(metric for metric in shown if _unlike(one, other, metric)):
        yield f"Columns of {', '.join(unlike)} are left out: the runs measured them in different versions."


def compare(one: Side, other: Side) -> tuple[statistics.Comparison, list[str]]:
    """The first against the second, sample by sample, and what has to be said about it.

    Raises:
        CompareError: as ``check``.
    """
    remarks = check(one, other)
    return statistics.compare(one.errors, other.errors), remarks


def verdict(found: statistics.Comparison, one: Side, other: Side) -> str:
    """Which is better, in one sentence; a second one if other trainings aren't counted."""
    first, second = names(one, other)
    n_samples = one.errors.shape[1]
    if not math.isfinite(found.ratio) or found.ratio == 0:
        diverged = [int(np.isinf(side.errors).any(axis=0).sum()) for side in (one, other)]
        who = "neither is better" if all(diverged) else f"{second if diverged[0] else first} is better"
        return (
            f"Of {n_samples} samples, {first} diverged on {diverged[0]} and {second} on {diverged[1]}: there is no "
            f"ratio of errors, and {who}."
        )
    sure = found.p_value < statistics.SIGNIFICANCE
    word = ("significantly better" if found.ratio < 1 else "significantly worse") if sure else "no difference shown"
    sentence = (
        f"{first} has {_short(found.ratio)} times the error of {second} (95 %: {_short(found.low)} to "
        f"{_short(found.high)}): {word} (p = {found.p_value:.1g})."
    )
    single = [name for name, side in ((first, one), (second, other)) if len(side.runs) == 1]
    if single:
        sentence += (
            f" Of {' and '.join(single)} this counts one training only: with other seeds the ratio may lie outside the "
            "interval, unless training leaves nothing to chance."
        )
    return sentence


def names(one: Side, other: Side) -> tuple[str, str]:
    """What to call the two: no longer than what tells them apart."""
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


def tables(one: Side, other: Side, found: statistics.Comparison) -> list[Table]:
    """What differs, metrics and costs side by side, and the comparison on the same samples."""
    who = names(one, other)
    described = [*_descriptions(one, other), *_differing(one.first.config, other.first.config)]
    candidates = [Table("What differs", ("", *who), described, wraps=True)]
    metrics = [_means([run.metrics for run in side.runs]) for side in (one, other)]
    for group, columns in _COLUMNS.items():
        known = [name for name, metric in columns.items() if not _unlike(one, other, metric)]
        candidates.append(_side_by_side(group, who, known, *metrics))
    costs = [_means([run.cost for run in side.runs]) for side in (one, other)]
    candidates.append(_side_by_side("cost", who, _COST, *costs))
    return [*(table for table in candidates if table.rows), _paired(one, other, found)]


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
    # Keys of the model beside each other, whichever side has them.
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
    group: str,
    who: tuple[str, str],
    columns: Iterable[str],
    one: Mapping[str, float | None],
    other: Mapping[str, float | None],
) -> Table:
    """Of the columns that both have."""
    rows = []
    for name in columns:
        first, second = one.get(name), other.get(name)
        if first is not None and second is not None:
            rows.append((name, _amount(first), _amount(second), number(_ratio(first, second))))
    return Table(f"{group[0].upper()}{group[1:]}", ("", *who, "ratio"), rows)


def _paired(one: Side, other: Side, found: statistics.Comparison) -> Table:
    first, second = names(one, other)
    alone = "" if found.counts_seeds else ", of this one training only"
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


def _test_hash(record: RunRecord) -> str:
    return str(record.data.get("test", {}).get("sha256", "unknown"))


def _short(value: float) -> str:
    """Two significant digits; three from 1 on, where two would hide a difference of 4 %.

    >>> _short(0.6144), _short(1.042), _short(12.34)
    ('0.61', '1.04', '12.3')
    """
    return f"{value:.2g}" if value < 1 else f"{value:.3g}"


def _amount(value: float) -> str:
    """Every digit of large whole numbers.

    >>> _amount(1774145.0), _amount(0.0233090)
    ('1,774,145', '0.02331')
    """
    return f"{value:,.0f}" if math.isfinite(value) and value >= 1e4 else number(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 0 if the two could be compared, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m neuralop_bench.compare",
        description="Compare two finished runs on the same test samples: what differs, and which is better.",
    )
    what = "a run directory, a folder of several seeds, or a record file"
    parser.add_argument("one", type=Path, metavar="RUN", help=what)
    parser.add_argument("other", type=Path, metavar="RUN", help=f"what it is compared with: {what}")
    options = parser.parse_args(arguments)
    try:
        one, other = read(options.one), read(options.other)
        found, remarks = compare(one, other)
    except (CompareError, RecordError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    show(tables(one, other, found))
    for remark in remarks:
        print(f"Note: {remark}")
    print(verdict(found, one, other))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
