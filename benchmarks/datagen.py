"""The cost of generating data, compared with other schemes and packages.

    python -m benchmarks.datagen                 the quick sections: a few minutes on 2 cores
    python -m benchmarks.datagen workers lite    sections by name; workers, lite and memory take 15 minutes

Run nothing else meanwhile. The sections workers, lite and memory make whole datasets.

Figures go to benchmarks/results, with machine and versions; report.py makes a page from them. Targets are ratios of
times that are measured side by side in one process on one core. If the slower alternative would run for hours, it runs
for a stated number of steps and its time is scaled; the result says so.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# One core for everything, set before any library starts its threads. Sections on processes and memory lift this limit.
_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import numpy as np  # noqa: E402
import scipy.sparse  # noqa: E402
import scipy.sparse.linalg  # noqa: E402
import torch  # noqa: E402
from hydra.utils import instantiate  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from benchmarks.original_schemes import burgers_stepper, vorticity_step  # noqa: E402
from benchmarks.references import euler  # noqa: E402
from benchmarks.timing import interleaved, save  # noqa: E402
from data_gen import spectral  # noqa: E402
from data_gen.generation import certificate  # noqa: E402
from data_gen.generation.memory import keep_freed_memory  # noqa: E402
from data_gen.generation.random_streams import generator  # noqa: E402
from data_gen.grids import Grid  # noqa: E402
from data_gen.permeability import SmoothHighContrast, TwoPhase  # noqa: E402
from data_gen.problems.burgers1d import Burgers1D  # noqa: E402
from data_gen.problems.darcy2d import Darcy2D  # noqa: E402
from data_gen.problems.euler import Euler  # noqa: E402
from data_gen.problems.ns2d import NavierStokes2D, SinusoidalForcing, VorticityDynamics  # noqa: E402
from data_gen.random_fields import PeriodicGaussianField  # noqa: E402
from data_gen.solvers import elliptic  # noqa: E402
from data_gen.spectral import Space  # noqa: E402

ROOT = Path(__file__).parents[1]
FULL = sorted(path.stem for path in (ROOT / "configs" / "task" / "full").glob("*.yaml") if path.stem != "file")

DATASETS = sorted(path.stem for path in (ROOT / "configs" / "dataset").glob("*.yaml"))


def _rngs(n: int, split: str = "test") -> list[np.random.Generator]:
    return [generator(0, split, i) for i in range(n)]


# Time to solution against the original schemes -----------------------------------------------------------------------


def navier_stokes(repeats: int = 5) -> dict[str, Any]:
    """nu = 1e-3 to T = 50 on 64 x 64, against Crank-Nicolson and explicit Euler with dt = 1e-4, each at its best batch.

    The original runs 2000 steps; its time is scaled to the 500,000 steps that T = 50 needs. It runs with complex
    transforms, as released, and with real ones.
    """
    problem = NavierStokes2D(
        viscosity=1e-3, resolution=64, oversampling=1, first_time=1.0, n_snapshots=50, cfl_safety=0.8, max_step=0.07
    )
    error = float(np.max(certificate.measure(problem, _rngs(16), _rngs(16))))
    alternatives: dict[str, Callable[[], Any]] = {
        f"ours {batch}": partial(replace(problem, inner_batch=batch).simulate, _rngs(batch)) for batch in (8, 16, 32)
    }
    n_steps = 2000
    for dtype in (torch.float32, torch.float64):
        for kind in ("released", "real"):
            for batch in (8, 16, 32):
                step, forward = vorticity_step(64, 1e-3, 1e-4, dtype, real=kind == "real")
                start = forward(spectral.to_grid(PeriodicGaussianField().draw(_rngs(batch), 21), 64).to(dtype))
                # Each turn runs only a part of the steps.
                alternatives[f"{kind}_{str(dtype)[6:]} {batch}"] = partial(_repeat, step, start, n_steps // repeats)
    seconds = interleaved(alternatives, repeats)
    scale = 50 / 1e-4 / (n_steps // repeats)
    best: dict[str, float] = {}
    for name, value in seconds.items():
        kind, batch = name.split()
        best[kind] = min(best.get(kind, math.inf), value / int(batch) * (1 if kind == "ours" else scale))
    return {
        "seconds_per_trajectory": best,
        "original_is_scaled_from_steps": n_steps,
        "our_error": error,
        **{f"ratio_{kind}": value / best["ours"] for kind, value in best.items() if kind != "ours"},
        "targets": {"ratio_released_float32": 150, "ratio_released_float64": 300, "our_error_at_most": 1e-7},
    }


def _repeat(step: Callable[[torch.Tensor], torch.Tensor], state: torch.Tensor, n_steps: int) -> None:
    for _ in range(n_steps):
        state = step(state)


def burgers(repeats: int = 3) -> dict[str, Any]:
    """8192 points, against ETDRK4 with dt = 1e-4 on 8192 points at its best batch (200 steps, scaled to 10,000)."""
    result: dict[str, Any] = {"original_is_scaled_from_steps": 200}
    for viscosity in (0.1, 0.01):
        problem = Burgers1D(viscosity=viscosity, resolution=8192, inner_batch=256)
        samples = problem.simulate(_rngs(200))
        exact = _cole_hopf(samples.history[:, 0, 0], viscosity)
        difference = np.linalg.norm(samples.trajectory[:, -1, 0] - exact, axis=1)
        error = float(np.max(difference / np.linalg.norm(exact, axis=1)))
        alternatives: dict[str, Callable[[], Any]] = {"ours 256": partial(problem.simulate, _rngs(256))}
        run = burgers_stepper(8192, viscosity, 1e-4)
        for batch in (8, 16, 64):
            u_hat = torch.fft.rfft(torch.from_numpy(samples.history[:batch, 0, 0]), norm="forward")
            alternatives[f"original {batch}"] = partial(run, u_hat, 200)
        seconds = interleaved(alternatives, repeats)
        original = min(value / int(name.split()[1]) for name, value in seconds.items() if name.startswith("original"))
        ours = seconds["ours 256"] / 256
        result[f"nu={viscosity:g}"] = {
            "seconds_per_1000": {"ours": 1000 * ours, "original": 1000 * original * 50},
            "largest_error": error,
            "ratio": original * 50 / ours,
        }
    result["targets"] = {"ratio": 1500, "largest_error": 1e-6}
    return result


def _cole_hopf(start: np.ndarray, viscosity: float) -> np.ndarray:
    """Solutions of Burgers' equation at t = 1: u = -2 nu phi_x / phi with phi the heat flow of exp(-int u / (2 nu))."""
    n = start.shape[-1]
    k = 2 * np.pi * np.arange(n // 2 + 1)
    u_hat = np.fft.rfft(start, axis=-1)
    integral = np.fft.irfft(np.where(k > 0, u_hat / np.where(k > 0, 1j * k, 1), 0), n, axis=-1)
    exponent = -integral / (2 * viscosity)
    phi_hat = np.fft.rfft(np.exp(exponent - exponent.max(axis=-1, keepdims=True)), axis=-1)
    phi_hat = phi_hat * np.exp(-viscosity * k**2)
    return -2 * viscosity * np.fft.irfft(1j * k * phi_hat, n, axis=-1) / np.fft.irfft(phi_hat, n, axis=-1)


def darcy(repeats: int = 5) -> dict[str, Any]:
    """421 x 421 nodes: two phases 12 / 3 against SciPy's spsolve, smooth contrast 1e6 against a tuned splu."""
    result: dict[str, Any] = {}
    n = 421
    for name, law in (("two_phase_12_3", TwoPhase()), ("smooth_1e6", SmoothHighContrast(contrast=1e6))):
        a = law.draw(generator(0, "test", 0), n)[None]
        faces, force = elliptic.harmonic_faces(a), np.ones((1, n, n))
        matrix = _matrix(faces)
        right = np.full(matrix.shape[0], (1 / (n - 1)) ** 2)
        seconds = interleaved(
            {
                "ours": partial(elliptic.solve, faces, force, 1 / (n - 1)),
                "spsolve": partial(scipy.sparse.linalg.spsolve, matrix, right),
                "splu": partial(_splu, matrix, right),
            },
            repeats,
        )
        found, direct = elliptic.solve(faces, force, 1 / (n - 1)), _splu(matrix, right)
        interior = found.values[0, 1:-1, 1:-1].ravel()
        result[name] = {
            "seconds": seconds,
            "relative_residual": float(np.linalg.norm(right - matrix @ interior) / np.linalg.norm(right)),
            "iterations": int(found.iterations[0]),
            "difference_to_splu": float(np.linalg.norm(interior - direct) / np.linalg.norm(direct)),
            "ratio_spsolve": seconds["spsolve"] / seconds["ours"],
            "ratio_splu": seconds["splu"] / seconds["ours"],
        }
    result["targets"] = {"two_phase_12_3.ratio_spsolve": 10, "smooth_1e6.ratio_splu": 1.5}
    return result


def _splu(matrix: scipy.sparse.csc_matrix, right: np.ndarray) -> np.ndarray:
    options = {"SymmetricMode": True}
    factor = scipy.sparse.linalg.splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    return factor.solve(right)


def _matrix(faces: elliptic.Faces) -> scipy.sparse.csc_matrix:
    """The five-point matrix over the interior nodes of one sample, times h^2."""
    x, y = faces.x[0, :, 1:-1], faces.y[0, 1:-1]
    m = x.shape[1]
    diagonal = x[1:] + x[:-1] + y[:, 1:] + y[:, :-1]
    right = np.concatenate([y[:, 1:-1], np.zeros((m, 1))], axis=1).ravel()[:-1]
    down = x[1:-1].ravel()
    diagonals = [diagonal.ravel(), -down, -down, -right, -right]
    return scipy.sparse.diags(diagonals, [0, m, -m, 1, -1], format="csc")  # pyright: ignore


# Steps ---------------------------------------------------------------------------------------------------------------


def steps(repeats: int = 9) -> dict[str, Any]:
    """One step of order 4 in double precision, against exponax's ETDRK4 (jitted, vmapped).

    It is also compared with the four inverse and four forward transforms that ours needs at least.
    """
    import exponax
    import jax

    jax.config.update("jax_enable_x64", True)
    result: dict[str, Any] = {}
    count, dt = 10, 1e-3
    bound = lambda v: torch.full((len(v),), dt, dtype=torch.float64)  # noqa: E731
    for n, batch in ((64, 16), (128, 4), (256, 4)):
        dynamics = VorticityDynamics(1e-3, n, SinusoidalForcing())
        w_hat = PeriodicGaussianField().draw(_rngs(batch), dynamics.k_max)
        ours = partial(dynamics.integrate, w_hat, [count * dt], bound)
        stepper = exponax.stepper.NavierStokesVorticity(2, 1.0, n, dt, diffusivity=1e-3, order=4)
        repeated = jax.jit(jax.vmap(exponax.repeat(stepper, count)))
        start = jax.numpy.asarray(spectral.to_grid(w_hat, n)[:, None].numpy())
        z = torch.randn(batch, n, n, dtype=torch.complex128)

        def transforms(z: torch.Tensor = z) -> None:
            for _ in range(4 * count):
                torch.fft.ifft2(z, norm="forward")
                torch.fft.fft2(z, norm="forward")

        seconds = interleaved(
            {
                "ours": ours,
                "exponax": lambda repeated=repeated, start=start: repeated(start).block_until_ready(),
                "transforms": transforms,
            },
            repeats,
        )
        result[f"{n}x{n}, batch {batch}"] = {
            "ms_per_sample_and_step": {name: 1e3 * value / count / batch for name, value in seconds.items()},
            "ratio_exponax": seconds["exponax"] / seconds["ours"],
            "ratio_transforms": seconds["ours"] / seconds["transforms"],
        }
    result["targets"] = {"ratio_exponax at 64, 128, 256": [1.5, 2, 2], "ratio_transforms at 256, at most": 1.6}
    return result


def finite_volumes(repeats: int = 9) -> dict[str, Any]:
    """Steps of euler2d at 128 x 128 against the same fluxes in bare NumPy, which takes steps of a fixed size and checks
    nothing. Ours chooses its own steps, so the states differ by the error of steps (a test compares one equal step)."""
    n, count = 128, 10
    result: dict[str, Any] = {}
    for stages in (2, 3):
        problem = Euler(n_dims=2, resolution=n, solver_resolution=n, n_snapshots=2, stages=stages)
        start = problem.simulate(_rngs(1)).history[0, 0]
        # As long as all steps of NumPy, which are a little shorter than ours may be.
        w = problem.primitive(torch.from_numpy(start)[None])
        dt = 0.6 / n / float((problem.speed(w, 0) + problem.speed(w, 1)).max())
        ours = replace(problem, interval=count * dt, cfl=0.6)
        alternatives = {
            "ours": partial(ours.solve, start[None, None], np.empty((1, 0, n, n)), 1),
            "numpy": partial(euler.steps, start, dt, 1 / n, count, stages),
        }
        solved = alternatives["ours"]()
        seconds = interleaved(alternatives, repeats)
        # Ours adapts its steps, so it may take another number of them.
        each = {"ours": seconds["ours"] / solved.diagnostics["n_steps"][0], "numpy": seconds["numpy"] / count}
        difference = solved.trajectory[0, 0] - alternatives["numpy"]()
        result[f"{stages} stages"] = {
            "ms_per_step": {name: 1e3 * value for name, value in each.items()},
            "difference": float(np.abs(difference).max()),
            "ratio_numpy": each["ours"] / each["numpy"],
        }
    result["targets"] = {"ratio_numpy, at most": 1.5}
    return result


def equations(repeats: int = 7) -> dict[str, Any]:
    """One step of each semilinear equation that exponax has too, each with its best batch, order 4, double precision.

    exponax drops the aliased wavenumbers of its grid, while ours pads. Its grid is the one on which ours forms
    products, so both keep the same wavenumbers. Linear equations have no step: both give the states at all outputs.
    """
    import exponax
    import jax

    jax.config.update("jax_enable_x64", True)
    make, reaction = exponax.stepper, exponax.stepper.reaction
    theirs: dict[str, Callable[[Any, int, float], Any]] = {
        "advection1d": lambda p, n, dt: make.Advection(1, p.length, n, dt, velocity=p.speed),
        "diffusion1d": lambda p, n, dt: make.Diffusion(1, p.length, n, dt, diffusivity=p.diffusivity),
        "kdv1d": lambda p, n, dt: make.KortewegDeVries(1, p.length, n, dt, hyper_diffusivity=0.0, order=4),
        "ks1d": lambda p, n, dt: make.KuramotoSivashinskyConservative(1, p.length, n, dt, order=4),
        "fisher1d": lambda p, n, dt: reaction.FisherKPP(
            1, p.length, n, dt, diffusivity=p.diffusivity, reactivity=p.growth, order=4
        ),
        "allen_cahn1d": lambda p, n, dt: reaction.AllenCahn(1, p.length, n, dt, order=4),
        "burgers2d": lambda p, n, dt: make.Burgers(2, p.length, n, dt, diffusivity=p.viscosity, order=4),
        "gray_scott2d": lambda p, n, dt: reaction.GrayScott(2, p.length, n, dt, order=4),
        "cahn_hilliard2d": lambda p, n, dt: reaction.CahnHilliard(2, p.length, n, dt, order=4),
        "swift_hohenberg2d": lambda p, n, dt: reaction.SwiftHohenberg(2, p.length, n, dt, order=4),
        "swift_hohenberg3d": lambda p, n, dt: reaction.SwiftHohenberg(3, p.length, n, dt, order=4),
    }
    result: dict[str, Any] = {}
    for name, stepper in theirs.items():
        problem = instantiate(OmegaConf.load(ROOT / "configs" / "dataset" / f"{name}.yaml").problem)
        problem = replace(problem, warm_up=0.0, n_snapshots=2)
        n_dims, n = problem.n_dims, problem.resolution
        # So many that the output, with ours its diagnostics too, takes little of the time.
        count = {1: 100, 2: 20, 3: 10}[n_dims]
        linear = problem.degree == 1
        dt = problem.interval if linear else problem.max_step / 4
        grid = n if linear else Space(n, n_dims, problem.length, problem.degree).product_resolution
        march = exponax.rollout if linear else exponax.repeat
        repeated = jax.jit(jax.vmap(march(stepper(problem, grid, dt), count)))
        best: dict[str, float] = {}
        for batch in {1: (32, 64, 128, 256), 2: (2, 4, 8, 16), 3: (1, 2, 4)}[n_dims]:
            options = {} if linear else {"interval": count * dt, "first_step": dt, "max_step": dt}
            one = replace(problem, inner_batch=batch, **options)
            start = one.simulate(_rngs(batch)).history
            fine = jax.numpy.asarray(
                problem.at(Grid.periodic(grid, n_dims, problem.length)).simulate(_rngs(batch)).history
            )
            seconds = interleaved(
                {
                    "ours": partial(one.solve, start, np.empty((batch, 0, *[n] * n_dims)), count if linear else 1),
                    "exponax": lambda repeated=repeated, u=fine[:, 0]: repeated(u).block_until_ready(),
                },
                repeats,
            )
            best = {key: min(best.get(key, math.inf), value / count / batch) for key, value in seconds.items()}
        result[name] = {
            "microseconds_per_sample_and_step": {key: 1e6 * value for key, value in best.items()},
            "ratio_exponax": best["exponax"] / best["ours"],
        }
    result["mean_ratio"] = float(np.mean([entry["ratio_exponax"] for entry in result.values()]))
    result["targets"] = {"ratio_exponax of each": 1, "mean_ratio": 1.5}
    return result


# Whole datasets ------------------------------------------------------------------------------------------------------


def workers(repeats: int = 1) -> dict[str, Any]:
    """The thousand training trajectories of full ns2d, nu = 1e-3, with one and with two worker processes.

    The times include the start of the processes and the certificate.
    """
    job = ("dataset=ns2d", "track=full", "task=full/ns2d_nu1e-3", "generation.splits=[train]")

    def run(n_workers: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            _generate(folder, *job, f"workers={n_workers}")

    with _all_cores():
        seconds = interleaved({f"{n} workers": partial(run, n) for n in (1, 2)}, repeats)
    return {"seconds": seconds, "ratio": seconds["1 workers"] / seconds["2 workers"], "targets": {"ratio": 1.8}}


def lite() -> dict[str, Any]:
    """Train, valid and test data of three datasets of the lite track, by two processes with the command for users."""
    return _lite(("ns2d", "darcy2d", "burgers1d"), target=180)


def lite_flows() -> dict[str, Any]:
    """The same for the datasets with shocks, walls, obstacles or three dimensions, but for their variants."""
    flows = ("euler1d", "euler2d", "euler2d_kelvin_helmholtz", "shallow_water2d", "shallow_water2d_smooth", "ns3d")
    walls = ("fitzhugh_nagumo2d", "sorption1d", "wave2d", "helmholtz2d", "obstacles2d")
    return _lite((*flows, *walls), target=480)


def _lite(datasets: Sequence[str], *, target: float) -> dict[str, Any]:
    seconds = {}
    with _all_cores(), tempfile.TemporaryDirectory() as folder:
        for dataset in datasets:
            started = time.perf_counter()
            _generate(folder, f"dataset={dataset}", "track=lite", "workers=2")
            seconds[dataset] = time.perf_counter() - started
    return {"seconds": seconds, "seconds_together": sum(seconds.values()), "targets": {"seconds_together": target}}


def memory() -> dict[str, Any]:
    """Largest resident memory of all processes together, counting shared pages once, for full datasets.

    Two workers make a shard of each split and the certificates. Memory doesn't grow with the number of shards.
    """
    result = {}
    for task in FULL:
        dataset = max((name for name in DATASETS if task.startswith(name)), key=len)
        with _all_cores(), tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            peak = _peak_gib(
                folder,
                *(f"dataset={dataset}", f"task=full/{task}", "track=full", "workers=2"),
                *("splits.train=16", "splits.valid=1", "splits.test=1", "generation.splits=[train]"),
            )
            result[task] = {"peak_gib": peak, "seconds": time.perf_counter() - started}
            print(f"  {task}: {result[task]}", flush=True)
    return {"tasks": result, "peak_gib": max(r["peak_gib"] for r in result.values()), "targets": {"peak_gib": 2}}


def _command(folder: str, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "generate_data.py"), *overrides, f"paths.data={folder}"]


def _generate(folder: str, *overrides: str) -> None:
    subprocess.run(_command(folder, *overrides), check=True, cwd=ROOT, capture_output=True)


def _peak_gib(folder: str, *overrides: str) -> float:
    import psutil

    process = subprocess.Popen(
        _command(folder, *overrides), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    family, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        total = 0
        for member in _members(family):
            try:
                total += member.memory_full_info().pss
            except psutil.Error:  # it has just ended
                continue
        peak = max(peak, total)
        time.sleep(0.1)
    if process.returncode:
        assert process.stderr is not None
        raise RuntimeError(process.stderr.read().decode())
    return peak / 2**30


def _members(family: Any) -> list[Any]:
    import psutil

    try:
        return [family, *family.children(recursive=True)]
    except psutil.Error:
        return []


class _all_cores:
    """Within this block, child processes may use every core."""

    def __enter__(self) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, _CORES)

    def __exit__(self, *_: object) -> None:
        _pin()


def _pin() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(_CORES)})


