"""The board as one page: tables, pictures, verdicts and provenance in a file that needs no other and no network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from neuralop_bench.board import plots
from neuralop_bench.board.plots import Series
from neuralop_bench.board.rows import Board, Cell, Entry, Group, columns_of, settings
from neuralop_bench.board.tables import SINGLE_SEED, interval, stars, text, verdict
from neuralop_bench.board.verdicts import verdicts
from neuralop_bench.evaluation.statistics import SIGNIFICANCE, Pair
from neuralop_bench.records import published
from neuralop_bench.records.profile import Fields, Profile, ProfileError
from neuralop_bench.records.run_directory import command_line
from neuralop_bench.records.rung import Rung

# Rows whose pictures are drawn, best first; more would be neither read nor light.
MOST_PICTURED = 12
# Rows of a task whose whole configuration is printed.
_MOST_CONFIGS = 60
_INTERPOLATED = "_interpolated"


@dataclass(frozen=True)
class Column:
    """One column of the page's tables.

    Attributes:
        name: in leaderboard.csv.
        head: above it.
        about: what it is, for people.
        family: columns that are shown or hidden together.
        is_better: which way, or empty.
    """

    name: str
    head: str
    about: str
    family: str
    is_better: str = ""


_DOWN, _UP = "lower is better", "higher is better"
FAMILIES = {
    "accuracy": "Accuracy",
    "spectrum": "By scale",
    "elsewhere": "Elsewhere",
    "cost": "Cost",
    "solver": "Beside the solver",
    "protocol": "Protocol",
}
COLUMNS = (
    Column(
        "rel_l2_mean", "relative L2", "mean over seeds and test samples ± standard deviation of seeds", "always", _DOWN
    ),
    Column("rel_l2_ci_lo", "95 % interval", "seeds and test samples crossed", "accuracy"),
    Column("n_seeds", "seeds", "finished runs", "accuracy"),
    Column("rel_l2_median", "median", "over test samples", "accuracy", _DOWN),
    Column("rel_l2_first_step", "first step", "relative L2 of the first predicted step", "accuracy", _DOWN),
    Column("rel_l2_last_step", "last step", "relative L2 of the last predicted step", "accuracy", _DOWN),
    Column("rel_h1", "H1", "relative error of field and gradient", "accuracy", _DOWN),
    Column("vrmse", "VRMSE", "root mean square error over the field's deviation", "accuracy", _DOWN),
    Column("max_error", "max", "largest error over the largest value", "accuracy", _DOWN),
    Column("valid_rel_l2", "valid", "relative L2 on the split that chose the epoch", "accuracy", _DOWN),
    Column("spec_low", "1–3", "relative error of structures of 1 to 3 cycles per domain", "spectrum", _DOWN),
    Column("spec_mid", "4–11", "of 4 to 11 cycles", "spectrum", _DOWN),
    Column("spec_high", "12–", "of 12 cycles and more", "spectrum", _DOWN),
    Column("lsd_db", "LSD, dB", "log-spectral distance: is the amount of structure right?", "spectrum", _DOWN),
    Column("k_eff", "coherent to", "cycles per domain down to which structures are in their place", "spectrum", _UP),
    Column("correlation_time_0.8", "corr. > .8", "time until the correlation falls below .8", "elsewhere", _UP),
    Column("stable_fraction", "stable", "share of rollouts, four times as long, that stay sound", "elsewhere", _UP),
    Column("transfer_half", "half grid", "relative L2 on half the resolution", "elsewhere", _DOWN),
    Column("transfer_double", "double grid", "relative L2 on double the resolution", "elsewhere", _DOWN),
    Column("ood_factor", "shifted", "growth of the error out of distribution", "elsewhere", _DOWN),
    Column("n_parameters", "parameters", "a complex number counts as 2", "cost"),
    Column("gflops_forward", "GFLOP", "of one forward pass", "cost", _DOWN),
    Column("train_seconds", "train, s", "training time", "cost", _DOWN),
    Column("latency_ms", "ms alone", "one trajectory by itself", "cost", _DOWN),
    Column("throughput", "per s", "trajectories per second at the best batch size", "cost", _UP),
    Column("peak_memory_mb", "peak MB", "memory of training", "cost", _DOWN),
    Column(
        "speedup_at_equal_error", "speed-up", "time of the solver for the same error over the model's", "solver", _UP
    ),
    Column("faster", "faster", "who is faster for the same error", "solver"),
    Column("breakeven_solves", "pays after", "predictions after which data and training are won back", "solver", _DOWN),
    Column("data_error", "data error", "error of the test data themselves", "solver"),
    Column("resolution", "grid", "of the test data", "protocol"),
    Column("n_train", "n train", "training samples", "protocol"),
    Column("epochs", "epochs", "of training", "protocol"),
    Column("tuning_trials", "trials", "of tuning, on valid", "protocol"),
    Column("device", "device", "that ran it", "protocol"),
    Column("status", "status", "self, reproduced or verified; or what became of a seed", "protocol"),
    Column("dirty", "dirty", "whether the code had uncommitted changes", "protocol"),
)


def render(board: Board) -> str:
    """HTML of a board: the same for the same records."""
    environment = Environment(
        loader=PackageLoader("neuralop_bench.board"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    series = series_of(board.groups)
    return environment.get_template("index.html.j2").render(
        style=_part(environment, "style.css"),
        script=_part(environment, "board.js"),
        n_runs=len(board.runs),
        n_models=len({entry.name for entry in board.entries}),
        date=max((run.record.date_utc for run in board.runs), default="")[:10],
        versions=sorted({run.record.bench_version for run in board.runs}),
        tracks=list(dict.fromkeys(group.track for group in board.groups)),
        datasets=sorted({group.dataset for group in board.groups}),
        families=FAMILIES,
        columns=COLUMNS,
        single=SINGLE_SEED,
        overviews=_overviews(board.groups),
        groups=[_section(group, number, series) for number, group in enumerate(board.groups)],
        published=_published(board),
        refusals=board.refusals,
    )


def series_of(groups: Sequence[Group]) -> Series:
    """The looks of all models that are drawn."""
    return Series(sorted({entry.name for group in groups for entry in _pictured(group.entries)}))


def colours() -> dict[str, str]:
    """Of the page in the light, by the name of the variable."""
    text = PackageLoader("neuralop_bench.board").get_source(Environment(), "style.css")[0]
    light = text[: text.index("}")]
    return dict(re.findall(r"(--\w+): (#\w+);", light))


def _part(environment: Environment, name: str) -> Markup:
    """A file that stands in the page as it is: ours, so there is nothing to escape."""
    loader = environment.loader
    assert loader is not None
    return Markup(loader.get_source(environment, name)[0])


# What all tasks have in common ---------------------------------------------------------------------------------------


def _overviews(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Models down, tasks across, of each track that ranks."""
    found = []
    for track in dict.fromkeys(group.track for group in groups if group.ranked):
        members = [group for group in groups if group.track == track]
        cells: dict[str, dict[str, Entry]] = {}
        for group in members:
            for entry in group.entries:
                cells.setdefault(entry.name, {})[group.task] = entry
        models = sorted(cells, key=lambda name: (_mean_place(cells[name], members), name))
        rows = [(name, [_overview_cell(cells[name].get(group.task)) for group in members]) for name in models]
        heads = [{"name": group.task, "id": _id(number)} for number, group in enumerate(groups) if group in members]
        found.append(
            {"track": track, "heads": heads, "rows": rows[:MOST_PICTURED], "n_more": len(rows[MOST_PICTURED:])}
        )
    return found


