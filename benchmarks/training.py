"""Ways of training compared on lite data: which one reaches the same error on valid in less time?

    python -m benchmarks.training [ns2d ...] [WAY ...] [paths.data=...]          train the missing runs: two hours
    python -m benchmarks.training models [ns2d ...] [paths.data=...]             SOAP for the other models: an hour
    python -m benchmarks.training times [ns2d ...] [WAY ...] [paths.data=...]    time an epoch of each way

WAY is a name below, such as 'linear decay, all epochs'. Then only these ways are trained or timed, and their results
are added to the existing ones.

Unless its name says otherwise, every way trains the FNO with its recipe's settings, but with AdamW, a rate that falls
along half a cosine, and half the track's epochs. Ways with unrolled or pushed steps have fewer epochs, so that they
call the network as often. Ways with several rates use the one that is best on valid with seed 0. If the error of a way
is then at most a tenth above that of AdamW, it is repeated with two more seeds. Repeating the command reuses finished
runs. The time of a training is its number of epochs times the time of one epoch. That time is measured separately while
nothing else runs, so trainings may share the machine. Test errors aren't read.

The other models are trained with AdamW and with SOAP at the rate of their recipe, for a third of the epochs, with one
seed. The ratio of the times of an epoch is measured roughly: both train at the same time, on one core each.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.timing import results, save
from data_gen.generation.memory import keep_freed_memory
from neuralop_bench import pipeline
from neuralop_bench.config.compose import compose
from neuralop_bench.config.identity import run_directory
from neuralop_bench.records.record import RECORD_NAME, RunRecord
from neuralop_bench.records.run_directory import CURVE_NAME

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)
DATASETS = {"ns2d": 22, "burgers1d": 60, "darcy2d": 20}  # epochs of the track
MODELS = ("galerkin", "mgno", "unet", "lsm", "deeponet")  # models besides the FNO
ADAMW = ("optimizer._target_=torch.optim.AdamW", "++optimizer.fused=true")
SOAP = ("optimizer._target_=neuralop_bench.training.optimizers.soap", "++optimizer.fused=false")
ALL = ", all epochs"
COSINE, LINEAR = "++scheduler.anneal=cos", "++scheduler.anneal=linear"


@dataclass(frozen=True)
class Way:
    """A way of training: overrides of the recipe, factors of its rate to try, fraction of the track's epochs."""

    overrides: tuple[str, ...] = (*ADAMW, COSINE)
    rates: tuple[float, ...] = (1.0,)
    epochs: float = 0.5


def ways(dataset: str) -> dict[str, Way]:
    """The ways compared on a dataset, by name."""
    found = {
        "AdamW" + ALL: Way(epochs=1.0),
        "linear decay" + ALL: Way((*ADAMW, LINEAR), epochs=1.0),
        "SOAP" + ALL: Way((*SOAP, COSINE), epochs=1.0),
        "AdamW": Way(rates=(0.5, 1.0, 2.0) if dataset == "ns2d" else (1.0,)),
        "linear decay": Way((*ADAMW, LINEAR)),
        "SOAP": Way((*SOAP, COSINE), rates=(0.5, 1.0, 2.0) if dataset == "ns2d" else (0.5, 1.0)),
    }
    if dataset == "ns2d":
        # About as much work as 11 epochs of ten pairs. A trajectory has nine windows of two steps. Half of the batches
        # have a pushed step, which takes a third of the time of a step with gradients.
        usual = (*ADAMW, COSINE)
        found |= {
            "SOAP, linear decay": Way((*SOAP, LINEAR)),
            "short warm-up (.05)": Way((*usual, "scheduler.warmup=0.05")),
            "constant rate": Way((*ADAMW, "scheduler=constant"), rates=(0.25,)),
            "batches of 5": Way((*usual, "trainer.batch_size=5"), rates=(0.7,)),
            "batches of 20": Way((*usual, "trainer.batch_size=20"), rates=(1.4,)),
            "fields, not increments": Way((*usual, "surrogate.residual=false")),
            "unrolled, 2 steps": Way((*usual, "trainer.unroll=2"), epochs=6 / 22),
            "pushforward, up to 1 step": Way((*usual, "trainer.pushforward=1"), epochs=10 / 22),
        }
    return found