# Growth --------------------------------------------------------------------------------------------------------------


def growth(repeats: int = 3) -> dict[str, Any]:
    """Seconds per sample by resolution, and seconds by number of samples, on one core."""
    problems: dict[str, dict[int, Any]] = {
        "ns2d, nu=1e-3, T=5": {
            n: NavierStokes2D(
                viscosity=1e-3, resolution=n, oversampling=1, n_snapshots=6, inner_batch=max(1, 65536 // n**2)
            )
            for n in (32, 64, 128, 256)
        },
        "darcy2d, 12/3": {n: Darcy2D(resolution=n, solver_resolution=n) for n in (43, 85, 169, 421, 841)},
        "burgers1d, nu=1e-2": {
            n: Burgers1D(resolution=n, solver_resolution=n) for n in (256, 512, 1024, 2048, 4096, 8192)
        },
    }
    by_resolution: dict[str, dict[str, float]] = {}
    for name, family in problems.items():
        by_resolution[name] = {}
        for n, problem in family.items():
            n_samples = 16 if name.startswith("burgers") or n < 200 else 2
            seconds = interleaved({"it": partial(problem.simulate, _rngs(n_samples))}, repeats if n < 200 else 1)
            by_resolution[name][str(n)] = seconds["it"] / n_samples
    by_samples = {
        name: {
            str(n): interleaved({"it": partial(problem.simulate, _rngs(n))}, repeats)["it"] for n in (1, 4, 16, 64, 256)
        }
        for name, problem in {
            "ns2d, nu=1e-3, T=5, 32 x 32": problems["ns2d, nu=1e-3, T=5"][32],
            "darcy2d, 12/3, 85 x 85": problems["darcy2d, 12/3"][85],
            "burgers1d, nu=1e-2, 1024": problems["burgers1d, nu=1e-2"][1024],
        }.items()
    }
    return {"seconds_per_sample_by_resolution": by_resolution, "seconds_by_samples": by_samples}


QUICK = (navier_stokes, burgers, darcy, steps, equations, finite_volumes, growth)
SECTIONS = {section.__name__: section for section in (*QUICK, workers, lite, lite_flows, memory)}


def main() -> None:
    wanted = sys.argv[1:] or [section.__name__ for section in QUICK]
    if unknown := set(wanted) - set(SECTIONS):
        raise SystemExit(f"Unknown section {', '.join(sorted(unknown))}. Known: {', '.join(SECTIONS)}.")
    _pin()
    torch.set_num_threads(1)
    keep_freed_memory()
    for name in wanted:
        started = time.perf_counter()
        result = SECTIONS[name]()
        save(f"data, {name}", result)
        print(f"{name} ({time.perf_counter() - started:.0f} s)\n{json.dumps(result, indent=2)}", flush=True)


if __name__ == "__main__":
    main()