def _mean_place(entries: Mapping[str, Entry], groups: Sequence[Group]) -> float:
    """How many times the best error, on average over the tasks it has (logarithm of the geometric mean)."""
    logs = []
    for group in groups:
        entry = entries.get(group.task)
        if entry is None:
            continue
        error, best = (one.cells["rel_l2_mean"] for one in (entry, group.entries[0]))
        if isinstance(error, float) and isinstance(best, float) and best > 0 and math.isfinite(error):
            logs.append(math.log(error / best))
    return sum(logs) / len(logs) if logs else math.inf


def _overview_cell(entry: Entry | None) -> dict[str, str]:
    if entry is None:
        return {"text": "–", "rank": "", "why": "doesn't apply, or nobody has run it"}
    rank = text(entry.cells["rank"])
    mark = f" {SINGLE_SEED}" if entry.interval is not None and not entry.interval.counts_seeds else ""
    error = text(entry.cells["rel_l2_mean"]) or str(entry.cells["status"])
    return {"text": error + mark, "rank": rank, "why": ""}


def _published(board: Board) -> list[dict[str, Any]]:
    """Published values, each beside the rows of the same model and problem, with what differs."""
    entries = published.load()
    beside: dict[str, list[dict[str, str]]] = {}
    for group in board.groups:
        for entry in group.entries:
            if not entry.finished:
                continue
            record = entry.finished[0].record
            value = published.shown(record)
            if value is not None:
                beside.setdefault(value.id, []).append(
                    {
                        "where": f"{group.track}/{group.task}",
                        "name": entry.name,
                        "error": text(entry.cells["rel_l2_mean"]),
                        "differs": "; ".join(published.differences(value, record)),
                    }
                )
    return [{"value": value, "rows": beside.get(value.id, [])} for value in entries]


