"""Figures show the numbers they are given, in any number of dimensions and whatever the numbers are."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.batch import Batch
from neuralop_bench.data.trajectories import Windows
from neuralop_bench.evaluation import field_figures, figures, plotting
from neuralop_bench.metrics.metric import MetricContext
from neuralop_bench.metrics.relative import RelativeL2, relative_l2_per_sample, relative_l2_step
from neuralop_bench.metrics.spectral import Spectra
from neuralop_bench.records.rung import Rung

CLOSED = Grid((9, 9), (1.0, 1.0), ("dirichlet",) * 2, ("closed",) * 2)
CASES = {
    "1d": (Grid.periodic(32, 1), 6),
    "1d_one_step": (Grid.periodic(32, 1), 1),
    "2d": (Grid.periodic(16, 2), 7),
    "2d_two_steps": (Grid.periodic(16, 2), 2),
    "2d_wide": (Grid((32, 8), (4.0, 1.0), ("periodic",) * 2, ("periodic",) * 2), 3),
    "2d_steady": (CLOSED, 0),
    "3d": (Grid.periodic(8, 3), 3),
    "3d_steady": (Grid.periodic(8, 3), 0),
}
FIELDS = (FieldSpec("pressure", "p", "Pa"), FieldSpec("density", "d", "kg/m3"))
NAN = float("nan")


class _Case:
    """Random fields with random errors: spec, target, prediction, errors, and what a run hands to run_figures."""

    def __init__(
        self, grid: Grid, n_times: int, n_samples: int = 5, *, n_fields: int = 1, diverged: int | None = None
    ) -> None:
        rng = np.random.default_rng(0)
        times = tuple(0.5 * (i + 1) for i in range(n_times))
        static = (FieldSpec("permeability", "coefficient"),) if not n_times else ()
        self.spec = DatasetSpec("toy", 1, "", grid, times, FIELDS[:n_fields], static)
        n_steps = max(1, n_times)
        shape = (n_samples, n_steps, n_fields, *grid.shape)
        self.target = rng.standard_normal(shape)
        scale = rng.uniform(0.01, 1, (n_samples, n_steps, *(1,) * (len(shape) - 2)))
        self.prediction = self.target + scale * rng.standard_normal(shape)
        if diverged is not None:
            self.prediction[diverged, n_steps // 2 :] = NAN
        self.static = rng.standard_normal((n_samples, len(static), *grid.shape))
        self.batch = Batch(torch.zeros(n_samples, 0, 1), torch.from_numpy(self.static), torch.from_numpy(self.target))
        context = MetricContext(self.spec, np.ones(n_fields), self.spec.grid)
        variables: dict[str, Any] = {}
        for metric in (RelativeL2(context), Spectra(context)):
            measured = metric.measure(torch.from_numpy(self.prediction), self.batch)
            variables.update({name: (metric.variables[name], values) for name, values in measured.items()})
        coordinates = {
            "sample": np.arange(n_samples),
            "time": np.array(times or (0.0,)),
            "channel": [field.name for field in self.spec.state],
        }
        self.errors = xr.Dataset(variables, coords=coordinates)

    # Stand-ins for Windows and Predictor.
    def __getitem__(self, indices: list[int]) -> Batch:
        return Batch(*(x[indices] for x in self.batch[:3]))

    @property
    def source(self) -> SimpleNamespace:
        return SimpleNamespace(spec=self.spec)

    @property
    def n_steps(self) -> int:
        return self.target.shape[1]

    def predict(self, batch: Batch, n_steps: int) -> torch.Tensor:
        assert n_steps == self.n_steps
        (sample,) = (i for i, u in enumerate(self.target) if np.array_equal(u, batch.target[0].numpy()))
        return torch.from_numpy(self.prediction[[sample]])

    def figures(self, curve: list[dict[str, float]] | None = None) -> dict[str, Figure]:
        return figures.run_figures(
            curve or [], 1, self.errors, self, cast(Windows, self), device=torch.device("cpu"), title="fno on toy"
        )


def _lines(figure: Figure, axis: int = 0) -> dict[str, NDArray[np.float64]]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[axis].get_lines()}


def _texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj() if hasattr(text, "get_text"))


REPRESENTATIVES = ("1d", "2d", "2d_steady")


@pytest.mark.parametrize(
    ("name", "diverged"),
    [
        *((name, 2) for name in REPRESENTATIVES),
        *(pytest.param(name, 2, marks=pytest.mark.exhaustive) for name in CASES if name not in REPRESENTATIVES),
        *(pytest.param(name, None, marks=pytest.mark.exhaustive) for name in ("2d", "2d_steady")),
    ],
)
def test_every_kind_of_problem_is_drawn(name: str, diverged: int | None) -> None:
    case = _Case(*CASES[name], diverged=diverged)
    drawn = case.figures()
    growth = "error_growth" if case.n_steps > 1 else "error_distribution"
    assert set(drawn) == {growth, "spectra", "sample_median", "sample_worst"}
    for figure in drawn.values():
        figure.draw_without_rendering()
        assert "fno on toy" in _texts(figure)
    if diverged is not None:
        assert "1 of 5 samples diverged" in _texts(drawn[growth])


def test_a_figure_is_saved_in_print_quality(tmp_path: Path) -> None:
    figures.save(figures.error_growth_figure(_Case(*CASES["1d"]).errors), tmp_path / "new" / "growth.png")
    pixels = imread(tmp_path / "new" / "growth.png")
    assert pixels.shape[1] == 960, "4.8 inches at 200 dots per inch"
    assert pixels.std() > 0.1, "not blank"


def test_the_figures_of_a_whole_run_have_a_training_curve() -> None:
    curve = [{"epoch": 1.0, "train_loss": 0.5, "valid_rel_l2": 0.7}]
    assert "training" in _Case(*CASES["1d_one_step"]).figures(curve)
    assert "sample_worst" not in _Case(*CASES["1d_one_step"], n_samples=1).figures(), "it is the median"


def test_training_curve() -> None:
    curve = [
        {"epoch": 1.0, "train_loss": 0.5, "valid_rel_l2": float("inf")},
        {"epoch": 2.0, "train_loss": 0.2, "valid_rel_l2": 0.31256},
        {"epoch": 3.0, "train_loss": -0.1, "valid_rel_l2": 0.4},
    ]
    figure = figures.training_figure(curve, best_epoch=2)
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_yscale()) == ("epoch", "loss, relative L2", "log")
    lines = _lines(figure)
    np.testing.assert_array_equal(lines["training loss"], [0.5, 0.2, NAN])
    np.testing.assert_array_equal(lines["relative L2 on valid"], [NAN, 0.31256, 0.4])
    np.testing.assert_array_equal(lines["best, epoch 2: 0.3126"], [0.31256])


@pytest.mark.parametrize("value", [float("inf"), NAN, 0.0])
def test_a_training_without_a_best_epoch_is_drawn(value: float) -> None:
    curve = [{"epoch": 1.0, "train_loss": value, "valid_rel_l2": value}]
    for best in (-1, 1):
        figures.training_figure(curve, best).draw_without_rendering()


def test_the_model_lies_beside_the_curve_of_the_solver() -> None:
    rungs = [Rung("16x16", 1.0, 0.1, 0.02, 0.004), Rung("32x32", 2.0, 0.01, 0.04, 0.02)]
    figure = figures.error_against_time_figure(rungs, 0.05, {"batched": 8.0, "alone": 30.0}, title="one model")
    (axis,) = figure.axes
    lines = {line.get_label(): line for line in axis.lines}
    # Sorted by error, in milliseconds.
    np.testing.assert_allclose(lines["solver, batched"].get_xydata(), [[20, 0.01], [4, 0.1]])
    np.testing.assert_allclose(lines["solver, alone"].get_xydata(), [[40, 0.01], [20, 0.1]])
    np.testing.assert_allclose(lines["model, batched"].get_xydata(), [[8, 0.05]])
    np.testing.assert_allclose(lines["model, alone"].get_xydata(), [[30, 0.05]])
    assert {text.get_text() for text in axis.texts} == {"16×16", "32×32"}


@pytest.mark.parametrize("error", [None, math.inf, 0.0])
def test_a_model_without_an_error_leaves_the_curve_alone(error: float | None) -> None:
    rungs = [Rung("16x16", 1.0, 0.1, 0.02, 0.004)]
    figure = figures.error_against_time_figure(rungs, error, {"batched": 8.0, "alone": 30.0})
    assert len(figure.axes[0].lines) == 2


def test_error_growth() -> None:
    case = _Case(*CASES["2d"], n_samples=40)
    figure = figures.error_growth_figure(case.errors)
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_yscale()) == ("time", "relative L2 of the step", "log")
    error, reference = (np.sqrt((x**2).sum(axis=(2, 3, 4))) for x in (case.prediction - case.target, case.target))
    steps = np.sort(error / reference, axis=0)
    np.testing.assert_allclose(_lines(figure)["median"], np.median(steps, axis=0))
    np.testing.assert_allclose(_lines(figure)["mean"], steps.mean(axis=0))
    np.testing.assert_array_equal(axis.get_lines()[0].get_xdata(), case.spec.times)
    (band,) = axis.collections
    outline = cast(Any, band).get_paths()[0].vertices
    for step, time in enumerate(case.spec.times):
        y = outline[outline[:, 0] == time, 1]
        # 39 gaps between 40 samples: 5 % is the sample below 1.95 of them, 95 % the one above 37.05.
        np.testing.assert_allclose([y.min(), y.max()], [steps[1, step], steps[38, step]])


def test_a_diverged_sample_draws_the_range_to_the_top_and_ends_the_mean() -> None:
    case = _Case(*CASES["2d"], diverged=2)
    figure = figures.error_growth_figure(case.errors)
    (axis,) = figure.axes
    at = case.n_steps // 2
    lines = _lines(figure)
    assert np.isfinite(lines["median"]).all()
    assert np.isfinite(lines["mean"][:at]).all()
    assert np.isnan(lines["mean"][at:]).all()
    steps = relative_l2_step(case.errors).values
    assert axis.get_ylim()[1] == pytest.approx(10 * steps[np.isfinite(steps)].max())


@pytest.mark.parametrize("factor", [0.0, float("inf")])
def test_exact_and_lost_predictions_are_drawn(factor: float) -> None:
    for name in ("1d", "2d_steady"):
        case = _Case(*CASES[name])
        for variable in ("error_mean_square", "energy_error"):
            case.errors[variable][:] = factor
        for which, figure in case.figures().items():
            if not which.startswith("sample_"):  # those show the fields
                figure.draw_without_rendering()


def test_one_step_gives_the_distribution_of_the_errors() -> None:
    case = _Case(*CASES["2d_steady"], n_samples=4)
    figure = figures.error_distribution_figure(case.errors)
    (axis,) = figure.axes
    assert axis.get_xlabel() == "relative L2"
    samples = next(line for line in axis.get_lines() if line.get_label() == "samples")
    np.testing.assert_allclose(samples.get_xdata(), np.sort(relative_l2_per_sample(case.errors).values[:, 0]))
    np.testing.assert_allclose(samples.get_ydata(), [0.25, 0.5, 0.75, 1.0])


def test_spectra_at_the_first_a_middle_and_the_last_step() -> None:
    case = _Case(*CASES["2d"])
    figure = figures.spectra_figure(case.errors, case.spec)
    assert [axis.get_title() for axis in figure.axes] == ["t = 0.5", "t = 2", "t = 3.5"]
    assert figure.axes[0].get_ylabel() == "energy per shell [(Pa)²]"
    for axis, step in enumerate((0, 3, 6)):
        assert figure.axes[axis].get_xlabel() == "wavenumber [cycles per domain]"
        for name, label in (("target", "reference"), ("prediction", "prediction"), ("error", "error")):
            energy = case.errors[f"energy_{name}"].values[:, step, 0, :-1].mean(axis=0)
            np.testing.assert_allclose(_lines(figure, axis)[label], energy)
    np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_xdata(), np.arange(1, 9))
    # A grid of 16 points ends at wavenumber 8: within the second band.
    marks = [text.get_text() for text in figure.axes[0].texts]
    assert marks == ["low", "mid"]


def test_spectra_leave_out_what_diverged() -> None:
    case = _Case(*CASES["2d"], diverged=2)
    figure = figures.spectra_figure(case.errors, case.spec)
    energy = case.errors["energy_error"].values[[0, 1, 3, 4], -1, 0, :-1].mean(axis=0)
    np.testing.assert_allclose(_lines(figure, 2)["error"], energy)


@pytest.mark.parametrize("name", ["2d", "3d", "2d_steady"])
def test_maps_show_the_fields(name: str) -> None:
    case = _Case(*CASES[name])
    drawn = case.figures()["sample_median"]
    order = np.argsort(relative_l2_per_sample(case.errors).values[:, 0])
    sample = order[len(order) // 2]
    assert f"test sample {sample} (median error)" in _texts(drawn)
    assert "pressure [Pa]" in _texts(drawn)
    images = [np.asarray(axis.images[0].get_array()) for axis in drawn.axes if axis.images]
    u, p = case.target[sample, :, 0], case.prediction[sample, :, 0]
    if name == "3d":
        u, p = u[..., 4], p[..., 4]
        assert "plane z = 0.5" in _texts(drawn)
    if name == "2d_steady":
        expected = [case.static[sample, 0], u[0], p[0], np.abs(p - u)[0]]
    else:
        steps = [0, 2, 3, 4, 6] if name == "2d" else [0, 1, 2]
        expected = [*u[steps], *p[steps], *np.abs(p - u)[steps]]
    assert len(images) == len(expected)
    for image, field in zip(images, expected, strict=True):
        np.testing.assert_allclose(image, field.T, err_msg="x runs to the right")


@pytest.mark.parametrize("name", ["2d_two_steps", "3d", "2d_steady"])
def test_maps_have_rows_for_each_of_several_fields(name: str) -> None:
    case = _Case(*CASES[name], n_fields=2)
    drawn = field_figures.sample_figure(
        case.prediction[0], case.target[0], case.errors["time"].values, case.spec, static=case.static[0]
    )
    images = [np.asarray(axis.images[0].get_array()).T for axis in drawn.axes if axis.images]
    u, p = (
        np.moveaxis(x[0], 1, 0)[..., 4] if name == "3d" else np.moveaxis(x[0], 1, 0)
        for x in (case.target, case.prediction)
    )
    expected = [frame for field in range(2) for rows in (u[field], p[field], np.abs(p - u)[field]) for frame in rows]
    if name == "2d_steady":
        expected.insert(0, case.static[0, 0])
    assert len(images) == len(expected)
    for image, frame in zip(images, expected, strict=True):
        np.testing.assert_allclose(image, frame)
    labels = [axis.get_ylabel().split("\n")[0] for axis in drawn.axes if axis.get_ylabel()]
    each = 1 if name == "2d_steady" else 3
    assert labels == ["pressure"] * each + ["density"] * each
    assert "pressure [Pa], density [kg/m3]" in _texts(drawn)


def test_lines_and_spectra_have_rows_for_each_of_several_fields() -> None:
    case = _Case(*CASES["1d"], n_fields=2)
    figure = field_figures.sample_figure(case.prediction[0], case.target[0], np.array(case.spec.times), case.spec)
    np.testing.assert_array_equal(_lines(figure, 10)["reference"], case.target[0, 0, 1])
    np.testing.assert_allclose(_lines(figure, 15)["prediction - reference"], (case.prediction - case.target)[0, 0, 1])
    figure = figures.spectra_figure(case.errors, case.spec)
    assert figure.axes[3].get_ylabel() == "density\nenergy per shell [(kg/m3)²]"
    energy = case.errors["energy_error"].values[:, 0, 1, :-1].mean(axis=0)
    np.testing.assert_allclose(_lines(figure, 3)["error"], energy)


@pytest.mark.parametrize("name", ["1d", "2d", "2d_steady", "3d"])
def test_samples_of_a_dataset_have_a_panel_for_each_field(name: str) -> None:
    case = _Case(*CASES[name], n_fields=2)
    figure = field_figures.data_figure(case.target[:2], case.static[:2], case.spec)
    figure.draw_without_rendering()
    if name == "1d":
        last = [np.asarray(axis.get_lines()[-1].get_ydata()) for axis in figure.axes]
        np.testing.assert_array_equal(last, case.target[:2, -1].reshape(4, -1))
        return
    shown = [np.asarray(axis.images[0].get_array()).T for axis in figure.axes if axis.images]
    steps = {"2d": [0, 2, 3, 4, 6], "3d": [0, 1, 2], "2d_steady": [0]}[name]
    frames = case.target[:2, steps]
    frames = frames[..., 4] if name == "3d" else frames
    for sample, field, step in np.ndindex(2, 2, len(steps)):
        assert any(np.array_equal(frames[sample, step, field], image) for image in shown)
    assert ("plane z = 0.5" in _texts(figure)) == (name == "3d")


def test_maps_leave_out_where_the_equation_does_not_hold() -> None:
    state, static = (FieldSpec("u", ""), FieldSpec("v", "")), (FieldSpec("distance", ""),)
    spec = DatasetSpec("masked", 1, "", Grid.periodic(8), (), state, static, mask="distance")
    rng = np.random.default_rng(0)
    distance, fields = rng.standard_normal((2, 1, 8, 8)), rng.standard_normal((2, 1, 2, 8, 8))
    data = field_figures.data_figure(fields, distance, spec)
    sample = field_figures.sample_figure(fields[0], fields[0], np.zeros(1), spec, static=distance[0])
    # Two fields of two samples; reference, prediction and error of two fields. The coefficient is shown everywhere.
    for drawn, n_fields, n_coefficients, samples in ((data, 4, 2, (0, 1)), (sample, 6, 1, (0,))):
        images = [axis.images[0].get_array() for axis in drawn.axes if axis.images]
        hidden = [np.ma.getmaskarray(np.ma.asarray(image)) for image in images]
        expected = [distance[number, 0].T <= 0 for number in samples]
        assert sum(any(np.array_equal(own, mask) for mask in expected) for own in hidden) == n_fields
        assert sum(not own.any() for own in hidden) == n_coefficients


def test_lines_show_the_fields() -> None:
    case = _Case(*CASES["1d"])
    figure = field_figures.sample_figure(case.prediction[0], case.target[0], np.array(case.spec.times), case.spec)
    above, below = _lines(figure, 0), _lines(figure, 5)
    np.testing.assert_array_equal(above["reference"], case.target[0, 0, 0])
    np.testing.assert_array_equal(above["prediction"], case.prediction[0, 0, 0])
    np.testing.assert_allclose(below["prediction - reference"], (case.prediction - case.target)[0, 0, 0])
    assert [axis.get_title() for axis in figure.axes[:5]] == ["t = 0.5", "t = 1", "t = 1.5", "t = 2.5", "t = 3"]


def test_lines_differ_in_style_and_maps_in_lightness_alone() -> None:
    # For grey print: no two lines of a panel have the same style and marker, and maps get lighter or darker all along.
    import matplotlib

    curve = [{"epoch": 1.0, "train_loss": 1.0, "valid_rel_l2": 1.0}]
    for name in ("1d", "2d_steady"):
        for figure in _Case(*CASES[name]).figures(curve).values():
            lines = [line for line in figure.axes[0].get_lines() if not str(line.get_label()).startswith("_")]
            styles = {(line.get_linestyle(), line.get_marker()) for line in lines}
            assert len(styles) == len(lines)
    for name in (plotting.FIELD_MAP, field_figures.ERROR_MAP):
        colours = matplotlib.colormaps[name](np.linspace(0, 1, 64))[:, :3]
        lightness = colours @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(lightness) > 0).all() or (np.diff(lightness) < 0).all(), name


def test_the_settings_of_matplotlib_stay_as_they_were() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    _Case(*CASES["1d_one_step"]).figures()
    assert dict(matplotlib.rcParams) == before
