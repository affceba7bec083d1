"""Datasets on demand: generated once, in parallel, resumable, and found again by what they contain."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from data_gen import progress
from data_gen.files import make_folder, replacing, replacing_stream, write_errors
from data_gen.spec import DatasetSpec, Problem
from data_gen.store import (
    FORMAT_VERSION,
    SHARD_SIZE,
    DatasetFile,
    Fields,
    StoreError,
    hash_fields,
    require_fields,
    to_fields,
    write,
)

# What lies in a dataset's folder besides its files: shards until a split is whole, the lock, and seconds of solving.
_SCRATCH, _LOCK, _LEDGER = ".shards", ".lock", "generation.json"
# Random streams. Every other test set (half or double resolution, longer, out of distribution) takes test's stream, so
# that its samples are paired with test's.
STREAMS = {"train": 0, "valid": 1, "test": 2}


class GenerationError(RuntimeError):
    """A dataset could not be generated; the message says why and how to go on."""


def stream(split: str) -> int:
    """Number of the random stream that a split draws from.

    Raises:
        ValueError: a split that is neither train, valid, test nor test_<something>.
    """
    if split.startswith("test_"):
        return STREAMS["test"]
    if split not in STREAMS:
        raise ValueError(f"Unknown split {split!r}: use train, valid, test or test_<name>.")
    return STREAMS[split]


def generator(seed: int, split: str, index: int) -> np.random.Generator:
    """The random generator of one sample: a function of dataset seed, split and index, and of nothing else."""
    sequence = np.random.SeedSequence(seed, spawn_key=(stream(split), index))
    return np.random.Generator(np.random.Philox(sequence))


def address(problem: Problem, seed: int) -> str:
    """Eight hexadecimal digits that name the dataset: a hash of every parameter of the problem, its version, its spec
    (grid, times), the seed, the shard size and the format version. Splits and their sizes are not part of it."""
    content = {
        "problem": f"{type(problem).__module__}.{type(problem).__qualname__}",
        "version": problem.version,
        "parameters": asdict(problem),  # pyright: ignore[reportArgumentType]  (problems are dataclasses)
        "spec": problem.spec.to_json(),
        "seed": seed,
        "shard_size": SHARD_SIZE,
        "format_version": FORMAT_VERSION,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def folder(problem: Problem, seed: int, root: Path) -> Path:
    """Where the dataset lies below ``root``."""
    return Path(root) / f"{problem.spec.name}-{address(problem, seed)}"


def ensure(
    problem: Problem, splits: Mapping[str, int], seed: int, root: Path, *, workers: int | None = None
) -> dict[str, Path]:
    """Paths of the files of the given splits, each with at least as many samples as asked for; what is missing is made.

    Shards of 16 consecutive samples are solved by worker processes of one thread each and kept until a split is whole:
    a run that was killed goes on with the shards that are missing. One process generates a dataset at a time; others
    wait for it.

    Args:
        problem: what to solve.
        splits: number of samples by split.
        seed: the dataset's seed.
        root: folder of all datasets.
        workers: worker processes, default one per core. The bytes don't depend on it.

    Raises:
        StoreError: a file that exists is damaged.
        GenerationError: a worker process died, or the memory doesn't suffice.
        WriteError: the disk is full, or the folder can't be written.
    """
    base = folder(problem, seed, root)
    paths = {split: base / split / f"{problem.spec.name}.hdf5" for split in splits}
    lock = FileLock(base / _LOCK)
    if all(_holds(paths[split], problem, seed, n) for split, n in splits.items()):
        if (base / _SCRATCH).exists():
            with suppress(OSError):  # another process is at work, or the folder can't be written: then it stays untidy
                lock.acquire(timeout=0)
                try:
                    _tidy(base, problem.spec.name, splits)
                finally:
                    lock.release()
        return paths
    make_folder(base)
    with write_errors(base / _LOCK):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that generates {base} ...", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        _tidy(base, problem.spec.name, splits)
        missing = {split: n for split, n in splits.items() if not _holds(paths[split], problem, seed, n)}
        _generate(problem, missing, seed, base, paths, workers)
    finally:
        lock.release()
    return paths


def generation_seconds(path: Path) -> float | None:
    """Single-core seconds that solving the samples of a file took; None if unknown."""
    entry = _ledger(path.parent.parent / _LEDGER).get(path.parent.name)
    return None if entry is None else entry["core_seconds"]


def kept_bytes(base: Path) -> int:
    """Bytes of the shards that an interrupted generation has left for the next."""
    with suppress(OSError):
        return sum(entry.stat().st_size for entry in os.scandir(base / _SCRATCH) if entry.name.endswith(".npz"))
    return 0


def n_stored(path: Path) -> int:
    """Samples in a dataset file; 0 if there is none or it can't be read."""
    try:
        with DatasetFile(path) as file:
            return file.n_samples
    except StoreError:
        return 0