# One task ------------------------------------------------------------------------------------------------------------


def _id(number: int) -> str:
    """Of a section: never made of names, which anybody may choose."""
    return f"task-{number}"


def _section(group: Group, number: int, series: Series) -> dict[str, Any]:
    pictured = _pictured(group.entries)
    profiles = {entry.name: _profiles(entry) for entry in pictured}
    profiles = {name: found for name, found in profiles.items() if found}
    return {
        "id": _id(number),
        "track": group.track,
        "dataset": group.dataset,
        "task": group.task,
        "verdicts": verdicts(group),
        "rows": [_row(entry) for entry in group.entries],
        "against": _against(group),
        "solver": _solver(group),
        "plots": _plots(group, profiles, series),
        "transfer": _transfer(group),
        "fields": _fields(group, profiles, series),
        "provenance": [_provenance(entry, place) for place, entry in enumerate(group.entries)],
    }


def _pictured(entries: Sequence[Entry]) -> list[Entry]:
    """The best; of two with one name (another configuration of the same label) the better."""
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.finished:
            first.setdefault(entry.name, entry)
    return list(first.values())[:MOST_PICTURED]


def _profiles(entry: Entry) -> list[Profile]:
    """Of the seeds; a damaged one is passed over, for its numbers stand in the tables all the same."""
    found = []
    for run in entry.finished:
        try:
            found += [Profile.from_json(run.profile)] if run.profile else []
        except ProfileError:
            continue
    alike = [profile for profile in found if profile.step_errors.shape == found[0].step_errors.shape]
    return [profile for profile in alike if profile.cycles.shape == found[0].cycles.shape]


def _row(entry: Entry) -> dict[str, Any]:
    cells = [_cell(entry, column) for column in COLUMNS]
    name = {"text": entry.name, "model": str(entry.cells["model"]), "hash": str(entry.cells["config_hash"])}
    rank = entry.cells["rank"]
    return {"name": name, "rank": rank, "rank_why": entry.blanks.get("rank", ""), "cells": cells}


def _cell(entry: Entry, column: Column) -> dict[str, Any]:
    name = {"faster": "speedup_at_equal_error"}.get(column.name, column.name)
    value = entry.cells[name]
    shown = _shown(entry, column, value)
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    return {
        "text": shown,
        "why": "" if shown else entry.blanks.get(name, ""),
        "sort": "" if number is None else f"{number:.9g}",
        "family": column.family,
        "is_number": column.name not in ("faster", "device", "status", "dirty", "resolution"),
    }


def _shown(entry: Entry, column: Column, value: Cell) -> str:
    if column.name == "rel_l2_mean":
        deviation = entry.cells["rel_l2_sd"]
        return text(value) + (f" ± {text(deviation)}" if deviation is not None else "")
    if column.name == "rel_l2_ci_lo":
        return interval(entry)
    if column.name == "faster":
        return verdict(entry.cells)
    if column.name == "dirty":
        return "yes" if value else "no"
    if column.name == "speedup_at_equal_error" and entry.cells["speedup_is_bound"] in ("<", ">"):
        return f"{entry.cells['speedup_is_bound']} {text(value)}"
    return text(value)


def _against(group: Group) -> dict[str, Any] | None:
    """Who beats whom, with what confidence."""
    compared, pairs = group.compared(MOST_PICTURED)
    if len(compared) < 2:
        return None
    rows = [
        {
            "name": entry.name,
            "cells": [
                None if pair is None else _pair(entry, other, pair) for other, pair in zip(compared, row, strict=True)
            ],
        }
        for entry, row in zip(compared, pairs, strict=True)
    ]
    return {"heads": [entry.name for entry in compared], "rows": rows}


def _pair(entry: Entry, other: Entry, pair: Pair) -> dict[str, str]:
    better = "better" if pair.ratio < 1 else "worse"
    is_sure = pair.p_value < SIGNIFICANCE
    return {
        "text": f"{text(pair.ratio)}{stars(pair.p_value)}",
        "about": f"{entry.name}'s error is {text(pair.ratio)} times {other.name}'s: "
        + (f"significantly {better}, " if is_sure else "no difference shown, ")
        + f"p = {pair.p_value:.2g} (adjusted)",
        "kind": better if is_sure else "open",
    }


