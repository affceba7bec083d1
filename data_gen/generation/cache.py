"""Datasets on demand: generated once, in parallel, resumable, and found again by a hash of their parameters."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_gen import progress
from data_gen.files import make_folder, replacing
from data_gen.generation import certificate, ledger, locks, shards
from data_gen.generation.certificate import Certificate
from data_gen.generation.memory import keep_freed_memory
from data_gen.generation.pool import Job, available_cores, run_jobs
from data_gen.generation.random_streams import generator
from data_gen.layout import FORMAT_VERSION, SHARD_SIZE
from data_gen.spec import DatasetSpec, Problem
from data_gen.store import DatasetFile, StoreError, to_fields, write

# Folder, inside a dataset's, of the shards and measured errors of incomplete splits.
_SCRATCH = ".shards"
# Stands for a split's certificate in a list of shard numbers.
_CERTIFICATE = -1
# On a device: a rough bound on the memory of a sample in units of its stored trajectory, and on the size of a batch.
_COPIES_ON_DEVICE, _MOST_SHARDS_AT_ONCE = 40, 64


def address(problem: Problem, seed: int) -> str:
    """Eight hexadecimal digits that name the dataset.

    They are a hash of every parameter of the problem, its version, its spec (grid, times), the seed, the shard size and
    the format version. Splits and their sizes are not part of it.
    """
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
    """The folder of the dataset below ``root``."""
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
    """Paths of the files of the given splits, each with at least as many samples as asked for.

    Missing samples are generated. Worker processes of one thread each solve shards of 16 consecutive samples. Shards
    are kept until their split is complete, so after a run was killed the next one solves only the missing shards. One
    process generates a dataset at a time; others wait for it. The error of every file is measured
    (``data_gen.generation.certificate``) and printed.

    Args:
        problem: what to solve.
        splits: number of samples by split.
        seed: the dataset's seed.
        root: folder of all datasets.
        workers: worker processes, by default one per core that this process may use. The bytes don't depend on it.
        tolerance: largest measured error that is accepted; None accepts any.
        device: where solvers that use torch run. Another device changes float32 values in their last digits.

    Raises:
        StoreError: an existing file is damaged.
        CertificateError: the measured error is above the tolerance.
        GenerationError: a worker process died, or there isn't enough memory.
        WriteError: the disk is full, or the folder can't be written.
    """
    work = _Request(problem, dict(splits), seed, folder(problem, seed, root), tolerance, device)
    if work.is_done():
        if (work.base / _SCRATCH).exists():
            # An OSError means that another process is at work, or that the folder can't be written: tidy another time.
            with suppress(OSError), locks.whole(work.base).acquire(timeout=0):
                if not locks.parts_at_work(work.base):  # their half-written files must not be deleted
                    _tidy(work.base, work.name, work.splits)
        return work.paths
    with locks.locked(work.base):
        locks.wait_for_parts(work.base)
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
    """Solve one of ``n_parts`` equal parts of the shards that a dataset needs, for ``ensure`` to put together.

    Several machines that share a file system can make one dataset in this way. Its bytes are those that one machine
    would have made.

    Args:
        part: 0 <= part < n_parts. The other arguments are those of ``ensure``.

    Raises:
        ValueError: there is no such part. Other errors are those of ``ensure``.
    """
    if not 0 <= part < n_parts:
        raise ValueError(f"There is no part {part} of {n_parts}: parts count from 0. Change part or n_parts.")
    work = _Request(problem, dict(splits), seed, folder(problem, seed, root), tolerance, device)
    # The part's lock tells ``ensure`` to wait. It is taken while the dataset's lock is held: a process that generated
    # the whole dataset has finished by then, and one that starts later sees the part's lock.
    own = locks.part(work.base, part, n_parts)
    with locks.locked(work.base):
        if work.is_done():
            return
        own.acquire()
    try:
        make_folder(work.base / _SCRATCH)
        _solve(work.missing(), workers, range(part, sys.maxsize, n_parts))
    finally:
        own.release()


@dataclass(frozen=True)
class _Request:
    """A request for some splits of one dataset."""

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

    def missing(self) -> _Request:
        """The splits whose files don't exist or are too short."""
        spec = self.problem.spec
        lacking = {
            split: n
            for split, n in self.splits.items()
            if not file_holds(self.paths[split], spec, self.seed, n, self.tolerance)
        }
        return replace(self, splits=lacking)


def kept_bytes(base: Path) -> int:
    """Bytes of the shards that an interrupted generation left for the next one."""
    with suppress(OSError):
        return sum(entry.stat().st_size for entry in os.scandir(base / _SCRATCH) if entry.name.endswith(".npz"))
    return 0


