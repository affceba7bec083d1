"""Datasets on demand: generated once, in parallel, resumable, and found again by what they contain."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from data_gen import progress
from data_gen.files import make_folder, replacing, replacing_stream, write_errors
from data_gen.generation import certificate
from data_gen.generation.certificate import Certificate
from data_gen.generation.memory import keep_freed_memory
from data_gen.generation.pool import Job, available_cores, run_jobs
from data_gen.grids import Grid
from data_gen.regrid import regrid
from data_gen.spec import DatasetSpec, Problem
from data_gen.store import (
    DIAGNOSTICS,
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
_SCRATCH, _LOCK, _LEDGER, _PART = ".shards", ".lock", "generation.json", ".part-"
# Stands for a split's certificate where its shards are listed by number.
_CERTIFICATE = -1
# On a device: a rough bound on the memory of a sample in units of its stored trajectory, and on the size of a batch.
_COPIES_ON_DEVICE, _MOST_SHARDS_AT_ONCE = 40, 64
# Random streams. Every other test set (half or double resolution, longer, out of distribution) takes test's stream, so
# that its samples are paired with test's.
STREAMS = {"train": 0, "valid": 1, "test": 2}


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


def solve_shard(problem: Problem, seed: int, split: str, shard: int) -> tuple[Fields, float]:
    """What a file stores of the 16 samples of a shard, and the seconds of one core that solving them took."""
    keep_freed_memory()
    started = time.process_time()  # not the clock's: beside a training there may be fewer cores than processes
    rngs = [generator(seed, split, index) for index in range(shard * SHARD_SIZE, (shard + 1) * SHARD_SIZE)]
    fields = to_fields(problem.spec, problem.simulate(rngs))
    return fields, time.process_time() - started


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
    problem: Problem,
    splits: Mapping[str, int],
    seed: int,
    root: Path,
    *,
    workers: int | None = None,
    tolerance: float | None = None,
    device: str = "cpu",
) -> dict[str, Path]:
    """Paths of the files of the given splits, each with at least as many samples as asked for; what is missing is made.

    Shards of 16 consecutive samples are solved by worker processes of one thread each and kept until a split is whole:
    a run that was killed goes on with the shards that are missing. One process generates a dataset at a time; others
    wait for it. The error of every file is measured (``data_gen.generation.certificate``) and printed.

    Args:
        problem: what to solve.
        splits: number of samples by split.
        seed: the dataset's seed.
        root: folder of all datasets.
        workers: worker processes, default one per core that this process may use. The bytes don't depend on it.
        tolerance: largest measured error that is accepted; None accepts any.
        device: where solvers made of tensors work. Another device changes float32 values in their last digits.

    Raises:
        StoreError: a file that exists is damaged.
        CertificateError: the measured error is above the tolerance.
        GenerationError: a worker process died, or the memory doesn't suffice.
        WriteError: the disk is full, or the folder can't be written.
    """
    work = _Work(problem, dict(splits), seed, folder(problem, seed, root), tolerance, device)
    if work.is_done():
        if (work.base / _SCRATCH).exists():
            with suppress(OSError):  # another process is at work, or the folder can't be written: then it stays untidy
                lock = FileLock(work.base / _LOCK)
                lock.acquire(timeout=0)
                try:
                    if not _parts_at_work(work.base):  # what they are about to write must not be cleared away
                        _tidy(work.base, work.name, work.splits)
                finally:
                    lock.release()
        return work.paths
    with _locked(work.base):
        _wait_for_parts(work.base)
        _tidy(work.base, work.name, work.splits)
        _generate(work.missing(), workers)
    return work.paths


def solve_part(
    problem: Problem,
    splits: Mapping[str, int],
    seed: int,
    root: Path,
    *,
    part: int,
    n_parts: int,
    workers: int | None = None,
    tolerance: float | None = None,
    device: str = "cpu",
) -> None:
    """Solve one of ``n_parts`` equal shares of the shards that a dataset needs, and leave them where ``ensure`` finds
    them: several machines that share a file system make one dataset, with the bytes that one machine would have made.

    Args:
        part: 0 <= part < n_parts. Other arguments as for ``ensure``.

    Raises:
        ValueError: there is no such part. Otherwise as for ``ensure``.
    """
    if not 0 <= part < n_parts:
        raise ValueError(f"There is no part {part} of {n_parts}: parts count from 0. Change part or n_parts.")
    work = _Work(problem, dict(splits), seed, folder(problem, seed, root), tolerance, device)
    # While a part is at work its lock tells ``ensure`` to wait. It is taken under the dataset's own: whoever generates
    # the whole is done by then, and whoever comes later sees it.
    own = FileLock(work.base / f"{_PART}{part}-of-{n_parts}.lock")
    with _locked(work.base):
        if work.is_done():
            return
        own.acquire()
    try:
        make_folder(work.base / _SCRATCH)
        _solve(work.missing(), workers, range(part, sys.maxsize, n_parts))
    finally:
        own.release()


def ensure_regridded(origin: Path, spec: DatasetSpec, path: Path, n_samples: int) -> None:
    """Make a file that holds the first samples of another on a finer or coarser grid (``data_gen.regrid``): of a
    periodic field its own Fourier series, of one on a closed grid its values at every second node, or the like.

    Args:
        origin: a dataset's file, with at least ``n_samples``.
        spec: the origin's on another grid.
        path: the file to make, unless it is there: <dataset>/<split>/<name>.hdf5.
        n_samples: how many of the origin's samples.

    Raises:
        ValueError: the origin's fields can't be brought to that grid.
        StoreError: a file is damaged, or the origin is too short.
    """
    split, source = path.parent.name, origin.parent.name
    if stream(split) != stream(source):
        raise ValueError(f"{split} can't be made from {source}: only test sets are made from one another.")
    with DatasetFile(origin) as file:
        seed = file.seed
    if path.is_file():
        with DatasetFile(path) as file:
            if file.spec != spec and replace(file.spec, grid=spec.grid) == spec:
                raise StoreError(
                    f"{path} holds the samples on a grid of {_size(file.spec.grid)} points, not {_size(spec.grid)}. "
                    "Delete it to have it made again, or give the split with another refine another name."
                )
    if _file_holds(path, spec, seed, n_samples):
        return
    with _locked(path.parent.parent):
        if _file_holds(path, spec, seed, n_samples):
            return
        with DatasetFile(origin) as file:
            if file.n_samples < n_samples:
                raise StoreError(
                    f"{origin} holds {file.n_samples} samples, fewer than {n_samples}. Make it longer first."
                )
            file.sha256()
            known = {**file.certificate, "regridded_from": f"{source}, {_size(file.spec.grid)}"}
            made = (_regridded(file, shard, spec.grid) for shard in range(-(-n_samples // SHARD_SIZE)))
            write(path, spec, made, n_samples, split=split, seed=seed, provenance=_provenance("cpu"), certificate=known)


def _size(grid: Grid) -> str:
    return "x".join(map(str, grid.shape))


def refined(grid: Grid, refine: float) -> Grid:
    """The grid with ``refine`` times as many points per length, e.g. 2 or 0.5.

    Raises:
        ValueError: that isn't a whole number of points.
    """
    try:
        return grid.coarsen(1 / Fraction(refine).limit_denominator(64))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"refine={refine:g} of a test split: {error}") from error


def _regridded(file: DatasetFile, shard: int, grid: Grid) -> Fields:
    constant = file.read_shard(shard)
    return {
        name: values if values.ndim == 1 else regrid(values, file.spec.grid, grid).astype(np.float32)
        for name, values in constant.items()
    }


@dataclass(frozen=True)
class _Work:
    """What is asked for of one dataset."""

    problem: Problem
    splits: dict[str, int]
    seed: int
    base: Path
    tolerance: float | None
    device: str

    @property
    def name(self) -> str:
        return self.problem.spec.name

    @property
    def paths(self) -> dict[str, Path]:
        return {split: self.base / split / f"{self.name}.hdf5" for split in self.splits}

    def is_done(self) -> bool:
        return not self.missing().splits

    def missing(self) -> _Work:
        """The part whose files aren't there, or too short."""
        spec = self.problem.spec
        lacking = {
            split: n
            for split, n in self.splits.items()
            if not _file_holds(self.paths[split], spec, self.seed, n, self.tolerance)
        }
        return replace(self, splits=lacking)


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    """One process at a time makes a dataset; says so if it has to wait."""
    make_folder(base)
    lock = FileLock(base / _LOCK)
    with write_errors(base / _LOCK):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that generates {base} ...", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _parts_at_work(base: Path) -> bool:
    """Whether some process solves a part of the dataset. Needs the lock."""
    for path in base.glob(f"{_PART}*.lock"):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
    return False