def _rungs(group: Group) -> list[Rung]:
    """The solver's curve of the latest evaluation that has one."""
    found = [
        (evaluation.date_utc, run.record.run_id, evaluation.rungs)
        for entry in group.entries
        for run in entry.runs
        for evaluation in run.evaluations
        if evaluation.rungs
    ]
    return [Rung(**rung) for rung in max(found)[2]] if found else []


def _solver(group: Group) -> list[dict[str, str]]:
    return [
        {
            "grid": rung.resolution,
            "steps": f"{rung.relaxation:g}x",
            "error": text(rung.rel_l2),
            "batched": text(1e3 * rung.seconds),
            "alone": text(1e3 * rung.latency_seconds),
        }
        for rung in _rungs(group)
    ]


def error_and_time(group: Group, series: Series) -> str | None:
    """SVG of error against time of the best rows; None if no model, or no solver, was timed."""
    models = {}
    for entry in _pictured(group.entries):
        error, throughput = entry.cells["rel_l2_mean"], entry.cells["throughput"]
        if isinstance(error, float) and 0 < error < math.inf and isinstance(throughput, float) and throughput > 0:
            ends = None if entry.interval is None else (entry.interval.low, entry.interval.high)
            models[entry.name] = (1 / throughput, error, ends)
    rungs = _rungs(group)
    if not models or not rungs:
        return None
    return plots.error_and_time(models, rungs, series, f"Error against time, {group.task}, {group.track}")


def _plots(group: Group, profiles: Mapping[str, list[Profile]], series: Series) -> list[dict[str, Any]]:
    where = f"{group.task}, {group.track}"
    found = []
    svg = error_and_time(group, series)
    if svg is not None:
        found.append(
            {
                "title": "Error and time",
                "svg": Markup(svg),
                "about": "Down and left is better. Squares are the dataset's own solver on the grids beside them, "
                "given what the models are given; the broad line joins what nothing beats in both error and time.",
            }
        )
    if any(found[0].step_errors.shape[1] > 1 for found in profiles.values()):
        curves = {
            name: (seeds[0].times, np.stack([profile.step_errors for profile in seeds]))
            for name, seeds in profiles.items()
        }
        found.append(
            {
                "title": "Error over time",
                "svg": Markup(plots.error_over_time(curves, series, f"Relative L2 of each step, {where}")),
                "about": "Free-running predictions: each step is made from the model's own last ones. Bands are "
                "intervals of 95 % with seeds and test samples crossed.",
            }
        )
    if profiles:
        first = next(iter(profiles.values()))[0]
        alike = {name: seeds for name, seeds in profiles.items() if seeds[0].cycles.shape == first.cycles.shape}
        energies = {
            name: (_mean([seed.energy_prediction for seed in seeds]), _mean([seed.energy_error for seed in seeds]))
            for name, seeds in alike.items()
        }
        found.append(
            {
                "title": "Spectra",
                "svg": Markup(
                    plots.spectra(first.cycles, first.energy_target, energies, series, f"Energy spectra, {where}")
                ),
                "about": "Above the energy of reference and predictions at the last step, below the size of the error "
                "relative to the reference. From 1 on (dotted), predicting nothing would be as good. Vertical lines "
                "bound the three bands.",
            }
        )
    return found


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(np.stack(values), axis=0)


def _transfer(group: Group) -> dict[str, Any] | None:
    """Errors on other grids, beside the prediction made on the training grid and interpolated."""
    grids = ("test_half", "test_double")
    rows = []
    for entry in group.entries:
        cells = []
        for setting in (grids[0], grids[0] + _INTERPOLATED, "test", grids[1], grids[1] + _INTERPOLATED):
            if setting == "test":
                value = entry.cells["rel_l2_mean"]
            else:
                found = [columns_of(run, setting).get("rel_l2") for run in entry.finished]
                known = [one for one in found if one is not None]
                value = math.fsum(known) / len(known) if known and len(known) == len(found) else None
            column = {"test_half": "transfer_half", "test_double": "transfer_double"}.get(setting, "")
            cells.append({"text": text(value), "why": entry.blanks.get(column, "not measured")})
        if any(cell["text"] for place, cell in enumerate(cells) if place != 2):
            rows.append({"name": entry.name, "cells": cells})
    others = sorted(
        {setting for entry in group.entries for run in entry.finished for setting in settings(run)}
        - {setting + suffix for setting in grids for suffix in ("", _INTERPOLATED)}
    )
    shifted = []
    for entry in group.entries:
        cells = []
        for setting in others:
            found = [columns_of(run, setting).get("rel_l2") for run in entry.finished]
            known = [one for one in found if one is not None]
            cells.append(text(math.fsum(known) / len(known)) if known and len(known) == len(found) else "")
        if any(cells):
            shifted.append({"name": entry.name, "cells": cells})
    return {"rows": rows, "others": others, "shifted": shifted} if rows or shifted else None


