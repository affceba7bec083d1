"""Records of runs that never took place, as many as a test of boards wants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuralop_bench.records.profile import Fields, Profile
from neuralop_bench.records.record import Evaluation, RunRecord

N_SAMPLES, N_STEPS, N_SHELLS = 20, 4, 8
VERSIONS = {"rel_l2": 1, "spectra": 1, "vrmse": 1}

RECORD = RunRecord(
    run_id="lite-ns2d-fno-abc-s0",
    model="fno",
    variant="default-abc",
    dataset="ns2d",
    track="lite",
    task="ns2d",
    seed=0,
    status="finished",
    message="",
    metrics={"rel_l2": 0.2, "rel_l2_median": 0.1, "vrmse": None, "max_error": math.inf},
    metric_versions={"rel_l2": 1},
    cost={"n_parameters": 12345678, "train_seconds": 1.5},
    data={"train": {"n": 5}, "test": {"sha256": "aa", "n": 3, "version": 1, "resolution": "64x64"}},
    config={"trainer": {"epochs": 2}, "dataset": {}},
    config_hash="abc",
    environment={"device": "cpu", "precision": "float32"},
    bench_version="0.1.0",
    commit="c0ffee",
    dirty=False,
    date_utc="2026-01-01T00:00:00+00:00",
    wall_seconds=2.0,
)

EVALUATION = Evaluation(
    run_id="fno-s0",
    evaluator="thorough",
    metrics={"rel_l2": 0.2, "rel_l2_median": 0.3, "vrmse": 0.7, "transfer_half": 0.25},
    metric_versions={"rel_l2": 1, "vrmse": 2},
    data={"test": {"sha256": "aa", "error": 0.01}, "test_half": {"sha256": "bb"}},
    config={},
    environment={},
    bench_version="0.1.0",
    commit="c0ffee",
    dirty=False,
    date_utc="2026-01-02T00:00:00+00:00",
    wall_seconds=2.0,
    columns={"test_half": {"rel_l2": 0.25, "vrmse": math.inf}},
    cost={"speedup_at_equal_error": 0.4, "speedup_is_bound": -1.0, "breakeven_solves": math.inf, "latency_ms": 5.0},
    rungs=[{"resolution": "8x8", "relaxation": 1.0, "rel_l2": 0.1, "latency_seconds": 0.2, "seconds": 0.1}],
    notes={"transfer_double": "not measured"},
)


def record(model: str = "fno", seed: int = 0, error: float = 0.02, dataset: str = "ns2d", **changes: Any) -> RunRecord:
    """A finished run of the lite track, whose errors scatter over seeds and samples around ``error``."""
    rng = np.random.default_rng([sum(map(ord, model + dataset)), seed])
    of_samples = np.random.default_rng(sum(map(ord, dataset))).normal(size=N_SAMPLES)
    logs = 0.4 * of_samples + 0.05 * rng.normal() + 0.1 * rng.normal(size=N_SAMPLES)
    errors = error * np.exp(logs)
    return replace(
        RunRecord(
            run_id=f"lite-{dataset}-{model}-{model[:4]}cafe-s{seed}",
            model=model,
            variant=f"default-{model[:4]}cafe",
            dataset=dataset,
            track="lite",
            task=dataset,
            seed=seed,
            status="finished",
            message="",
            metrics={
                "rel_l2": math.fsum(errors) / N_SAMPLES,
                "rel_l2_median": float(np.median(errors)),
                "rel_l2_first_step": error / 2,
                "rel_l2_last_step": 2 * error,
                "vrmse": error,
                "spec_low": error,
                "spec_mid": 5 * error,
                "spec_high": None,
                "valid_rel_l2": error,
            },
            metric_versions=VERSIONS,
            cost={"n_parameters": 1000, "train_seconds": 60.0, "latency_ms": 5.0, "throughput": 400.0},
            data={
                "train": {"n": 200, "sha256": "11" * 32},
                "test": {"sha256": "22" * 32, "n": N_SAMPLES, "version": 1, "resolution": "16x16", "error": 1e-3},
            },
            config={
                "trainer": {"epochs": 20},
                "tuning_trials": 4,
                "dataset": {"problem": {}},
                "overrides": [f"model={model}", f"dataset={dataset}", f"seed={seed}"],
            },
            config_hash=f"{model[:4]}cafe",
            environment={"device": "cpu", "precision": "float32", "threads": 1, "libraries": {"torch": "2.13.0"}},
            bench_version="0.1.0",
            commit="c0ffee" * 6,
            dirty=False,
            date_utc="2026-01-01T00:00:00+00:00",
            wall_seconds=70.0,
            samples={"rel_l2": errors.tolist()},
            profile=profile(errors).to_json(),
        ),
        **changes,
    )


def profile(errors: np.ndarray) -> Profile:
    """Errors that grow, spectra that fall off, a wave with a slightly larger one as its prediction."""
    growth = np.linspace(0.5, 2, N_STEPS)
    cycles = np.arange(1.0, N_SHELLS + 1)
    x = np.sin(2 * np.pi * np.arange(16) / 16)
    wave = np.add.outer(x, x)
    energy = cycles**-3
    return Profile(
        times=np.arange(1.0, N_STEPS + 1),
        step_errors=np.multiply.outer(errors, growth),
        cycles=cycles,
        energy_target=energy,
        energy_prediction=1.1 * energy,
        energy_error=energy * 1e-3 * cycles,
        fields=Fields("vorticity", "1/s", 4.0, (1.0, 1.0), wave, 0.05 * wave),
    )


def evaluation(of: RunRecord, **changes: Any) -> Evaluation:
    """A thorough one, of a run that works on double the grid but not on half of it."""
    error = of.metrics["rel_l2"]
    assert error is not None
    return replace(
        Evaluation(
            run_id=of.run_id,
            evaluator="thorough",
            metrics={**of.metrics, "transfer_double": 1.1 * error, "ood_factor": 2.0, "stable_fraction": 1.0},
            metric_versions=of.metric_versions,
            data={"test": of.data["test"], "test_double": {"sha256": "33" * 32}},
            config={},
            environment=of.environment,
            bench_version=of.bench_version,
            commit=of.commit,
            dirty=False,
            date_utc="2026-01-02T00:00:00+00:00",
            wall_seconds=9.0,
            columns={
                "test_double": {"rel_l2": 1.1 * error},
                "test_double_interpolated": {"rel_l2": 1.2 * error},
                "test_ood_amplitude": {"rel_l2": 2 * error},
            },
            cost={"speedup_at_equal_error": 0.5, "speedup_is_bound": 0.0, "breakeven_solves": math.inf},
            rungs=[
                {"resolution": "16x16", "relaxation": 1.0, "rel_l2": 0.002, "latency_seconds": 0.1, "seconds": 0.02},
                {"resolution": "8x8", "relaxation": 2.0, "rel_l2": 0.06, "latency_seconds": 0.02, "seconds": 0.001},
            ],
            notes={"transfer_half": "the model isn't resolution_free", "correlation": "the dataset has no test_long"},
        ),
        **changes,
    )


def three_models(datasets: Sequence[str] = ("ns2d", "darcy2d")) -> list[RunRecord]:
    """Three seeds each of one that is best, and of two that can hardly be told apart."""
    errors = {"fno": 0.02, "unet": 0.041, "lsm": 0.04}
    return [
        record(model, seed, error, name) for name in datasets for model, error in errors.items() for seed in (0, 1, 2)
    ]


def save(folder: Path, *entries: RunRecord | Evaluation) -> Path:
    """As a committed board has them; returns the folder."""
    for number, entry in enumerate(entries):
        kind = "records" if isinstance(entry, RunRecord) else "evaluations"
        entry.save(folder / kind / "lite" / f"{number}.json")
    return folder