def _wait_for_parts(base: Path) -> None:
    """Until no process solves a part of the dataset any more. Needs the lock, so that none can begin."""
    for path in sorted(base.glob(f"{_PART}*.lock")):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that solves a part of {base} ...", file=sys.stderr, flush=True)
            lock.acquire()
        path.unlink(missing_ok=True)
        lock.release()


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


def _file_holds(path: Path, spec: DatasetSpec, seed: int, n_samples: int, tolerance: float | None = None) -> bool:
    if n_samples < 1:
        raise ValueError(f"Split {path.parent.name!r} needs at least 1 sample, got {n_samples}. Change splits.")
    if not path.is_file():
        return False
    with DatasetFile(path) as file:
        if file.spec != spec or file.seed != seed:
            raise StoreError(
                f"{path} holds another dataset than its folder's name says. Delete the folder {path.parent.parent}; "
                "the same command generates it again."
            )
        certificate.require(file.certificate.get("error", np.inf), tolerance, str(path))
        return file.n_samples >= n_samples


def _generate(work: _Work, workers: int | None) -> None:
    """Make all files of the work, none of which is there whole. Needs the lock."""
    make_folder(work.base / _SCRATCH)
    errors = _solve(work, workers)
    for split, n in work.splits.items():
        path, n_kept = work.paths[split], _whole_shards(work.paths[split])
        shards = [_shard_path(work, split, shard) for shard in range(n_kept, -(-n // SHARD_SIZE))]
        diagnostics = _diagnostics_of(work.problem.spec, path, n_kept, shards, n)
        found = certificate.certify(errors[split], diagnostics)
        write(
            path,
            work.problem.spec,
            _fields_of(path, n_kept, shards),
            n,
            split=split,
            seed=work.seed,
            provenance=_provenance(work.device),
            certificate=found.to_dict(),
        )
        _tidy(work.base, work.name, work.splits)
        print(f"{path}: {n} samples\n{_indented(found.describe(work.problem.spec))}", file=sys.stderr, flush=True)


def _solve(work: _Work, workers: int | None, share: range | None = None) -> dict[str, list[list[float]]]:
    """Solve the shards that are missing, and measure errors; those by split, if they are in the share.

    Args:
        share: which of the work to do, counted over all of it in a fixed order; None does everything.
    """
    wanted = [
        (split, shard)
        for split, n in work.splits.items()
        for shard in (_CERTIFICATE, *range(_whole_shards(work.paths[split]), -(-n // SHARD_SIZE)))
    ]
    if share is not None:
        wanted = [entry for number, entry in enumerate(wanted) if number in share]
    errors = {split: _known_errors(work, split) for split, shard in wanted if shard == _CERTIFICATE}
    for split, known in errors.items():
        _require(work, split, known)
    shards = [(split, shard) for split, shard in wanted if shard != _CERTIFICATE]
    todo = [
        (split, shard)
        for split, shard in shards
        if not _shard_is_whole(_shard_path(work, split, shard), work.problem.spec)
    ]
    # The certificate comes first: data that are too inaccurate shall be found out before they are all solved.
    jobs: list[Job] = [(_measure, (work, split)) for split, known in errors.items() if not known]
    if work.device == "cpu":
        jobs += [
            (_solve_shard, (work.problem, work.seed, split, shard, _shard_path(work, split, shard)))
            for split, shard in todo
        ]
    else:  # one process drives the device, with as many samples at once as fit
        jobs += [(_solve_shards, (work, split, group)) for split, group in _groups(work, todo)]
        workers = 1
    done = SHARD_SIZE * (len(shards) - len(todo))
    with progress.track(f"Generating {work.name}", len(shards) * SHARD_SIZE, "samples", done) as bar:
        for result in run_jobs(jobs, min(workers or available_cores(), max(1, len(jobs)))):
            if isinstance(result, tuple):
                split, errors[split] = result
                _require(work, split, errors[split])
            else:
                bar.advance(SHARD_SIZE * (result or 1))
    return errors


def _require(work: _Work, split: str, errors: list[list[float]]) -> None:
    if errors:
        certificate.require(float(np.max(errors)), work.tolerance, f"{work.base.name}, {split}")


def _known_errors(work: _Work, split: str) -> list[list[float]]:
    """Errors that have been measured before, [sample][time]; empty if none have."""
    with suppress(OSError, ValueError):
        measured = json.loads(_errors_path(work, split).read_text())
        if np.shape(measured) == (certificate.N_CHECKED, work.problem.spec.n_snapshots):
            return measured
    if work.paths[split].is_file():
        with DatasetFile(work.paths[split]) as file, suppress(KeyError, TypeError):
            return [list(times) for times in Certificate.from_dict(file.certificate).errors]
    return []


def _measure(work: _Work, split: str) -> tuple[str, list[list[float]]]:
    keep_freed_memory()
    first, again = ([generator(work.seed, split, index) for index in range(certificate.N_CHECKED)] for _ in range(2))
    with _on(work.device):
        errors = certificate.measure(work.problem, first, again)
    with replacing(_errors_path(work, split)) as temporary:
        temporary.write_text(json.dumps(errors))
    return split, errors


def _on(device: str) -> AbstractContextManager[Any]:
    """Tensors are made on the device. The mode costs a call of Python per operation, so the CPU does without."""
    return nullcontext() if device == "cpu" else torch.device(device)


def _errors_path(work: _Work, split: str) -> Path:
    return work.base / _SCRATCH / f"{split}-errors.json"


def _shard_path(work: _Work, split: str, shard: int) -> Path:
    return work.base / _SCRATCH / f"{split}-{shard:05d}.npz"


def _diagnostics_of(
    spec: DatasetSpec, path: Path, n_kept: int, shards: Sequence[Path], n_samples: int
) -> dict[str, np.ndarray]:
    """Diagnostics of the first ``n_samples``, [sample] each: of the shards that a file keeps, then of others.

    The fields, which are large, aren't read.
    """
    parts: dict[str, list[np.ndarray]] = {entry.name: [] for entry in spec.diagnostics}
    if n_kept:
        with DatasetFile(path) as file:
            for name, values in file.read_diagnostics().items():
                parts[name].append(values[: n_kept * SHARD_SIZE])
    for shard in shards:
        with open(shard, "rb") as handle, np.load(handle) as archive:
            for name, values in parts.items():
                values.append(archive[DIAGNOSTICS + name])
    return {name: np.concatenate(values)[:n_samples] for name, values in parts.items()}


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


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
    for path in (base / _SCRATCH).glob("*-errors.json"):
        if n_stored(base / path.name.removesuffix("-errors.json") / f"{name}.hdf5"):
            path.unlink()  # the file has them
    if not any((base / _SCRATCH).iterdir()):
        (base / _SCRATCH).rmdir()


def _solve_shard(problem: Problem, seed: int, split: str, shard: int, path: Path) -> None:
    _write_shard(path, *solve_shard(problem, seed, split, shard))


def _solve_shards(work: _Work, split: str, shards: Sequence[int]) -> int:
    """Several shards at once, on a device that is idle with one; how many they were."""
    started = time.perf_counter()
    indices = [shard * SHARD_SIZE + i for shard in shards for i in range(SHARD_SIZE)]
    with _on(work.device):
        samples = work.problem.simulate([generator(work.seed, split, index) for index in indices])
    fields = to_fields(work.problem.spec, samples)
    seconds = (time.perf_counter() - started) / len(shards)
    for number, shard in enumerate(shards):
        part = slice(number * SHARD_SIZE, (number + 1) * SHARD_SIZE)
        _write_shard(_shard_path(work, split, shard), {name: values[part] for name, values in fields.items()}, seconds)
    return len(shards)


def _groups(work: _Work, todo: Sequence[tuple[str, int]]) -> Iterator[tuple[str, list[int]]]:
    """Shards of one split that are solved together on a device, as many as its memory takes."""
    n_bytes = 8 * work.problem.spec.grid.n_points * work.problem.spec.n_snapshots * _COPIES_ON_DEVICE * SHARD_SIZE
    free = torch.cuda.mem_get_info(work.device)[0] if work.device.startswith("cuda") else 0
    size = max(1, min(_MOST_SHARDS_AT_ONCE, free // n_bytes))
    for split in work.splits:
        shards = [shard for other, shard in todo if other == split]
        for first in range(0, len(shards), size):
            yield split, shards[first : first + size]


def _write_shard(path: Path, fields: Fields, seconds: float) -> None:
    extra: dict[str, Any] = {"seconds": seconds, "sha256": hash_fields(fields)}
    with replacing_stream(path) as stream:
        np.savez(stream, **fields, **extra)


def _shard_is_whole(path: Path, spec: DatasetSpec) -> bool:
    """True if a shard can be read back as it was written, and is one of this dataset."""
    if not path.is_file():
        return False
    try:
        require_fields(spec, _read_shard(path))
    except Exception:  # NumPy evaluates text of the file's header, so damage there can raise anything
        return False
    return True


def _read_shard(path: Path) -> Fields:
    with open(path, "rb") as handle, np.load(handle) as archive:
        fields = {name: archive[name] for name in archive.files if name != "seconds"}
    expected = str(fields.pop("sha256"))
    if hash_fields(fields) != expected:
        raise ValueError(f"{path} is damaged.")
    return fields


def _read_seconds(path: Path) -> float:
    """What a shard took to solve; its fields, which are large, aren't read."""
    with open(path, "rb") as handle, np.load(handle) as archive:
        return float(archive["seconds"])


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
        yield _read_shard(shard)


def _note_seconds(ledger: Path, split: str, n_samples: int, shards: Mapping[int, Path]) -> bool:
    """Note what the samples of a file have cost, told by the shards it was made of; False if they don't tell."""
    entries = _ledger(ledger)
    before = entries.get(split, {"n_samples": 0, "core_seconds": 0.0})
    n_kept = int(before["n_samples"]) // SHARD_SIZE
    new = range(n_kept, -(-n_samples // SHARD_SIZE))
    if n_samples <= before["n_samples"] or not set(new) <= set(shards):
        return False
    try:
        seconds = sum(_read_seconds(shards[index]) for index in new)
    except Exception:  # damaged since, and no longer needed
        return False
    entries[split] = {"n_samples": n_samples, "core_seconds": seconds + (before["core_seconds"] if n_kept else 0.0)}
    with replacing(ledger) as temporary:
        temporary.write_text(json.dumps(entries, indent=2))
    return True


def _provenance(device: str) -> dict[str, str]:
    return {
        "device": device,
        "generator": f"neuralop-bench {importlib.metadata.version('neuralop-bench')}",
        "libraries": f"torch {torch.__version__}, numpy {np.__version__}",
    }