def _fields(group: Group, profiles: Mapping[str, list[Profile]], series: Series) -> dict[str, Any] | None:
    """Reference, prediction and error of test sample 0, by the first seed of each model."""
    if not profiles:
        return None
    reference = next(iter(profiles.values()))[0].fields
    errors = {entry.name: text(entry.cells["rel_l2_mean"]) for entry in group.entries}
    cards = []
    for name, seeds in profiles.items():
        fields = seeds[0].fields
        if fields.reference.shape != reference.reference.shape:
            continue
        card: dict[str, Any] = {"name": name, "error": errors[name], "largest": "", "svg": "", "images": []}
        if fields.error is not None:
            card["largest"] = text(float(np.abs(fields.error).max()))
        label = f"{name}: prediction and error of test sample 0, {group.task}"
        if reference.reference.ndim == 1:
            card["svg"] = Markup(plots.lines(fields, series.style(name)["color"], label))
        elif fields.prediction is not None and fields.error is not None:
            limits = _limits(reference)
            size = np.abs(fields.error)
            card["images"] = [
                {"src": plots.image(fields.prediction, limits, plots.FIELD_MAP), "alt": f"{name}: prediction"},
                {
                    "src": plots.image(size, (0.0, float(size.max())), plots.ERROR_MAP),
                    "alt": f"{name}: size of the error",
                },
            ]
        cards.append(card)
    low, high = _limits(reference)
    unit = "" if reference.unit in ("", "1") else f" [{reference.unit}]"
    when = "" if reference.time is None else f" at t = {reference.time:g}"
    image = ""
    if reference.reference.ndim == 2:
        image = plots.image(reference.reference, (low, high), plots.FIELD_MAP)
    return {
        "what": f"{reference.name}{unit}{when}",
        "low": text(low),
        "high": text(high),
        "image": image,
        "cards": cards,
    }


def _limits(fields: Fields) -> tuple[float, float]:
    return float(fields.reference.min()), float(fields.reference.max())


def _provenance(entry: Entry, place: int) -> dict[str, Any]:
    records = [run.record for run in entry.runs]
    first = records[0]
    environment = first.environment
    hardware = {str(record.environment.get("processor", "")) for record in records}
    threads = {str(record.environment.get("threads", "")) for record in records}
    overrides = [str(one) for one in first.config.get("overrides", ()) if not str(one).startswith(("paths.", "seed="))]
    seeds = ",".join(str(record.seed) for record in records)
    again = command_line(overrides, *(["-m"] if len(records) > 1 else []), f"seed={seeds}")
    measured = sorted({str(one.environment.get("threads", "")) for run in entry.runs for one in run.evaluations})
    facts = {
        "runs": ", ".join(record.run_id for record in records),
        "status": str(entry.cells["status"]),
        "command": again,
        "configuration": f"{first.variant} (hash {first.config_hash})",
        "code": f"version {entry.cells['bench_version']}, commit {entry.cells['commit'] or 'unknown'}"
        + (", with uncommitted changes" if entry.cells["dirty"] else ""),
        "test data": f"version {entry.cells['dataset_version']}, SHA-256 {entry.cells['data_sha256']}",
        "train data": "SHA-256 " + ", ".join({str(one.data.get("train", {}).get("sha256", "")): "" for one in records}),
        "hardware": f"{entry.cells['device']}; {', '.join(sorted(hardware))}; threads: {', '.join(sorted(threads))}"
        + (f" (times measured with {', '.join(measured)})" if measured else ""),
        "libraries": ", ".join(f"{name} {version}" for name, version in environment.get("libraries", {}).items()),
        "metrics": str(entry.cells["metric_version"] or ""),
        "date": str(entry.cells["date_utc"]),
    }
    config = ""
    if place < _MOST_CONFIGS:
        config = yaml.safe_dump(first.config, sort_keys=True, allow_unicode=True, width=100)
    return {"name": entry.name, "facts": facts, "config": config, "blanks": entry.blanks}
