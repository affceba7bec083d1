"""A parameter that differs between samples on its way through a run: a channel for models, a number for the solver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from data_gen.problems.burgers1d import Burgers1D
from data_gen.random_fields import LogUniform
from data_gen.spec import ParameterSpec
from data_gen.store import DatasetFile
from neuralop_bench import inspection, pipeline
from neuralop_bench import predict as prediction
from neuralop_bench.batch import Batch
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import identity, run_directory
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.data.sources import GeneratedDataset
from neuralop_bench.data.stream import StreamedWindows
from neuralop_bench.data.trajectories import Trajectories
from neuralop_bench.runs import plan, splits
from neuralop_bench.surrogate.coarse_solver import CoarseSolver
from neuralop_bench.surrogate.surrogate import Surrogate

Smoke = Callable[..., RunConfig]
PROBLEM = Burgers1D(viscosity=LogUniform(1e-2, 1e-1), resolution=64, solver_resolution=96, interval=0.2)
CHANNELS = (ParameterSpec("viscosity", "log"),)


def _opened(folder: Path, n: int = 20, channels: tuple[ParameterSpec, ...] = CHANNELS) -> Trajectories:
    path = GeneratedDataset(PROBLEM, 0, folder).ensure({"train": 20}, workers=1)["train"]
    return Trajectories(path, n_samples=n, history=1, horizon=1, channels=channels)


@pytest.mark.parametrize("preload_bytes", [0, 2**30])
def test_models_get_the_logarithm_and_solvers_the_number(preload_bytes: int, data_folder: Path) -> None:
    path = _opened(data_folder).path
    data = Trajectories(
        path, n_samples=20, history=1, horizon=1, channels=CHANNELS, preload_bytes=preload_bytes, expected=PROBLEM.spec
    )
    with DatasetFile(path) as file:
        values = file.read_parameters()[:, 0]
    batch = data.whole()[[3, 1]]
    assert np.array_equal(batch.parameters.numpy(), values[[3, 1], None])
    assert batch.static.shape == (2, 1, 64)
    np.testing.assert_allclose(batch.static.numpy(), np.log10(values[[3, 1], None, None]) + np.zeros(64), rtol=1e-6)
    # The solver starts from the same batch, and ignores what is for models.
    rung = CoarseSolver(PROBLEM, PROBLEM.spec.grid)
    assert float((rung.predict(batch, 1) - batch.target).norm() / batch.target.norm()) < 1e-5
    hidden = _opened(data_folder, channels=()).whole()[[3, 1]]
    assert hidden.static.shape == (2, 0, 64)
    assert torch.equal(rung.predict(hidden, 1), rung.predict(batch, 1))


def test_fresh_samples_of_a_stream_have_their_own_values(data_folder: Path) -> None:
    train, longer = _opened(data_folder, 4), _opened(data_folder, 12).whole()[np.arange(12)]
    options = {"problem": PROBLEM, "seed": 0, "n_fresh": 8, "epochs": 3, "batch_size": 2, "workers": 0}
    with closing(StreamedWindows(train, 1, **options)) as stream:
        for epoch in range(3):
            list(stream.shuffled(2, 0, epoch))
        last = stream[np.arange(4)]
    for streamed, known in zip(last, longer, strict=True):
        assert torch.equal(streamed, known[-4:])


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_is_told_and_one_that_is_not(smoke: Smoke, tmp_path: Path) -> None:
    common = ("dataset=burgers1d_viscosity", "model=fno", "model.width=4")
    told = smoke(*common)
    hidden = smoke(*common, "dataset.conditioning=none")
    channels = {}
    for cfg in (told, hidden):
        pipeline.run(cfg)
        surrogate = Surrogate.load(run_directory(cfg))
        assert surrogate.spec is not None
        channels[cfg.dataset.conditioning] = len(surrogate.normalizer.static_mean)
    assert channels == {"channels": 1, "none": 0}
    # Both are runs of the same task, under names of their own.
    assert {identity(cfg).track for cfg in (told, hidden)} == {"smoke"}
    assert identity(told).config_hash != identity(hidden).config_hash
    assert identity(hidden).label.startswith("conditioning=none")
    with pytest.raises(ValueError, match=r"is given 1 static channels, .* but the batch has 0"):
        Surrogate.load(run_directory(told)).predict(Batch.given(torch.zeros(1, 1, 1, 256)), 1)
    # A file for predictions has the parameter, one for each sample or one for all.
    test = splits.ensure(splits.split_of(told, "test"))
    assert "parameter viscosity, one value per sample: log-uniform from 0.01 to 0.05, " in inspection.describe(test)
    out = tmp_path / "out.hdf5"
    found = prediction.predict(run_directory(told), test, out)["velocity"].values
    surrogate = Surrogate.load(run_directory(told))
    batch = splits.opened(told, splits.split_of(told, "test")).whole()[np.arange(8)]
    np.testing.assert_allclose(found, surrogate.predict(batch, 1)[:, :, 0].numpy(), atol=1e-6)
    given = tmp_path / "given.hdf5"
    with h5py.File(given, "w") as file, DatasetFile(test) as data:
        file["velocity"] = data.read_states(slice(0, 1))[:, :, 0]
        value = data.read_parameters()[0, 0]
    with pytest.raises(prediction.InputError, match="has no 'viscosity' at its root, neither a dataset"):
        prediction.predict(run_directory(told), given, out)
    with h5py.File(given, "r+") as file:
        file.attrs["viscosity"] = value
    again = prediction.predict(run_directory(told), given, out)["velocity"].values
    np.testing.assert_allclose(again, found[:1], atol=1e-6)


def test_a_test_set_may_have_one_value_for_all(data_folder: Path) -> None:
    fixed = replace(PROBLEM, viscosity=0.2)
    path = GeneratedDataset(fixed, 0, data_folder).ensure({"test_ood": 2}, workers=1)["test_ood"]
    data = Trajectories(path, n_samples=2, history=1, horizon=1, channels=CHANNELS)
    assert data.whole()[[0, 1]].static.unique().tolist() == pytest.approx([np.log10(0.2)])


_LAW = "{_target_:data_gen.random_fields.LogUniform,low:1.0,high:2.0}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("dataset=burgers1d dataset.conditioning=none", "conditioning=none has no effect: no parameter of these data"),
        ("dataset=burgers1d_viscosity dataset.conditioning=all", "conditioning must be channels or none, got 'all'"),
        ("dataset=burgers1d_viscosity dataset.problem.viscosity.low=1.0", r"low must be below .*high, got 1 and 0\.05"),
        (
            f"dataset=burgers1d dataset.problem.interval={_LAW}",
            "interval must be of type float, got a LogUniform. Give",
        ),
        (
            f"dataset=fisher1d dataset.problem.resolution={_LAW}",
            "resolution must be of type int, got a LogUniform. Give",
        ),
        (
            "dataset=burgers1d dataset.problem.viscosity={_target_:data_gen.random_fields.PeriodicGaussianField1D}",
            "viscosity must be of type float or Uniform or LogUniform, got a PeriodicGaussianField1D",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: str, message: str, smoke: Smoke) -> None:
    with pytest.raises(ConfigError, match=message):
        plan.make(smoke(*overrides.split()))