def n_stored(path: Path) -> int:
    """Samples in a dataset file; 0 if it doesn't exist or can't be read."""
    try:
        with DatasetFile(path) as file:
            return file.n_samples
    except StoreError:
        return 0


def file_holds(path: Path, spec: DatasetSpec, seed: int, n_samples: int, tolerance: float | None = None) -> bool:
    """Whether a dataset file exists and has at least ``n_samples``.

    Raises:
        ValueError: ``n_samples`` is below 1.
        StoreError: the file is damaged or holds another dataset.
        CertificateError: its measured error is above the tolerance.
    """
    if n_samples < 1:
        raise ValueError(f"Split {path.parent.name!r} needs at least 1 sample, got {n_samples}. Change splits.")
    if not path.is_file():
        return False
    with DatasetFile(path) as file:
        if file.spec != spec or file.seed != seed:
            raise StoreError(
                f"{path} holds another dataset, not the one that its folder is named after. Delete the folder "
                f"{path.parent.parent}; the same command generates it again."
            )
        certificate.require(file.certificate.get("error", np.inf), tolerance, str(path))
        return file.n_samples >= n_samples


def _generate(work: _Request, workers: int | None) -> None:
    """Make the files of all splits of the work. Needs the lock."""
    make_folder(work.base / _SCRATCH)
    errors = _solve(work, workers)
    for split, n in work.splits.items():
        path, n_kept = work.paths[split], shards.n_reusable(work.paths[split])
        solved = [_shard_path(work, split, shard) for shard in range(n_kept, -(-n // SHARD_SIZE))]
        diagnostics = shards.read_diagnostics(work.problem.spec, path, n_kept, solved, n)
        found = certificate.certify(errors[split], diagnostics)
        write(
            path,
            work.problem.spec,
            shards.read_all(path, n_kept, solved),
            n,
            split=split,
            seed=work.seed,
            provenance=provenance(work.device),
            certificate=found.to_dict(),
        )
        _tidy(work.base, work.name, work.splits)
        print(f"{path}: {n} samples\n{_indented(found.describe(work.problem.spec))}", file=sys.stderr, flush=True)


def _solve(work: _Request, workers: int | None, share: range | None = None) -> dict[str, list[list[float]]]:
    """Solve the missing shards and measure the missing certificates.

    Args:
        share: which of these jobs to do, by their number in a fixed order; None does all of them.

    Returns:
        Measured errors [sample][time] by split, for the splits whose certificate is in the share.
    """
    wanted = [
        (split, shard)
        for split, n in work.splits.items()
        for shard in (_CERTIFICATE, *range(shards.n_reusable(work.paths[split]), -(-n // SHARD_SIZE)))
    ]
    if share is not None:
        wanted = [entry for number, entry in enumerate(wanted) if number in share]
    errors = {split: _known_errors(work, split) for split, shard in wanted if shard == _CERTIFICATE}
    for split, known in errors.items():
        _require(work, split, known)
    wanted = [(split, shard) for split, shard in wanted if shard != _CERTIFICATE]
    todo = [
        (split, shard)
        for split, shard in wanted
        if not shards.is_intact(_shard_path(work, split, shard), work.problem.spec)
    ]
    # Certificates come first, so that data that are too inaccurate are refused before they are solved.
    jobs: list[Job] = [(_measure, (work, split)) for split, known in errors.items() if not known]
    if work.device == "cpu":
        jobs += [
            (_solve_shard, (work.problem, work.seed, split, shard, _shard_path(work, split, shard)))
            for split, shard in todo
        ]
    else:  # one process uses the device, with as many samples at once as fit
        jobs += [(_solve_shards, (work, split, group)) for split, group in _groups(work, todo)]
        workers = 1
    done = SHARD_SIZE * (len(wanted) - len(todo))
    with progress.track(f"Generating {work.name}", len(wanted) * SHARD_SIZE, "samples", done) as bar:
        for result in run_jobs(jobs, min(workers or available_cores(), max(1, len(jobs)))):
            if isinstance(result, tuple):
                split, errors[split] = result
                _require(work, split, errors[split])
            else:
                bar.advance(SHARD_SIZE * (result or 1))
    return errors


def _require(work: _Request, split: str, errors: list[list[float]]) -> None:
    if errors:
        certificate.require(float(np.max(errors)), work.tolerance, f"{work.base.name}, {split}")


def _known_errors(work: _Request, split: str) -> list[list[float]]:
    """Errors that were measured before, [sample][time]; empty if there are none."""
    with suppress(OSError, ValueError):
        measured = json.loads(_errors_path(work, split).read_text())
        if np.shape(measured) == (certificate.N_CHECKED, work.problem.spec.n_snapshots):
            return measured
    if work.paths[split].is_file():
        with DatasetFile(work.paths[split]) as file, suppress(KeyError, TypeError):
            return [list(times) for times in Certificate.from_dict(file.certificate).errors]
    return []


def _measure(work: _Request, split: str) -> tuple[str, list[list[float]]]:
    keep_freed_memory()
    indices = range(certificate.N_CHECKED)
    first, again = ([generator(work.seed, split, index) for index in indices] for _ in range(2))
    with _on(work.device), shards.naming(work.problem.spec.name, split, indices):
        errors = certificate.measure(work.problem, first, again)
    with replacing(_errors_path(work, split)) as temporary:
        temporary.write_text(json.dumps(errors))
    return split, errors


def _on(device: str) -> AbstractContextManager[Any]:
    """Create tensors on the device. The mode costs a Python call per operation, so it isn't entered for the CPU."""
    return nullcontext() if device == "cpu" else torch.device(device)


def _errors_path(work: _Request, split: str) -> Path:
    return work.base / _SCRATCH / f"{split}-errors.json"


def _shard_path(work: _Request, split: str, shard: int) -> Path:
    return work.base / _SCRATCH / f"{split}-{shard:05d}.npz"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _tidy(base: Path, name: str, splits: Mapping[str, int]) -> None:
    """Delete files that are no longer needed. Needs the lock.

    These are files half written by a process that was killed, and shards whose samples are in a dataset file, once the
    ledger has their seconds.

    Args:
        base: folder of the dataset.
        name: of the dataset.
        splits: requested number of samples by split.
    """
    for leftover in base.rglob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    if not (base / _SCRATCH).is_dir():
        return
    solved: dict[str, dict[int, Path]] = {}
    for path in (base / _SCRATCH).glob("*-[0-9][0-9][0-9][0-9][0-9].npz"):
        split, _, index = path.stem.rpartition("-")
        solved.setdefault(split, {})[int(index)] = path
    for split, found in solved.items():
        n_samples = n_stored(base / split / f"{name}.hdf5")
        noted = ledger.note(base, split, n_samples, found)
        n_used = n_samples // SHARD_SIZE
        if noted or splits.get(split, 0) <= n_samples:
            # With the shard of which the file holds only the first samples; a longer file would need the others.
            n_used = -(-n_samples // SHARD_SIZE)
        for index, path in found.items():
            if index < n_used:
                path.unlink()
    for path in (base / _SCRATCH).glob("*-errors.json"):
        if n_stored(base / path.name.removesuffix("-errors.json") / f"{name}.hdf5"):
            path.unlink()  # the dataset file holds the errors
    if not any((base / _SCRATCH).iterdir()):
        (base / _SCRATCH).rmdir()


def _solve_shard(problem: Problem, seed: int, split: str, shard: int, path: Path) -> None:
    shards.write(path, *shards.solve(problem, seed, split, shard))


def _solve_shards(work: _Request, split: str, numbers: Sequence[int]) -> int:
    """Solve several shards at once, because one alone can't keep a device busy. Returns how many."""
    started = time.perf_counter()
    indices = [shard * SHARD_SIZE + i for shard in numbers for i in range(SHARD_SIZE)]
    with _on(work.device), shards.naming(work.problem.spec.name, split, indices):
        samples = work.problem.simulate([generator(work.seed, split, index) for index in indices])
    fields = to_fields(work.problem.spec, samples)
    seconds = (time.perf_counter() - started) / len(numbers)
    for position, shard in enumerate(numbers):
        own = slice(position * SHARD_SIZE, (position + 1) * SHARD_SIZE)
        shards.write(_shard_path(work, split, shard), {name: values[own] for name, values in fields.items()}, seconds)
    return len(numbers)


def _groups(work: _Request, todo: Sequence[tuple[str, int]]) -> Iterator[tuple[str, list[int]]]:
    """Shards of one split that are solved together on a device, as many as fit in its memory."""
    n_bytes = 8 * work.problem.spec.grid.n_points * work.problem.spec.n_snapshots * _COPIES_ON_DEVICE * SHARD_SIZE
    free = torch.cuda.mem_get_info(work.device)[0] if work.device.startswith("cuda") else 0
    size = max(1, min(_MOST_SHARDS_AT_ONCE, free // n_bytes))
    for split in work.splits:
        numbers = [shard for other, shard in todo if other == split]
        for first in range(0, len(numbers), size):
            yield split, numbers[first : first + size]


def provenance(device: str) -> dict[str, str]:
    """Root attributes of a generated file: how it was made."""
    return {
        "device": device,
        "generator": f"neuralop-bench {importlib.metadata.version('neuralop-bench')}",
        "libraries": f"torch {torch.__version__}, numpy {np.__version__}",
    }
