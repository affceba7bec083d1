"""What the page draws of a group: which rows, which of their curves, and which words go with them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from neuralop_bench.board import plots
from neuralop_bench.board.plots import Series
from neuralop_bench.board.reached import reached
from neuralop_bench.board.rows import Entry, Group
from neuralop_bench.board.text import text
from neuralop_bench.evaluation.plotting import FIELD_MAP
from neuralop_bench.records.profile import Fields, Profile, ProfileError
from neuralop_bench.records.rung import Rung
from neuralop_bench.records.trials import best_so_far

# Rows that are drawn, best first. More would make a picture hard to read and the page heavy.
MOST_PICTURED = 12

Profiles = Mapping[str, list[Profile]]


def series_of(groups: Sequence[Group]) -> Series:
    """The looks of all models that are drawn."""
    return Series(sorted({entry.name for group in groups for entry in _pictured(group.entries)}))


def colours() -> dict[str, str]:
    """The colours of the page in its light scheme, by the name of their variable."""
    style = PackageLoader("neuralop_bench.board").get_source(Environment(), "style.css")[0]
    return dict(re.findall(r"(--\w+): (#\w+);", style[: style.index("}")]))


def profiles_of(group: Group) -> Profiles:
    """What the seeds of each drawn row keep for pictures, by the row's name; rows that keep nothing are left out."""
    found = {entry.name: _profiles(entry) for entry in _pictured(group.entries)}
    return {name: profiles for name, profiles in found.items() if profiles}


def rungs_of(group: Group) -> list[Rung]:
    """The solver's curve, from the latest evaluation that has one."""
    found = [
        ((evaluation.date_utc, run.record.run_id), evaluation.rungs)
        for entry in group.entries
        for run in entry.seeds.runs
        for evaluation in run.evaluations
        if evaluation.rungs
    ]
    return [Rung(**rung) for rung in max(found, key=lambda entry: entry[0])[1]] if found else []


def _pictured(entries: Sequence[Entry]) -> list[Entry]:
    """The best rows. Of two with the same name (another configuration under the same label), the better."""
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.seeds.finished:
            first.setdefault(entry.name, entry)
    return list(first.values())[:MOST_PICTURED]


def _profiles(entry: Entry) -> list[Profile]:
    """Of the seeds. A damaged profile is left out: the tables have the run's numbers all the same."""
    found = []
    for run in entry.seeds.finished:
        try:
            found += [Profile.from_json(run.profile)] if run.profile else []
        except ProfileError:
            continue
    alike = [profile for profile in found if profile.step_errors.shape == found[0].step_errors.shape]
    return [profile for profile in alike if profile.cycles.shape == found[0].cycles.shape]


# Curves --------------------------------------------------------------------------------------------------------------


def plots_of(group: Group, profiles: Profiles, series: Series) -> list[dict[str, Any]]:
    """Error against time, against trials and over time, and spectra, each with its title and explanation, if there is
    something to draw."""
    found = [
        _error_and_time(group, series),
        _error_and_trials(group, series),
        _error_over_time(group, profiles, series),
        _spectra(group, profiles, series),
    ]
    return [plot for plot in found if plot is not None]


def error_and_time(group: Group, series: Series) -> str | None:
    """SVG of error against time of the best rows; None if no model or no solver was timed."""
    models = {}
    for entry in _pictured(group.entries):
        error, throughput = entry.cells["rel_l2_mean"], entry.cells["throughput"]
        if isinstance(error, float) and 0 < error < math.inf and isinstance(throughput, float) and throughput > 0:
            interval = entry.seeds.interval
            models[entry.name] = (1 / throughput, error, None if interval is None else (interval.low, interval.high))
    rungs = rungs_of(group)
    if not models or not rungs:
        return None
    return plots.error_and_time(models, rungs, series, f"Error against time, {group.task}, {group.track}")


def _error_and_time(group: Group, series: Series) -> dict[str, Any] | None:
    svg = error_and_time(group, series)
    if svg is None:
        return None
    about = (
        "Down and left is better. Squares are the dataset's own solver on the grids named beside them, with the same "
        "inputs as the models. The broad line is the Pareto front: nothing is better in both error and time."
    )
    return {"title": "Error and time", "svg": Markup(svg), "about": about}


