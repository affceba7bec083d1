"""Data of others, converted to our format: checked, cut into splits, written as one file per split.

python scripts/import_data.py neuralop train=darcy_train_16.pt:900 valid=darcy_train_16.pt test=darcy_test_16.pt \\
    --name darcy16
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen import progress
from data_gen.files import WriteError, make_folder, write_errors
from data_gen.importing.contents import FORMATS, NAME, Contents, ForeignFileError, Given, open_foreign
from data_gen.spec import DatasetSpec, Samples, Scalar
from data_gen.store import SHARD_SIZE, DatasetFile, Fields, StoreError, to_fields, write

_SPLIT = re.compile(r"train|valid|test|test_[A-Za-z0-9_]+", re.ASCII)
# Samples read together: as many as fit in this, in whole shards; up to so many times more where a file's chunks are
# larger.
_BLOCK_BYTES = 2**27
_LARGER = 8
# Names that our files use for themselves.
_RESERVED = {
    *"sample time x y z dimensions scalars boundary_conditions t0_fields t1_fields t2_fields diagnostics".split(),
    *"format_version dataset_name dataset_version equation reference split seed n_trajectories n_spatial_dims".split(),
    *"grid_type simulation_parameters generator libraries spec header certificate".split(),
    *"source source_sha256 source_format".split(),
}


@dataclass(frozen=True)
class Part:
    """What becomes a split: the next ``n`` samples of a file that no part before it has taken; all that are left if
    ``n`` is None."""

    split: str
    path: Path
    n: int | None = None

    @classmethod
    def parse(cls, text: str) -> Part:
        """``train=FILE`` or ``train=FILE:900``.

        Raises:
            ForeignFileError: something else.

        >>> Part.parse("valid=a.pt:100")
        Part(split='valid', path=PosixPath('a.pt'), n=100)
        """
        split, equals, rest = text.partition("=")
        if not equals or not rest or not _SPLIT.fullmatch(split):
            raise ForeignFileError(
                f"{text!r} isn't SPLIT=FILE or SPLIT=FILE:COUNT, where SPLIT is train, valid, test or test_<name>."
            )
        path, colon, count = rest.rpartition(":")
        if not colon or Path(rest).exists() or not re.fullmatch(r"[+-]?\d+", count):
            return cls(split, Path(rest).expanduser())
        if int(count) < 1:
            raise ForeignFileError(f"{text!r}: a split needs at least 1 sample.")
        return cls(split, Path(path).expanduser(), int(count))


@dataclass(frozen=True)
class About:
    """What the user says of the dataset as a whole: its name, and what goes into its metadata; empty where the format
    has a default."""

    name: str
    equation: str = ""
    reference: str = ""
    parameters: Mapping[str, Scalar] | None = None


@dataclass(frozen=True)
class Imported:
    """A split that was written: its file, its samples, what it holds, and what was assumed about it."""

    path: Path
    n_samples: int
    spec: DatasetSpec
    notes: tuple[str, ...]


def import_data(
    kind: str,
    parts: Sequence[Part],
    about: About,
    out: Path,
    given: Given | None = None,
    *,
    shuffle_seed: int | None = None,
    replace_existing: bool = False,
) -> tuple[dict[str, Imported], list[str]]:
    """Convert files to ``<out>/<split>/<name>.hdf5``. All splits are written, or none.

    Args:
        kind: one of ``data_gen.importing.contents.FORMATS``.
        parts: the splits; those that name the same file share its samples, in the order given.
        about: name and metadata.
        out: folder of the dataset. Splits that are there already are kept beside the new ones.
        given: what the files don't say.
        shuffle_seed: draw the samples of every file in random order; None keeps the file's.
        replace_existing: replace splits that are there already.

    Returns:
        The new splits, and warnings: samples whose inputs are both in train and in another split.

    Raises:
        ForeignFileError: files that can't be converted, as the message says.
        StoreError: a split that is there already is damaged.
        WriteError: the disk is full, or the folder can't be written.
    """
    given = given or Given()
    _require_sensible(parts, about, given)
    existing = _existing(out)
    taken = [part.split for part in parts if part.split in existing]
    if taken and not replace_existing:
        raise ForeignFileError(f"{out} holds {' and '.join(taken)} already. Choose another --out, or add --force.")
    kept = {split: path for split, path in existing.items() if split not in taken}
    with ExitStack() as files:
        contents = {path: open_foreign(kind, path, given, files) for path in dict.fromkeys(p.path for p in parts)}
        chosen = _cut(parts, contents, shuffle_seed)
        specs = {part.split: _spec(contents[part.path], about) for part in parts}
        provenance = {path: _provenance(kind, path, found) for path, found in contents.items()}
        _require_equal(specs, kept)
        make_folder(out.parent)
        with write_errors(out):
            scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        try:
            hashes: dict[str, list[bytes]] = {}
            for part in parts:
                spec, source, samples = specs[part.split], contents[part.path], chosen[part.split]
                hashes[part.split] = []
                with progress.track(f"Importing {part.split}", len(samples), "samples") as bar:
                    shards = _shards(source, spec, samples, bar, hashes[part.split])
                    write(
                        scratch / part.split / f"{about.name}.hdf5",
                        spec,
                        shards,
                        len(samples),
                        split=part.split,
                        seed=shuffle_seed or 0,
                        provenance=provenance[part.path],
                    )
            warnings = _duplicates({**{split: _hashes_of(path) for split, path in kept.items()}, **hashes})
            _move_in(scratch, out, taken)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    written = {
        part.split: Imported(
            out / part.split / f"{about.name}.hdf5",
            len(chosen[part.split]),
            specs[part.split],
            contents[part.path].notes,
        )
        for part in parts
    }
    return written, warnings


def _require_sensible(parts: Sequence[Part], about: About, given: Given) -> None:
    splits = [part.split for part in parts]
    if not parts:
        raise ForeignFileError("Name at least one split: train=FILE valid=FILE test=FILE.")
    for split in splits:
        if splits.count(split) > 1:
            raise ForeignFileError(f"{split} is given twice. Give each split once.")
    named = {"--name": (about.name,), "--state": given.state or (), "--static": given.static or ()}
    for option, names in named.items():
        for name in names:
            if not NAME.fullmatch(name) or name in _RESERVED:
                raise ForeignFileError(
                    f"{option} {name!r}: a name is a letter and up to 39 letters, digits, _ or -, and none that the "
                    "format uses itself."
                )
    for name, value in (about.parameters or {}).items():
        if not NAME.fullmatch(name) or name in _RESERVED:
            raise ForeignFileError(f"--parameter {name}: the format uses this name itself, or it is no name.")
        if isinstance(value, float) and not np.isfinite(value):
            raise ForeignFileError(f"--parameter {name} must be a finite number, got {value}.")


def _existing(out: Path) -> dict[str, Path]:
    if out.exists() and not out.is_dir():
        raise ForeignFileError(f"{out} is a file. Choose another folder with --out.")
    return {path.parent.name: path for path in sorted(out.glob("*/*.hdf5")) if _SPLIT.fullmatch(path.parent.name)}


def _cut(parts: Sequence[Part], contents: Mapping[Path, Contents], seed: int | None) -> dict[str, NDArray[np.int64]]:
    """Numbers of the samples of each split; disjoint where splits share a file."""
    order: dict[Path, NDArray[np.int64]] = {}
    for path, found in contents.items():
        order[path] = np.arange(found.n_samples)
        if seed is not None:
            order[path] = np.random.default_rng(seed).permutation(found.n_samples)
    done = dict.fromkeys(contents, 0)
    chosen = {}
    for part in parts:
        left = len(order[part.path]) - done[part.path]
        n = left if part.n is None else part.n
        if n > left or n == 0:
            raise ForeignFileError(
                f"{part.path} holds {len(order[part.path])} samples, and {done[part.path]} are in other splits, so "
                f"{part.split}={'the rest' if part.n is None else n} exceeds what is left. Give smaller counts."
            )
        chosen[part.split] = order[part.path][done[part.path] : done[part.path] + n]
        done[part.path] += n
    return chosen


def _spec(found: Contents, about: About) -> DatasetSpec:
    parameters = {name: v for name, v in found.parameters.items() if NAME.fullmatch(name) and name not in _RESERVED}
    for name, value in (about.parameters or {}).items():
        if name in parameters and parameters[name] != value:
            raise ForeignFileError(
                f"--parameter {name}={value}, but {found.files[0]} says {parameters[name]}. Leave it out."
            )
        parameters[name] = value
    names = [field.name for field in (*found.state, *found.static)]
    if len(set(names)) != len(names) or _RESERVED & {*names}:
        raise ForeignFileError(
            f"{found.files[0]} would give fields named {', '.join(names)}: they have to differ, and some names are the "
            "format's own. Choose others with --state and --static."
        )
    try:
        return DatasetSpec(
            name=about.name,
            version=1,
            equation=about.equation or found.equation,
            grid=found.grid,
            times=found.times,
            state=found.state,
            static=found.static,
            parameters=parameters,
            reference=about.reference or found.reference,
        )
    except ValueError as error:
        raise ForeignFileError(f"{found.files[0]}: {error}") from error


def _require_equal(specs: Mapping[str, DatasetSpec], kept: Mapping[str, Path]) -> None:
    """Train, valid and test hold the same thing; another test_<name> may be on another grid, at other times."""
    known = dict(specs)
    for split, path in kept.items():
        with DatasetFile(path) as file:
            known[split] = file.spec
    main = [split for split in ("train", "valid", "test") if split in known]
    for split in main[1:]:
        one, other = known[main[0]], known[split]
        for what in ("name", "grid", "times", "state", "static", "parameters", "equation", "reference"):
            if getattr(one, what) != getattr(other, what):
                raise ForeignFileError(
                    f"{main[0]} and {split} differ in {what}: {getattr(one, what)} and {getattr(other, what)}. They "
                    "have to hold the same thing; a test set on another grid can be named test_<name>."
                )


def _shards(
    source: Contents, spec: DatasetSpec, samples: NDArray[np.int64], bar: progress.Tracker, hashes: list[bytes]
) -> Iterator[Fields]:
    """The samples, a shard at a time; ``hashes`` receives one of each sample's inputs."""
    frames = spec.n_snapshots * len(spec.state) + len(spec.static) + len(spec.state)
    block = max(1, _BLOCK_BYTES // (8 * spec.grid.n_points * frames * SHARD_SIZE)) * SHARD_SIZE
    if source.n_together > block:
        block = min(-(-source.n_together // SHARD_SIZE) * SHARD_SIZE, _LARGER * block)
    for first in range(0, len(samples), block):
        numbers = samples[first : first + block]
        found = _read(source, numbers)
        with np.errstate(over="ignore"):  # what single precision can't hold is found below
            history, static, trajectory = (np.asarray(values, dtype=np.float32) for values in found[:3])
        fields = to_fields(spec, Samples(history, static, trajectory))
        _require_finite(source, fields, numbers)
        hashes += _input_hashes(spec, fields)
        for start in range(0, len(numbers), SHARD_SIZE):
            shard = {name: values[start : start + SHARD_SIZE] for name, values in fields.items()}
            yield shard
            bar.advance(len(next(iter(shard.values()))))


def _read(source: Contents, numbers: NDArray[np.int64]) -> Samples:
    try:
        return source.read(numbers)
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ForeignFileError(
            f"Samples {numbers[0]} to {numbers[-1]} of {source.files[0]} can't be read ({error}). The file is damaged: "
            "fetch it again."
        ) from error


def _require_finite(source: Contents, fields: Fields, numbers: NDArray[np.int64]) -> None:
    for name, values in fields.items():
        fine = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not fine.all():
            bad = numbers[~fine]
            more = f" and {len(bad) - 1} more near it" if len(bad) > 1 else ""
            raise ForeignFileError(
                f"{name} of sample {bad[0]}{more} in {source.files[0]} has values that are NaN, infinite or beyond "
                "single precision. Remove such samples, or cut around them with SPLIT=FILE:COUNT."
            )


def _input_hashes(spec: DatasetSpec, fields: Fields) -> list[bytes]:
    """One hash per sample of what a model is given: static fields, or the first state."""
    names = [field.name for field in spec.static]
    if not spec.is_steady:
        names += [f"initial_{field.name}" if spec.stores_initial else field.name for field in spec.state]
    result = []
    for index in range(len(next(iter(fields.values())))):
        digest = hashlib.sha256()
        for name in names:
            values = fields[name][index]
            digest.update((values[0] if values.ndim > spec.grid.n_dims else values).tobytes())
        result.append(digest.digest())
    return result


def _hashes_of(path: Path) -> list[bytes]:
    with DatasetFile(path) as file:
        return [
            entry
            for shard in range(-(-file.n_samples // SHARD_SIZE))
            for entry in _input_hashes(file.spec, file.read_shard(shard))
        ]


def _duplicates(hashes: Mapping[str, list[bytes]]) -> list[str]:
    """Where the same input is in train and in another split, a model is tested on what it has been shown."""
    shown = set(hashes.get("train", ()))
    warnings = []
    for split, entries in hashes.items():
        common = [index for index, entry in enumerate(entries) if entry in shown]
        if split != "train" and common:
            warnings.append(
                f"{len(common)} of {len(entries)} samples of {split} have the same input as one of train, the first is "
                f"sample {common[0]}: errors on them measure memory, not generalisation."
            )
    if len(shown) < len(hashes.get("train", ())):
        warnings.append(f"train has {len(hashes['train']) - len(shown)} inputs that it holds more than once.")
    return warnings


def _move_in(scratch: Path, out: Path, replaced: Sequence[str]) -> None:
    make_folder(out)
    with write_errors(out):
        for folder in sorted(scratch.iterdir()):
            (file,) = folder.iterdir()
            make_folder(out / folder.name)
            file.replace(out / folder.name / file.name)
            if folder.name in replaced:  # perhaps under another name
                for old in (out / folder.name).glob("*.hdf5"):
                    if old.name != file.name:
                        old.unlink()


def _provenance(kind: str, path: Path, found: Contents) -> dict[str, str]:
    """Root attributes that tell where samples come from: the file and its hash; of several, the hash over theirs."""
    hashes = [_sha256(file) for file in found.files]
    total = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    source = path.name if len(hashes) == 1 else f"{path.name} ({len(hashes)} files)"
    return {"generator": "imported", "source": source, "source_sha256": total, "source_format": kind}


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# Command line --------------------------------------------------------------------------------------------------------

_EXAMPLES = """\
examples:
  # neuraloperator's Darcy files; the last 100 training samples become valid
  import_data.py neuralop train=darcy_train_16.pt:900 valid=darcy_train_16.pt test=darcy_test_16.pt --name darcy16

  # a MATLAB file of the FNO paper, cut into three
  import_data.py mat train=burgers_data_R10.mat:1000 valid=burgers_data_R10.mat:100 test=burgers_data_R10.mat:200 \\
      --name burgers --parameter viscosity=0.1

  # PDEBench; cell centres of a channel with walls
  import_data.py pdebench train=a.hdf5:900 valid=a.hdf5:50 test=a.hdf5:50 --name flow --boundary dirichlet

  # The Well: one directory per split, two of its fields
  import_data.py well train=data/train valid=data/valid test=data/test --name gray_scott --state A,B

then:
  run.py dataset=file dataset.path=imported/darcy16 model=fno track=smoke
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        out = options.out or Path("imported") / options.name
        about = About(options.name, options.equation, options.reference, _parameters(options.parameter))
        given = Given(
            options.lengths,
            options.boundary,
            options.nodes,
            options.times,
            options.interval,
            options.state,
            options.static,
        )
        written, warnings = import_data(
            options.format,
            [Part.parse(text) for text in options.splits],
            about,
            out,
            given,
            shuffle_seed=options.shuffle_seed,
            replace_existing=options.force,
        )
    except (ForeignFileError, StoreError, WriteError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    _tell(written, warnings, out)
    return 0


def _tell(written: Mapping[str, Imported], warnings: Sequence[str], out: Path) -> None:
    spec = next(iter(written.values())).spec
    grid = spec.grid
    for split, entry in written.items():
        print(f"{split:<8} {entry.n_samples} samples -> {entry.path}")
    print(f"fields   {', '.join(f.name for f in spec.state)}", end="")
    print(f" from {', '.join(f.name for f in spec.static)}" if spec.static else "")
    for name, n, length, boundary, nodes in zip(
        grid.axis_names, grid.shape, grid.lengths, grid.boundary, grid.nodes, strict=True
    ):
        print(f"axis {name}   {n} points, length {length:g}, boundary {boundary}, nodes {nodes}")
    if not spec.is_steady:
        print(f"times    {spec.n_snapshots} from {spec.times[0]:g} to {spec.times[-1]:g}")
    for note in dict.fromkeys(note for entry in written.values() for note in entry.notes):
        print(f"Note: {note}")
    for warning in warnings:
        print(f"Warning: {warning}")
    missing = [split for split in ("train", "valid", "test") if split not in _existing(out)]
    if missing:
        print(f"A run needs {' and '.join(missing)} as well: import into the same --out with {missing[0]}=FILE.")
    else:
        print(f"Run: python run.py dataset=file dataset.path={out} model=fno track=smoke")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="import_data.py",
        description="Convert data of others to files that dataset=file runs on.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("format", choices=list(FORMATS), help="of the files")
    parser.add_argument(
        "splits",
        nargs="+",
        metavar="SPLIT=FILE[:COUNT]",
        help="train, valid, test or test_<name>, and its file; with a count, the next so many samples that no split "
        "before it has taken",
    )
    parser.add_argument("--name", required=True, help="of the dataset")
    parser.add_argument("--out", type=Path, help="folder of the dataset (imported/<name>)")
    parser.add_argument("--state", type=_names, metavar="A,B", help="names of the fields that are predicted, or which")
    parser.add_argument("--static", type=_names, metavar="A,B", help="the same for coefficients that don't change")
    parser.add_argument("--lengths", type=_numbers, metavar="L[,L]", help="of the domain (file's coordinates, or 1)")
    parser.add_argument("--boundary", type=_names, metavar="B[,B]", help="periodic, dirichlet, neumann or open")
    parser.add_argument("--nodes", type=_names, metavar="N[,N]", help="periodic, closed (both ends) or centres")
    parser.add_argument("--times", type=_numbers, metavar="T,T,...", help="of the snapshots")
    parser.add_argument("--interval", type=float, metavar="DT", help="between snapshots, instead of --times")
    parser.add_argument("--equation", default="", help="for people")
    parser.add_argument("--reference", default="", help="where the data come from (paper, address)")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    parser.add_argument("--shuffle-seed", type=int, metavar="N", help="draw samples in random order (file's order)")
    parser.add_argument("--force", action="store_true", help="replace splits that are there already")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    values = tuple(float(entry) for entry in text.split(","))
    if not np.isfinite(values).all():
        raise ValueError(f"{text} has entries that aren't finite")
    return values


def _parameters(entries: Sequence[str]) -> dict[str, Scalar]:
    parameters: dict[str, Scalar] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not equals or not text:
            raise ForeignFileError(f"--parameter {entry!r} isn't NAME=VALUE.")
        value: Scalar = text
        for kind in (int, float):
            try:
                value = kind(text)
                break
            except ValueError:
                continue
        parameters[name] = value
    return parameters


if __name__ == "__main__":
    raise SystemExit(main())
