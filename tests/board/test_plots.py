"""Pictures of a board: in the page's colours, with every name as text, the same each time."""

from __future__ import annotations

import base64
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.made_boards import small_record
from helpers.made_records import N_SHELLS, profile, save
from PIL import Image

from neuralop_bench.board import pictures, plots
from neuralop_bench.board.collect import collect
from neuralop_bench.board.plots import Series, pareto
from neuralop_bench.board.reached import reached
from neuralop_bench.board.rows import Board
from neuralop_bench.evaluation.plotting import FIELD_MAP
from neuralop_bench.records import published
from neuralop_bench.records.rung import Rung
from neuralop_bench.records.trials import TRIALS, Trial, best_so_far, write_trials

NAMES = ["fno", "a<b&c", "price $5", "_hidden", "模型", "two\nlines"]
RUNGS = [Rung("16x16", 1.0, 0.002, 0.1, 0.02), Rung("8x8", 2.0, 0.06, 0.02, 0.001)]


def error_and_time() -> str:
    models = {
        name: (10.0 ** -(i + 1), 0.01 * (i + 1), (0.009 * (i + 1), 0.012 * (i + 1))) for i, name in enumerate(NAMES)
    }
    return plots.error_and_time(models, RUNGS, Series(NAMES), 'a "label" <of> it')


def texts(svg: str) -> str:
    return " ".join(node.text or "" for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text"))


def test_trials_are_drawn_in_their_order_where_the_board_has_them(tmp_path: Path) -> None:
    record = small_record(dataset="burgers1d", task="burgers1d")
    trial = Trial("", 3, 0.5, 1.0, "finished", "a", "c", "2026-01-02T00:00:00+00:00")
    diverged = replace(trial, valid_rel_l2=math.inf, date_utc="2026-01-01T00:00:00+00:00")
    better = replace(trial, valid_rel_l2=0.25, date_utc="2026-01-03T00:00:00+00:00")
    assert best_so_far([better, trial, diverged]) == [math.inf, 0.5, 0.25]
    board = save(tmp_path, record)
    for name, text in (("burgers1d_fno", None), ("burgers1d_unet", None), ("broken", "a,b\n1,2\n")):
        path = tmp_path / TRIALS / record.track / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text) if text else write_trials(path, [trial, better])
    found = collect([board])
    assert [Path(refusal.path).name for refusal in found.refusals] == ["broken.csv"]
    (group,) = Board.of(found).groups
    assert group.trials == {"fno": [better, trial]}
    plotted = pictures.plots_of(group, {}, pictures.series_of([group]))
    assert [plot["title"] for plot in plotted] == ["Error and trials"]
    assert "least relative L2 on valid" in texts(plots.standalone(plotted[0]["svg"], pictures.colours()))


def test_runs_of_published_experiments_are_drawn_against_their_values(tmp_path: Path) -> None:
    entry = published.by_id()["fno_darcy85"]
    boards = []
    for experiment in ("leaderboard", "paper/fno_darcy85"):
        config = {"published": {"id": entry.id}, "choices": {"experiment": experiment}}
        runs = [small_record(seed, error, config=config) for seed, error in ((0, 0.02), (1, 0.04))]
        boards.append(Board.of(collect([save(tmp_path / experiment, *runs)])).groups)
    (row,) = reached(boards[0])
    assert (row.published, row.errors, row.mean) == (entry, (0.02, 0.04), 0.03)
    assert pictures.published_and_reached(boards[0]) is None
    svg = pictures.published_and_reached(boards[1])
    assert svg is not None
    assert "published error" in texts(plots.standalone(svg, pictures.colours()))
    assert "var(--s0)" in svg


def test_names_are_text_whatever_they_hold() -> None:
    svg = plots.standalone(error_and_time(), pictures.colours())
    words = texts(svg)
    for name in NAMES:
        assert " ".join(name.split()) in words
    assert "16x16" in words
    assert "solver" in words
    assert ElementTree.fromstring(svg).get("aria-label") == 'a "label" <of> it'


def test_colours_are_the_pages_and_every_drawing_is_repeatable() -> None:
    svg = error_and_time()
    assert svg == error_and_time()
    assert {f"var(--s{i})" for i in range(len(NAMES))} <= set(re.findall(r"var\(--\w+\)", svg))
    assert "#5e1e0" not in svg
    assert "#0b0b0b" not in svg
    alone = plots.standalone(svg, pictures.colours())
    assert "var(" not in alone


def test_every_variable_of_a_drawing_has_a_colour_on_the_page() -> None:
    defined = pictures.colours()
    assert {f"--s{i}" for i in range(plots.N_SERIES)} | {"--ink", "--muted", "--rule", "--paper"} <= defined.keys()


def test_models_keep_their_looks_and_differ() -> None:
    names = [f"model{i}" for i in range(30)]
    series = Series(names)
    styles = [series.style(name) for name in names]
    assert len({(style["color"], style["marker"]) for style in styles}) == 30  # also where there is no line


def test_the_front_is_what_nothing_beats() -> None:
    points = [(float(x), float(y)) for x, y in np.random.default_rng(0).integers(0, 9, (40, 2))]
    front = pareto(points)
    assert all(x0 < x1 and y0 > y1 for (x0, y0), (x1, y1) in pairwise(front))
    assert all(any(x <= a and y <= b for x, y in front) for a, b in points)


def test_curves_of_diverged_models_end_where_numbers_do() -> None:
    seeds = np.stack([profile(np.linspace(0.01, 0.02, 20)).step_errors] * 2)
    seeds[0, 3, 2:] = np.inf
    svg = plots.error_over_time({"fno": (np.arange(4.0), seeds)}, Series(["fno"]), "errors")
    assert "fno" in texts(svg.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1))
    nothing = plots.error_over_time({"fno": (np.arange(4.0), np.full((1, 5, 4), np.inf))}, Series(["fno"]), "errors")
    assert "fno" not in nothing


def test_spectra_leave_rounding_out() -> None:
    found = profile(np.full(20, 0.1))
    energy = found.energy_target.copy()
    energy[-1] = 1e-16
    models = {"fno": (found.energy_prediction, np.where(energy > 1e-9, found.energy_error, np.inf))}
    svg = plots.spectra(found.cycles, energy, models, Series(["fno"]), "spectra")
    assert "reference" in svg
    assert len(energy) == N_SHELLS


@pytest.mark.parametrize("shape", [(64, 64), (20, 20)])
def test_an_image_has_x_to_the_right_and_y_up(shape: tuple[int, int]) -> None:
    field = np.zeros(shape)
    field[-1, 0] = 1.0  # x at its end, y at its beginning: the lower right corner
    uri = plots.image(field, (0.0, 1.0), FIELD_MAP)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), int)
    bright = picture.sum(axis=-1)
    assert bright[-1, -1] == bright.max()
    assert bright[0, 0] == bright.min()
