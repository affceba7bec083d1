"""Files in other formats, converted to our own: checked, divided into splits, and written as one file per split."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen import progress
from data_gen.files import make_folder, write_errors
from data_gen.importing.blocks import blocks, duplicates, finite, hashes_of, shards
from data_gen.importing.contents import Contents, Given, ImportedFileError
from data_gen.importing.formats import BARE, open_file
from data_gen.importing.parameters import settle
from data_gen.importing.remarks import Remarks
from data_gen.spec import DatasetSpec, ParameterSpec, Scalar
from data_gen.store import DatasetFile, write

_SPLIT = re.compile(r"train|valid|test|test_[A-Za-z0-9_]+", re.ASCII)
_MAIN = ("train", "valid", "test")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
# Names that have a meaning of their own in our files.
_RESERVED = {
    *"sample time x y z dimensions scalars boundary_conditions t0_fields t1_fields t2_fields diagnostics".split(),
    *"format_version dataset_name dataset_version equation reference split seed n_trajectories n_spatial_dims".split(),
    *"grid_type simulation_parameters generator libraries spec header certificate".split(),
    *"source source_sha256 source_format".split(),
}


@dataclass(frozen=True)
class Part:
    """The samples of a split: the next ``n`` of a file that no earlier part has taken, or all that are left if ``n`` is
    None."""

    split: str
    path: Path
    n: int | None = None

    @classmethod
    def parse(cls, text: str) -> Part:
        """``train=FILE`` or ``train=FILE:900``.

        Raises:
            ImportedFileError: the text has another form.

        >>> Part.parse("valid=a.pt:100")
        Part(split='valid', path=PosixPath('a.pt'), n=100)
        """
        split, equals, rest = text.partition("=")
        if not equals or not rest or not _SPLIT.fullmatch(split):
            raise ImportedFileError(
                f"{text!r} isn't SPLIT=FILE or SPLIT=FILE:COUNT, where SPLIT is train, valid, test or test_<name>."
            )
        path, colon, count = rest.rpartition(":")
        if not colon or Path(rest).exists() or not re.fullmatch(r"[+-]?\d+", count):
            return cls(split, Path(rest).expanduser())
        if int(count) < 1:
            raise ImportedFileError(f"{text!r}: a split needs at least 1 sample.")
        return cls(split, Path(path).expanduser(), int(count))


@dataclass(frozen=True)
class About:
    """What the user says about the dataset as a whole: its name and its metadata. Where an entry is empty, the format's
    default is used."""

    name: str
    equation: str = ""
    reference: str = ""
    parameters: Mapping[str, Scalar] | None = None


@dataclass(frozen=True)
class ImportedSplit:
    """A split that was written: its file, its number of samples, its spec, and notes on what was assumed."""

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
    drop: Collection[int | str] = (),
    replace_existing: bool = False,
) -> tuple[dict[str, ImportedSplit], list[str]]:
    """Convert files to ``<out>/<split>/<name>.hdf5``. Either all splits are written, or none.

    Args:
        kind: one of ``data_gen.importing.formats.FORMATS``.
        parts: the splits. Those that name the same file divide its samples among them, in the order given.
        about: name and metadata.
        out: folder of the dataset. Existing splits are kept.
        given: what the files don't say.
        shuffle_seed: take the samples of each file in random order; None keeps the order of the file.
        drop: numbers of samples in the file that are left out, and "nan" for those with values that aren't finite.
        replace_existing: replace existing splits that are also among the new ones.

    Returns:
        The new splits, and warnings: about inputs that train holds twice or shares with another split, fields and
        samples that vanish, and fields that single precision spoils.

    Raises:
        ImportedFileError: files that can't be converted, as the message says.
        StoreError: an existing split is damaged.
        WriteError: the disk is full, or the folder can't be written.
    """
    given = given or Given()
    _require_sensible(kind, parts, about, given, drop)
    kept, taken = _existing(out, parts, replace_existing)
    with ExitStack() as files:
        contents = {path: open_file(kind, path, given, files) for path in dict.fromkeys(p.path for p in parts)}
        contents = settle(
            contents,
            main=[path for path in contents if any(p.path == path and p.split in _MAIN for p in parts)],
            train=[part.path for part in parts if part.split == "train"],
            wanted=given.static if given.static is not None else _inputs(kept),
            allowed=_is_name,
            known=_varying(kept),
        )
        described = {path: _spec(found, about) for path, found in contents.items()}
        specs = {part.split: described[part.path] for part in parts}
        dropped = {path: _dropped(found, described[path], drop) for path, found in contents.items()}
        chosen = _cut(parts, contents, dropped, shuffle_seed)
        provenance = {path: _provenance(kind, path, found) for path, found in contents.items()}
        _require_equal(specs, kept)
        inputs = {split: hashes_of(path) for split, path in kept.items()}
        with _scratch_beside(out) as scratch:
            warnings: list[str] = []
            for part in parts:
                source, spec, samples = contents[part.path], specs[part.split], chosen[part.split]
                inputs[part.split], remarks = _write(
                    scratch / part.split / f"{about.name}.hdf5",
                    part.split,
                    source,
                    spec,
                    samples,
                    seed=shuffle_seed or 0,
                    provenance=provenance[part.path],
                )
                warnings += remarks
            warnings += duplicates(inputs)
            _move_in(scratch, out, taken)
    written = {
        part.split: ImportedSplit(
            out / part.split / f"{about.name}.hdf5",
            len(chosen[part.split]),
            specs[part.split],
            (*contents[part.path].notes, *_told(part.path, dropped[part.path], drop)),
        )
        for part in parts
    }
    return written, warnings


def _existing(out: Path, parts: Sequence[Part], replace_existing: bool) -> tuple[dict[str, Path], list[str]]:
    """Splits of the folder that stay, and names of those that are replaced."""
    existing = existing_splits(out)
    taken = [part.split for part in parts if part.split in existing]
    if taken and not replace_existing:
        raise ImportedFileError(f"{out} already holds {' and '.join(taken)}. Choose another --out, or add --force.")
    return {split: path for split, path in existing.items() if split not in taken}, taken


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and text not in _RESERVED


def _imported_before(kept: Mapping[str, Path]) -> DatasetSpec | None:
    for split in _MAIN:
        if split in kept:
            with DatasetFile(kept[split]) as file:
                return file.spec
    return None


def _inputs(kept: Mapping[str, Path]) -> list[str] | None:
    """Static fields and parameters per sample of the splits that were imported before; None if there are none."""
    spec = _imported_before(kept)
    return None if spec is None else [entry.name for entry in (*spec.static, *spec.varying)]


def _varying(kept: Mapping[str, Path]) -> tuple[ParameterSpec, ...]:
    spec = _imported_before(kept)
    return () if spec is None else spec.varying


def _require_sensible(
    kind: str, parts: Sequence[Part], about: About, given: Given, drop: Collection[int | str]
) -> None:
    splits = [part.split for part in parts]
    if given.axes and kind not in BARE:
        raise ImportedFileError(
            f"--axes is for the formats {', '.join(BARE)}. Files of format {kind} say what axes are."
        )
    if any(entry != "nan" for entry in drop) and len({part.path for part in parts}) > 1:
        raise ImportedFileError("--drop with numbers needs splits of one file. Import those of other files apart.")
    if not parts:
        raise ImportedFileError("Name at least one split: train=FILE valid=FILE test=FILE.")
    for split in splits:
        if splits.count(split) > 1:
            raise ImportedFileError(f"{split} is given twice. Give each split once.")
    named = {"--name": (about.name,), "--state": given.state or (), "--static": given.static or ()}
    for option, names in named.items():
        for name in names:
            if not _is_name(name):
                raise ImportedFileError(
                    f"{option} {name!r}: a name is a letter and up to 39 letters, digits, _ or -, and must not be one "
                    "that the file format reserves."
                )
    for name, value in (about.parameters or {}).items():
        if not _is_name(name):
            raise ImportedFileError(f"--parameter {name}: this isn't a valid name, or the file format reserves it.")
        if isinstance(value, float) and not np.isfinite(value):
            raise ImportedFileError(f"--parameter {name} must be a finite number, got {value}.")


def existing_splits(out: Path) -> dict[str, Path]:
    """Files of the splits in a folder, by split.

    Raises:
        ImportedFileError: the path is a file.
    """
    if out.exists() and not out.is_dir():
        raise ImportedFileError(f"{out} is a file. Choose another folder with --out.")
    return {path.parent.name: path for path in sorted(out.glob("*/*.hdf5")) if _SPLIT.fullmatch(path.parent.name)}


def _dropped(found: Contents, spec: DatasetSpec, drop: Collection[int | str]) -> NDArray[np.int64]:
    """Numbers of the samples that are left out."""
    numbers = np.array(sorted({int(entry) for entry in drop if entry != "nan"}), dtype=np.int64)
    outside = numbers[(numbers < 0) | (numbers >= found.n_samples)]
    if len(outside):
        raise ImportedFileError(f"--drop {outside[0]}: {found.files[0]} has the samples 0 to {found.n_samples - 1}.")
    if "nan" in drop:
        for block, _, fields in blocks(found, spec, np.arange(found.n_samples)):
            numbers = np.union1d(numbers, block[~np.all([finite(values) for values in fields.values()], axis=0)])
    return numbers


def _told(path: Path, dropped: NDArray[np.int64], drop: Collection[int | str]) -> tuple[str, ...]:
    if not drop:
        return ()
    return (f"samples of {path.name} that are left out (--drop): {', '.join(map(str, dropped)) or 'none'}",)


def _cut(
    parts: Sequence[Part],
    contents: Mapping[Path, Contents],
    dropped: Mapping[Path, NDArray[np.int64]],
    seed: int | None,
) -> dict[str, NDArray[np.int64]]:
    """Indices of the samples of each split; splits of the same file share none."""
    order: dict[Path, NDArray[np.int64]] = {}
    for path, found in contents.items():
        order[path] = np.arange(found.n_samples)
        if seed is not None:
            order[path] = np.random.default_rng(seed).permutation(found.n_samples)
        order[path] = order[path][~np.isin(order[path], dropped[path])]
    done = dict.fromkeys(contents, 0)
    chosen = {}
    for part in parts:
        left = len(order[part.path]) - done[part.path]
        n = left if part.n is None else part.n
        if n > left or n == 0:
            raise ImportedFileError(
                f"{part.path} holds {len(order[part.path])} samples, and {done[part.path]} are in other splits, so "
                f"{part.split}={'the rest' if part.n is None else n} exceeds what is left. Give smaller counts."
            )
        chosen[part.split] = order[part.path][done[part.path] : done[part.path] + n]
        done[part.path] += n
    return chosen


def _spec(found: Contents, about: About) -> DatasetSpec:
    parameters = {name: value for name, value in found.parameters.items() if _is_name(name)}
    for name, value in (about.parameters or {}).items():
        if name in parameters and parameters[name] != value:
            raise ImportedFileError(
                f"--parameter {name}={value}, but {found.files[0]} says {parameters[name]}. Leave it out."
            )
        parameters[name] = value
    names = [field.name for field in (*found.state, *found.static)]
    if len(set(names)) != len(names) or _RESERVED & {*names}:
        raise ImportedFileError(
            f"{found.files[0]} would give fields named {', '.join(names)}. Names must differ, and the file "
            "format reserves some. Choose others with --state and --static."
        )
    if len(found.times) == 1:
        raise ImportedFileError(
            f"{found.files[0]} holds a single snapshot per sample, so there is nothing to predict. A file needs two or "
            "more snapshots, or an input and a solution."
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
            varying=found.varying,
        )
    except ValueError as error:
        raise ImportedFileError(f"{found.files[0]}: {error}") from error


def _require_equal(specs: Mapping[str, DatasetSpec], kept: Mapping[str, Path]) -> None:
    """Check that train, valid and test have the same spec. A test_<name> may have another grid and other times."""
    known = dict(specs)
    for split, path in kept.items():
        with DatasetFile(path) as file:
            known[split] = file.spec
    main = [split for split in _MAIN if split in known]
    for split in main[1:]:
        one, other = known[main[0]], known[split]
        for what in ("name", "grid", "times", "state", "static", "varying", "parameters", "equation", "reference"):
            if getattr(one, what) != getattr(other, what):
                raise ImportedFileError(
                    f"{main[0]} and {split} differ in {what}: {getattr(one, what)} and {getattr(other, what)}. They "
                    "must be equal; a test set on another grid can be named test_<name>."
                )


@contextmanager
def _scratch_beside(out: Path) -> Iterator[Path]:
    """A folder on the same file system as ``out``, removed in the end."""
    make_folder(out.parent)
    with write_errors(out):
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(
    file: Path,
    split: str,
    source: Contents,
    spec: DatasetSpec,
    samples: NDArray[np.int64],
    *,
    seed: int,
    provenance: dict[str, str],
) -> tuple[list[bytes], list[str]]:
    """Write the samples of a split. Returns a hash of each sample's input, and warnings."""
    hashes: list[bytes] = []
    remarks = Remarks(split, spec)
    with progress.track(f"Importing {split}", len(samples), "samples") as bar:
        found = shards(source, spec, samples, bar, hashes, remarks)
        write(file, spec, found, len(samples), split=split, seed=seed, provenance=provenance)
    return hashes, remarks.warnings()


def _move_in(scratch: Path, out: Path, replaced: Sequence[str]) -> None:
    make_folder(out)
    with write_errors(out):
        for folder in sorted(scratch.iterdir()):
            (file,) = folder.iterdir()
            make_folder(out / folder.name)
            file.replace(out / folder.name / file.name)
            if folder.name in replaced:  # the old file may have another name
                for old in (out / folder.name).glob("*.hdf5"):
                    if old.name != file.name:
                        old.unlink()


def _provenance(kind: str, path: Path, found: Contents) -> dict[str, str]:
    """Root attributes that tell where samples come from: the file and its hash, or a hash of the hashes of several."""
    hashes = [_sha256(file) for file in found.files]
    total = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    source = path.name if len(hashes) == 1 else f"{path.name} ({len(hashes)} files)"
    return {"generator": "imported", "source": source, "source_sha256": total, "source_format": kind}


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