def seconds_per_sample(base: Path) -> float | None:
    """Single-core seconds that solving one sample of a dataset took so far; None if none has been solved."""
    entries = _ledger(base / _LEDGER)
    n_samples = sum(entry["n_samples"] for entry in entries.values())
    return sum(entry["core_seconds"] for entry in entries.values()) / n_samples if n_samples else None


def _ledger(path: Path) -> dict[str, dict[str, float]]:
    """Samples and seconds by split. It is a note for people: one that can't be read counts as none."""
    try:
        entries = json.loads(path.read_text())
        return {
            split: {"n_samples": int(entry["n_samples"]), "core_seconds": float(entry["core_seconds"])}
            for split, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _holds(path: Path, problem: Problem, seed: int, n_samples: int) -> bool:
    if n_samples < 1:
        raise ValueError(f"Split {path.parent.name!r} needs at least 1 sample, got {n_samples}. Change splits.")
    if not path.is_file():
        return False
    with DatasetFile(path) as file:
        if file.spec != problem.spec or file.seed != seed:
            raise StoreError(
                f"{path} holds another dataset than its folder's name says. Delete the folder {path.parent.parent}; "
                "the same command generates it again."
            )
        return file.n_samples >= n_samples


def _generate(
    problem: Problem, splits: Mapping[str, int], seed: int, base: Path, paths: Mapping[str, Path], workers: int | None
) -> None:
    make_folder(base / _SCRATCH)
    wanted: dict[tuple[str, int], Path] = {}
    kept: dict[str, int] = {}
    for split, n in splits.items():
        kept[split] = _whole_shards(paths[split])
        for shard in range(kept[split], -(-n // SHARD_SIZE)):
            wanted[split, shard] = base / _SCRATCH / f"{split}-{shard:05d}.npz"
    todo = {key: path for key, path in wanted.items() if not _shard_is_whole(path, problem.spec)}
    done = len(wanted) - len(todo)
    with progress.track(
        f"Generating {problem.spec.name}", len(wanted) * SHARD_SIZE, "samples", done * SHARD_SIZE
    ) as bar:
        jobs = [(problem, seed, split, shard, path) for (split, shard), path in todo.items()]
        for _ in _solve_shards(jobs, min(workers or os.cpu_count() or 1, max(1, len(jobs)))):
            bar.advance(SHARD_SIZE)
    for split, n in splits.items():
        shards = [wanted[split, shard] for shard in range(kept[split], -(-n // SHARD_SIZE))]
        fields = _fields_of(paths[split], kept[split], shards)
        write(paths[split], problem.spec, fields, n, split=split, seed=seed, provenance=_provenance())
        _tidy(base, problem.spec.name, splits)


def _tidy(base: Path, name: str, splits: Mapping[str, int]) -> None:
    """Clear what is of no use any more: files half written by a process that was killed, and shards whose samples are
    in a dataset file, once their solving times have been noted. Needs the lock.

    Args:
        base: folder of the dataset.
        name: of the dataset.
        splits: numbers of samples that are asked for.
    """
    for leftover in base.rglob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    if not (base / _SCRATCH).is_dir():
        return
    shards: dict[str, dict[int, Path]] = {}
    for shard in (base / _SCRATCH).glob("*-[0-9][0-9][0-9][0-9][0-9].npz"):
        split, _, index = shard.stem.rpartition("-")
        shards.setdefault(split, {})[int(index)] = shard
    for split, found in shards.items():
        n_samples = n_stored(base / split / f"{name}.hdf5")
        noted = _note_seconds(base / _LEDGER, split, n_samples, found)
        n_used = n_samples // SHARD_SIZE
        if noted or splits.get(split, 0) <= n_samples:
            n_used = -(-n_samples // SHARD_SIZE)  # with the shard of which the file holds a part: a longer one needs it
        for index, shard in found.items():
            if index < n_used:
                shard.unlink()
    if not any((base / _SCRATCH).iterdir()):
        (base / _SCRATCH).rmdir()


def _solve_shards(jobs: Sequence[tuple[Problem, int, str, int, Path]], workers: int) -> Iterator[None]:
    try:
        yield from _solve_in_turn(jobs) if workers == 1 else _solve_in_pool(jobs, workers)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # as torch says it
            raise
        raise GenerationError(
            "There isn't enough memory to generate the data. Run the same command again to go on with the shards that "
            "are missing, with fewer workers (workers=1), a lower dataset.problem.resolution, or more memory."
        ) from error


def _solve_in_turn(jobs: Sequence[tuple[Problem, int, str, int, Path]]) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for job in jobs:
            yield _solve_shard(*job)
    finally:
        torch.set_num_threads(threads)


def _solve_in_pool(jobs: Sequence[tuple[Problem, int, str, int, Path]], workers: int) -> Iterator[None]:
    # Spawned, not forked: a forked copy of a process whose thread pools have started can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    others = multiprocessing.active_children()
    try:
        with _signals_held():
            futures = [pool.submit(_solve_shard, *job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise GenerationError(
            "A worker process died, perhaps for lack of memory. Run the same command again to go on with the "
            "shards that are missing, with fewer workers (workers=1) if it happens again."
        ) from error
    except BaseException:
        # Stopped, or a shard failed: nobody waits for those in work, which may take minutes.
        for worker in multiprocessing.active_children():
            if worker not in others:
                worker.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Processes started in the block begin with SIGINT and SIGTERM held back; this one answers them after it.

    Ctrl-C reaches the whole group of processes: a worker that is still at its imports would show a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # to start it lets signals through again, so not in the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    # A worker must not outlive a parent that was killed: it would go on solving for nobody.
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _solve_shard(problem: Problem, seed: int, split: str, shard: int, path: Path) -> None:
    started = time.perf_counter()
    rngs = [generator(seed, split, index) for index in range(shard * SHARD_SIZE, (shard + 1) * SHARD_SIZE)]
    fields = to_fields(problem.spec, problem.simulate(rngs))
    extra: dict[str, Any] = {"seconds": time.perf_counter() - started, "sha256": hash_fields(fields)}
    with replacing_stream(path) as stream:
        np.savez(stream, **fields, **extra)


def _shard_is_whole(path: Path, spec: DatasetSpec) -> bool:
    """True if a shard can be read back as it was written, and is one of this dataset."""
    if not path.is_file():
        return False
    try:
        require_fields(spec, _read_shard(path)[0])
    except Exception:  # NumPy evaluates text of the file's header, so damage there can raise anything
        return False
    return True


def _read_shard(path: Path) -> tuple[Fields, float]:
    with open(path, "rb") as handle, np.load(handle) as archive:
        fields = {name: archive[name] for name in archive.files}
    expected, seconds = str(fields.pop("sha256")), float(fields.pop("seconds"))
    if hash_fields(fields) != expected:
        raise ValueError(f"{path} is damaged.")
    return fields, seconds


def _whole_shards(path: Path) -> int:
    """Shards of an existing, shorter file that needn't be solved again."""
    if not path.is_file():
        return 0
    with DatasetFile(path) as file:
        file.sha256()
        return file.n_samples // SHARD_SIZE


def _fields_of(path: Path, n_kept: int, shards: list[Path]) -> Iterator[Fields]:
    if n_kept:
        with DatasetFile(path) as file:
            for shard in range(n_kept):
                yield file.read_shard(shard)
    for shard in shards:
        yield _read_shard(shard)[0]


def _note_seconds(ledger: Path, split: str, n_samples: int, shards: Mapping[int, Path]) -> bool:
    """Note what the samples of a file have cost, told by the shards it was made of; False if they don't tell."""
    entries = _ledger(ledger)
    before = entries.get(split, {"n_samples": 0, "core_seconds": 0.0})
    n_kept = int(before["n_samples"]) // SHARD_SIZE
    new = range(n_kept, -(-n_samples // SHARD_SIZE))
    if n_samples <= before["n_samples"] or not set(new) <= set(shards):
        return False
    try:
        seconds = sum(_read_shard(shards[index])[1] for index in new)
    except Exception:  # damaged since, and no longer needed
        return False
    entries[split] = {"n_samples": n_samples, "core_seconds": seconds + (before["core_seconds"] if n_kept else 0.0)}
    with replacing(ledger) as temporary:
        temporary.write_text(json.dumps(entries, indent=2))
    return True


def _provenance() -> dict[str, str]:
    return {
        "generator": f"neuralop-bench {importlib.metadata.version('neuralop-bench')}",
        "libraries": f"torch {torch.__version__}, numpy {np.__version__}",
    }