def _error_and_trials(group: Group, series: Series) -> dict[str, Any] | None:
    drawn = {}
    for entry in _pictured(group.entries):
        if trials := group.trials.get(entry.seeds.first.model):
            drawn.setdefault(entry.seeds.first.model, (entry.name, best_so_far(trials)))
    if not drawn:
        return None
    svg = plots.error_and_trials(dict(drawn.values()), series, f"Error against trials, {group.task}, {group.track}")
    about = (
        "Least error on valid after each trial of a model's tuning. Most trials are shorter than the training whose "
        "error is in the table. A curve that still falls at its end says that more tuning would help. Models whose "
        "recipes are older than the common search have no curve."
    )
    return {"title": "Error and trials", "svg": Markup(svg), "about": about}


def _error_over_time(group: Group, profiles: Profiles, series: Series) -> dict[str, Any] | None:
    if not any(found[0].step_errors.shape[1] > 1 for found in profiles.values()):
        return None
    curves = {
        name: (seeds[0].times, np.stack([profile.step_errors for profile in seeds])) for name, seeds in profiles.items()
    }
    svg = plots.error_over_time(curves, series, f"Relative L2 of each step, {group.task}, {group.track}")
    about = (
        "Free-running predictions: each step starts from the model's own previous ones. Bands are 95 % intervals with "
        "seeds and test samples crossed."
    )
    return {"title": "Error over time", "svg": Markup(svg), "about": about}


def _spectra(group: Group, profiles: Profiles, series: Series) -> dict[str, Any] | None:
    if not profiles:
        return None
    first = next(iter(profiles.values()))[0]
    alike = {name: seeds for name, seeds in profiles.items() if seeds[0].cycles.shape == first.cycles.shape}
    energies = {
        name: (_mean([seed.energy_prediction for seed in seeds]), _mean([seed.energy_error for seed in seeds]))
        for name, seeds in alike.items()
    }
    label = f"Energy spectra, {group.task}, {group.track}"
    svg = plots.spectra(first.cycles, first.energy_target, energies, series, label)
    about = (
        "Top: energy of reference and predictions at the last step. Bottom: size of the error relative to the "
        "reference; from 1 (dotted) upwards, predicting zero would be as good. Vertical lines separate the three bands."
    )
    return {"title": "Spectra", "svg": Markup(svg), "about": about}


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(np.stack(values), axis=0)


def published_and_reached(groups: Sequence[Group]) -> str | None:
    """SVG of the errors of published experiments against the published values; None if none has been run."""
    drawn: dict[str, list[tuple[float, float, tuple[float, float]]]] = {}
    for row in reached(groups):
        if row.is_of_paper and row.mean is not None and 0 < row.mean < math.inf:
            ends = min(row.errors), max(row.errors)
            drawn.setdefault(row.entry.name, []).append((row.published.value, row.mean, ends))
    if not drawn:
        return None
    return plots.published_and_reached(drawn, Series(sorted(drawn)), "Published values and what was reached here")


# Fields --------------------------------------------------------------------------------------------------------------


def fields_of(group: Group, profiles: Profiles, series: Series) -> dict[str, Any] | None:
    """Reference, prediction and error of test sample 0, from the first seed of each model."""
    if not profiles:
        return None
    reference = next(iter(profiles.values()))[0].fields
    cards = []
    for name, seeds in profiles.items():
        fields = seeds[0].fields
        if fields.reference.shape != reference.reference.shape:
            continue
        card: dict[str, Any] = {"name": name, "largest": "", "svg": "", "images": []}
        if fields.error is not None:
            card["largest"] = text(float(np.abs(fields.error).max()))
        if reference.reference.ndim == 1:
            label = f"{name}: prediction and error of test sample 0, {group.task}"
            card["svg"] = Markup(plots.lines(fields, series.style(name)["color"], label))
        elif fields.prediction is not None and fields.error is not None:
            size = np.abs(fields.error)
            prediction = plots.image(fields.prediction, _limits(reference), FIELD_MAP)
            error = plots.image(size, (0.0, float(size.max())), plots.ERROR_MAP)
            card["images"] = [
                {"src": prediction, "alt": f"{name}: prediction"},
                {"src": error, "alt": f"{name}: size of the error"},
            ]
        cards.append(card)
    low, high = _limits(reference)
    unit = "" if reference.unit in ("", "1") else f" [{reference.unit}]"
    when = "" if reference.time is None else f" at t = {reference.time:g}"
    image = ""
    if reference.reference.ndim == 2:
        image = plots.image(reference.reference, (low, high), FIELD_MAP)
    return {
        "what": f"{reference.name}{unit}{when}",
        "low": text(low),
        "high": text(high),
        "image": image,
        "cards": cards,
    }


def _limits(fields: Fields) -> tuple[float, float]:
    return float(fields.reference.min()), float(fields.reference.max())