def overrides(model: str, dataset: str, way: Way, rate: float, seed: int) -> tuple[str, ...]:
    """Overrides of one training; the rate is given as a factor of the recipe's."""
    return (
        f"model={model}",
        f"dataset={dataset}",
        "track=lite",
        f"seed={seed}",
        f"trainer.epochs={round(way.epochs * DATASETS[dataset])}",
        *way.overrides,
        f"optimizer.lr={rate * recipe_rate(model, dataset):g}",
    )


@functools.cache
def recipe_rate(model: str, dataset: str) -> float:
    """The largest learning rate of a recipe."""
    return compose(f"model={model}", f"dataset={dataset}", "track=lite").optimizer["lr"]


@dataclass(frozen=True)
class Trained:
    """The best error on valid (infinite if the run diverged), and the seconds of the training."""

    valid_rel_l2: float
    seconds: float


def trained(jobs: list[tuple[str, ...]], more: list[str]) -> list[Trained]:
    """Do every training that hasn't been done yet.

    Raises:
        RuntimeError: a training neither finished nor diverged.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    folders = [run_directory(compose(*job, *more)) for job in jobs]

    def train(job: tuple[str, ...], folder: Path) -> Trained:
        command = [sys.executable, str(ROOT / "run.py"), *job, *more]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if not (folder / RECORD_NAME).exists():
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        record = RunRecord.load(folder / RECORD_NAME)
        if record.status == "diverged":
            return Trained(math.inf, math.nan)
        with open(folder / CURVE_NAME) as handle:
            rows = list(csv.DictReader(handle))
        return Trained(min(float(row["valid_rel_l2"]) for row in rows), float(rows[-1]["seconds"]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(train, jobs, folders))


def compared(dataset: str, chosen: list[str], more: list[str]) -> dict[str, Any]:
    """Errors of the ways on a dataset: all rates with the first seed, the best rate with the others."""
    known = recorded(f"training, {dataset}") if chosen else {}
    if chosen and not known:
        sys.exit(f"There are no results for {dataset} yet to compare a single way with: train all ways first.")
    todo = {name: way for name, way in ways(dataset).items() if not chosen or name in chosen}
    screened = [(name, rate) for name, way in todo.items() for rate in way.rates]
    jobs = [overrides("fno", dataset, todo[name], rate, SEEDS[0]) for name, rate in screened]
    errors = {key: run.valid_rel_l2 for key, run in zip(screened, trained(jobs, more), strict=True)}
    best = {name: min(way.rates, key=lambda rate: errors[name, rate]) for name, way in todo.items()}
    adamw = errors["AdamW", best["AdamW"]] if "AdamW" in todo else known["AdamW"]["valid_rel_l2"][0]
    near = [name for name in todo if errors[name, best[name]] <= 1.1 * adamw]
    repeated = [(name, seed) for name in near for seed in SEEDS[1:]]
    others = trained([overrides("fno", dataset, todo[name], best[name], seed) for name, seed in repeated], more)
    found = {
        name: {
            "epochs": round(way.epochs * DATASETS[dataset]),
            "rate": best[name] * recipe_rate("fno", dataset),
            "valid_rel_l2": [
                errors[name, best[name]],
                *(run.valid_rel_l2 for (other, _), run in zip(repeated, others, strict=True) if other == name),
            ],
            "rates_tried": {f"{rate * recipe_rate('fno', dataset):g}": errors[name, rate] for rate in way.rates},
        }
        for name, way in todo.items()
    }
    return {name: (known | found)[name] for name in ways(dataset) if name in known | found}


def recorded(section: str) -> dict[str, Any]:
    """Earlier results of a section on this machine, by way; empty if there are none."""
    path = results()
    sections = json.loads(path.read_text()) if path.exists() else {}
    return sections.get(section, {}).get("ways", {})


def other_models(dataset: str, more: list[str]) -> dict[str, Any]:
    """Errors of the models with AdamW and with SOAP."""
    pair = (Way(epochs=1 / 3), Way((*SOAP, COSINE), epochs=1 / 3))
    runs = trained([overrides(model, dataset, way, 1.0, SEEDS[0]) for model in MODELS for way in pair], more)
    return {
        model: {
            "epochs": round(DATASETS[dataset] / 3),
            "rate": recipe_rate(model, dataset),
            "AdamW": adamw.valid_rel_l2,
            "SOAP": soap.valid_rel_l2,
            "times_as_long": round(soap.seconds / adamw.seconds, 2),
        }
        for model, adamw, soap in zip(MODELS, runs[::2], runs[1::2], strict=True)
    }


def times(dataset: str, chosen: list[str], more: list[str]) -> dict[str, float]:
    """Seconds per epoch of each way, the median of three that take turns.

    This is four times the second epoch on a quarter of the training samples, because the first epoch includes all
    preparations. It doesn't depend on the number of epochs.
    """
    known = recorded(f"seconds of an epoch, {dataset}") if chosen else {}
    todo = {
        name: way for name, way in ways(dataset).items() if not name.endswith(ALL) and (not chosen or name in chosen)
    }
    found: dict[str, list[float]] = {name: [] for name in todo}
    full = compose("model=fno", f"dataset={dataset}", "track=lite").splits["train"]
    with tempfile.TemporaryDirectory() as folder:
        small = (f"splits.train={full // 4}", "splits.valid=1", "trainer.epochs=2", f"paths.outputs={folder}")
        for turn in range(3):
            for name, way in todo.items():
                cfg = compose(*overrides("fno", dataset, way, 1.0, turn), *more, *small)
                with contextlib.redirect_stdout(io.StringIO()):
                    pipeline.run(cfg)
                with open(run_directory(cfg) / CURVE_NAME) as handle:
                    first, second = (float(row["seconds"]) for row in csv.DictReader(handle))
                found[name].append(4 * (second - first))
    return known | {name: round(statistics.median(values), 2) for name, values in found.items()}


def main() -> None:
    """Train and report, or measure times."""
    words = [argument for argument in sys.argv[1:] if "=" not in argument]
    more = [argument for argument in sys.argv[1:] if "=" in argument]
    names = {name: None for dataset in DATASETS for name in ways(dataset)}
    if unknown := set(words) - {"times", "models", *DATASETS, *names}:
        known = ", ".join(["times", "models", *DATASETS, *(f"'{name}'" for name in names)])
        sys.exit(f"Unknown argument {', '.join(sorted(unknown))}. Known: {known}.")
    chosen = [name for name in names if name in words]
    for dataset in [name for name in DATASETS if name in words] or list(DATASETS):
        if "times" in words:
            keep_freed_memory()
            seconds = times(dataset, chosen, more)
            save(f"seconds of an epoch, {dataset}", {"ways": seconds})
            print(dataset, seconds, flush=True)
        elif "models" in words:
            found = other_models(dataset, more)
            save(f"SOAP, {dataset}", {"models": found})
            for name, row in found.items():
                print(f"{dataset}, {name}: {row}", flush=True)
        else:
            result = compared(dataset, chosen, more)
            save(f"training, {dataset}", {"ways": result})
            for name, row in result.items():
                mean = statistics.mean(row["valid_rel_l2"])
                print(f"{dataset}, {name}, rate {row['rate']:g}: {mean:.4f} of {row['valid_rel_l2']}", flush=True)


if __name__ == "__main__":
    main()
