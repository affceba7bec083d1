"""Datasets in HDF5: one self-describing file per split that xarray, h5py and The Well's ``WellDataset`` all open.

Layout (see docs/data_format.md): root datasets ``sample``, ``time``, ``x``, ... are dimension scales. Every field is
stored at the root with its scales attached; hard links to it are in The Well's groups (``dimensions``, ``t0_fields``,
``boundary_conditions``, ``scalars``). Root attributes hold every scalar parameter, the spec as JSON, and a SHA-256 for
each shard of 16 samples. The bytes depend on spec, split, seed and samples only, not on the date, host or run time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from data_gen import agreement, hdf5, layout
from data_gen.files import replacing_stream
from data_gen.layout import DIAGNOSTICS, FORMAT_VERSION, SCALARS, SHARD_SIZE, File
from data_gen.spec import DatasetSpec, FieldSpec, Samples

if TYPE_CHECKING:
    import xarray as xr

# The metadata of HDF5 1.10 has checksums, so a flipped bit in it is found when it is read.
_LIBRARY_VERSION = "v110"
# A damaged file may have been imported from data that exist nowhere else.
_REMEDY = (
    "If run.py generated it, delete it, and the same command generates it again. Otherwise import or copy it again."
)
# The arrays that a file stores for some samples, by name: fields, float32, in the order in which they are hashed, then
# scalars/<name> and diagnostics/<name>, float64, one number per sample.
Fields = dict[str, NDArray[np.floating]]


class StoreError(RuntimeError):
    """A file that can't be read or trusted; the message names the file, the reason and the remedy."""


def to_fields(spec: DatasetSpec, samples: Samples) -> Fields:
    """The arrays that a file stores for some samples: fields as float32, diagnostics as float64.

    Raises:
        ValueError: the names or shapes aren't those of the spec.
    """
    space = spec.grid.shape
    n = len(samples.trajectory)
    shape = (n, spec.n_snapshots, len(spec.state), *space)
    if samples.trajectory.shape != shape or samples.static.shape != (n, len(spec.static), *space):
        raise ValueError(
            f"Samples don't fit the spec of {spec.name}: expected a trajectory {shape} and static fields "
            f"{(n, len(spec.static), *space)}, got {samples.trajectory.shape} and {samples.static.shape}."
        )
    arrays: dict[str, NDArray[Any]] = {}
    for channel, field in enumerate(spec.static):
        arrays[field.name] = samples.static[:, channel]
    for channel, field in enumerate(spec.state):
        if spec.stores_initial:
            arrays[layout.INITIAL + field.name] = samples.history[:, -1, channel]
        states = samples.trajectory[:, :, channel]
        arrays[field.name] = states[:, 0] if spec.is_steady else states
    fields: Fields = {name: np.ascontiguousarray(arrays[name], dtype=np.float32) for name in layout.field_names(spec)}
    for what, found, entries, prefix in (
        ("parameters per sample", samples.parameters, spec.varying, SCALARS),
        ("diagnostics", samples.diagnostics, spec.diagnostics, DIAGNOSTICS),
    ):
        if set(found) != {entry.name for entry in entries}:
            raise ValueError(
                f"The {what} {sorted(found)} aren't those of the spec of {spec.name}: "
                f"{sorted(entry.name for entry in entries)}."
            )
        fields |= {prefix + entry.name: np.asarray(found[entry.name], dtype=np.float64) for entry in entries}
    return fields


def to_parameters(spec: DatasetSpec, fields: Fields) -> NDArray[np.float64]:
    """Parameters that differ between samples, [sample, parameter], from the result of ``to_fields``."""
    n = len(next(iter(fields.values())))
    return np.array([fields[SCALARS + entry.name] for entry in spec.varying], dtype=np.float64).reshape(-1, n).T


def to_arrays(spec: DatasetSpec, fields: Fields) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """States [sample, time, field, *space] and static fields [sample, static field, *space] from the result of
    ``to_fields``, as ``DatasetFile`` reads them."""
    channel = -1 - spec.grid.n_dims
    frames = [fields[f.name] for f in spec.state]
    if spec.is_steady:
        frames = [values[:, None] for values in frames]
    states = np.stack(frames, channel)
    static = [fields[f.name] for f in spec.static]
    return states, np.stack(static, channel) if static else np.empty((len(states), 0, *spec.grid.shape), np.float32)


def require_fields(spec: DatasetSpec, fields: Fields) -> None:
    """Check that fields have the names, order and shapes that a dataset's spec asks for.

    Raises:
        ValueError: they are not.
    """
    n = len(next(iter(fields.values()), ()))
    expected = layout.shapes(spec, n)
    found = {name: values.shape for name, values in fields.items()}
    if list(found.items()) != list(expected.items()):
        raise ValueError(f"The fields of {spec.name} don't fit its spec: expected {expected}, got {found}.")


def write(
    path: Path,
    spec: DatasetSpec,
    shards: Iterable[Fields],
    n_samples: int,
    *,
    split: str,
    seed: int,
    provenance: dict[str, str],
    certificate: Mapping[str, Any] | None = None,
) -> None:
    """Write ``n_samples`` samples atomically.

    Args:
        path: the file to create or replace.
        spec: of the dataset.
        shards: fields of consecutive samples (``to_fields``), ``SHARD_SIZE`` at a time; samples beyond ``n_samples``
            are left out.
        n_samples: samples in the file.
        split: name of the split, stored as a root attribute.
        seed: the dataset's seed, stored as a root attribute.
        provenance: versions of the code that made the samples, stored as root attributes.
        certificate: what is known about the samples' error (``data_gen.generation.certificate``), stored as JSON.

    Raises:
        ValueError: the shards hold fewer samples than ``n_samples``, or arrays that don't fit the spec.
    """
    with replacing_stream(path) as stream, h5py.File(stream, "w", libver=_LIBRARY_VERSION) as file:
        layout.write_header(file, spec, n_samples, split, seed, provenance)
        datasets = layout.create_fields(file, spec, n_samples)
        hashes: list[str] = []
        written = 0
        for shard in shards:
            require_fields(spec, shard)
            arrays = {name: values[: n_samples - written] for name, values in shard.items()}
            count = len(next(iter(arrays.values())))
            if not count:
                break
            for name, values in arrays.items():
                datasets[name][written : written + count] = values
            hashes.append(hash_fields(arrays))
            written += count
        if written != n_samples:
            raise ValueError(f"{path.name} should hold {n_samples} samples, but the shards held {written}.")
        # The reader uses text of fixed length only. HDF5 keeps text of variable length in a heap without checksums,
        # where a flipped bit can send the library into an endless loop.
        values = {"split": split, "seed": seed, "n_samples": n_samples, "certificate": dict(certificate or {})}
        header = [spec.to_json(), json.dumps(values), *hashes]
        file.attrs["spec"], file.attrs["header"] = (np.bytes_(text.encode()) for text in header[:2])
        file.attrs["certificate"] = json.dumps(values["certificate"], indent=2)
        file.attrs["shard_sha256"] = np.array(hashes, dtype="S64")
        file.attrs["header_sha256"] = np.bytes_(_hash_header(header).encode())


class DatasetFile:
    """A dataset file open for reading; a context manager.

    Attributes:
        spec, split, seed, n_samples: what it holds.
        certificate: what is known about its error (``data_gen.generation.certificate``); empty if nothing was measured.

    Raises:
        StoreError: the file is missing, isn't a dataset, is damaged, refers to other files, can't be read at present
            (locked, no permission), or has another format version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"There is no dataset file {self.path}. Check the path, or let run.py generate the data.")
        with _damage_reported(self.path), ExitStack() as on_failure:
            # Without a chunk cache, because HDF5 would fill it with whole chunks, and a window needs only part of one.
            self._file: File = hdf5.open_file(self.path, rdcc_nbytes=0)
            self._fields: dict[str, File] = {}
            on_failure.callback(self._file.close)
            if "format_version" not in self._file.attrs:
                raise StoreError(
                    f"{self.path} is an HDF5 file, but not a dataset file: it lacks the attribute format_version. "
                    "scripts/import_data.py converts files of other formats."
                )
            version = int(self._file.attrs["format_version"])
            if version != FORMAT_VERSION:
                raise StoreError(
                    f"{self.path} has format version {version}, but this code reads version {FORMAT_VERSION}. "
                    f"Use the release that wrote it. {_REMEDY}"
                )
            spec, header = (self._file.attrs[name].decode() for name in ("spec", "header"))
            self._shard_hashes = [entry.decode() for entry in self._file.attrs["shard_sha256"]]
            if self._file.attrs["header_sha256"].decode() != _hash_header([spec, header, *self._shard_hashes]):
                raise ValueError("its header doesn't match the hash stored with it")
            self.spec = DatasetSpec.from_json(spec)
            values = json.loads(header)
            self.split, self.seed, self.n_samples = str(values["split"]), int(values["seed"]), int(values["n_samples"])
            self.certificate: dict[str, Any] = values["certificate"]
            if not isinstance(self.certificate.get("error"), float | int | None):
                raise ValueError(f"the error in its certificate is {self.certificate['error']!r}")
            self._check_header()
            on_failure.pop_all()

    def __enter__(self) -> DatasetFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def read_states(self, index: int | slice, frames: slice = slice(None)) -> NDArray[np.float32]:
        """State fields: [time, field, *space] of one sample, or [sample, time, field, *space] of a slice."""
        with _damage_reported(self.path):
            if self.spec.is_steady:
                fields = [
                    np.expand_dims(self._field(f.name)[index], -1 - self.spec.grid.n_dims) for f in self.spec.state
                ]
            else:
                fields = [self._field(f.name)[index, frames] for f in self.spec.state]
            axis = -1 - self.spec.grid.n_dims
            return np.stack(fields, axis) if len(fields) > 1 else np.expand_dims(fields[0], axis)

    def read_static(self, index: int | slice) -> NDArray[np.float32]:
        """Static fields: [field, *space] of one sample, or [sample, field, *space] of a slice; perhaps no field."""
        return self._read_constant(self.spec.static, "", index)

    def read_initial(self, index: int | slice) -> NDArray[np.float32]:
        """Separate initial state: [field, *space] of one sample, or [sample, field, *space] of a slice.

        Raises:
            StoreError: the trajectory itself starts at t = 0, so the file holds no separate initial state.
        """
        if not self.spec.stores_initial:
            raise StoreError(f"{self.path} holds no separate initial state: its trajectories start at t = 0.")
        return self._read_constant(self.spec.state, layout.INITIAL, index)

    def read_parameters(self, index: slice = slice(None)) -> NDArray[np.float64]:
        """Parameters that differ between samples, [sample, parameter], in the order of ``spec.varying``."""
        n = len(range(*index.indices(self.n_samples)))
        with _damage_reported(self.path):
            rows = [self._field(SCALARS + entry.name)[index] for entry in self.spec.varying]
        return np.array(rows).reshape(-1, n).T

    @property
    def provenance(self) -> dict[str, str]:
        """How the samples were made, as given to ``write``. It is information for people; no hash covers it."""
        known = {
            *layout.root_attributes(self.spec, 0, "", 0),
            *"spec header header_sha256 shard_sha256 certificate".split(),
        }
        with _damage_reported(self.path):
            return {name: str(value) for name, value in self._file.attrs.items() if name not in known}

    def read_diagnostics(self) -> dict[str, NDArray[np.float64]]:
        """What the solver recorded for every sample, [sample] each."""
        with _damage_reported(self.path):
            return {entry.name: self._file[DIAGNOSTICS + entry.name][:] for entry in self.spec.diagnostics}

    def read_shard(self, shard: int) -> Fields:
        """All arrays of a shard."""
        stop = min((shard + 1) * SHARD_SIZE, self.n_samples)
        with _damage_reported(self.path):
            return {name: self._file[name][shard * SHARD_SIZE : stop] for name in layout.shapes(self.spec, 0)}

    def sha256(self, n_samples: int | None = None) -> str:
        """Hash of the first ``n_samples`` samples (default: all). Every shard read is compared with its stored hash.

        Equal samples have equal hashes, whatever the length of their files.

        Raises:
            StoreError: a shard doesn't match the hash stored with it.
            ValueError: the file holds fewer samples.
        """
        total = hashlib.sha256()
        for arrays in self._intact(n_samples):
            total.update(hash_fields(arrays).encode())
        return total.hexdigest()

    def identity(self, n_samples: int | None = None) -> tuple[str, dict[str, Any]]:
        """``sha256``, and the numbers that the same data made elsewhere must agree with (``data_gen.agreement``)."""
        total = hashlib.sha256()
        numbers: list[NDArray[np.float64]] = []
        for arrays in self._intact(n_samples):
            total.update(hash_fields(arrays).encode())
            n_dims = self.spec.grid.n_dims
            fields = [
                values.reshape(-1, *(1,) * n_dims) if name.startswith(SCALARS) else values
                for name, values in arrays.items()
                if not name.startswith(DIAGNOSTICS)
            ]
            numbers.append(np.stack([agreement.measure(values, n_dims) for values in fields], axis=1))
        return total.hexdigest(), agreement.summary(np.concatenate(numbers))

    def _intact(self, n_samples: int | None) -> Iterator[Fields]:
        """Shards of the first samples, each compared with its stored hash."""
        wanted = self.n_samples if n_samples is None else n_samples
        if not 1 <= wanted <= self.n_samples:
            raise ValueError(f"{self.path} holds {self.n_samples} samples, so {wanted} can't be read from it.")
        for shard in range(-(-wanted // SHARD_SIZE)):
            arrays = self.read_shard(shard)
            if hash_fields(arrays) != self._shard_hashes[shard]:
                first = shard * SHARD_SIZE
                raise StoreError(
                    f"{self.path} is damaged: samples {first} to {min(first + SHARD_SIZE, self.n_samples) - 1} don't "
                    f"match the hash stored with them. {_REMEDY}"
                )
            yield {name: values[: wanted - shard * SHARD_SIZE] for name, values in arrays.items()}

    def _read_constant(self, fields: tuple[FieldSpec, ...], prefix: str, index: int | slice) -> NDArray[np.float32]:
        lead = () if not isinstance(index, slice) else (len(range(*index.indices(self.n_samples))),)
        values = np.empty((*lead, len(fields), *self.spec.grid.shape), dtype=np.float32)
        with _damage_reported(self.path):
            for channel, field in enumerate(fields):
                where = (..., channel, *(slice(None),) * self.spec.grid.n_dims)
                values[where] = self._field(prefix + field.name)[index]
        return values

    def _field(self, name: str) -> File:
        # Looking up a field takes as long as reading a window of it from the page cache.
        if name not in self._fields:
            self._fields[name] = self._file[name]
        return self._fields[name]

    def _check_header(self) -> None:
        expected = layout.shapes(self.spec, self.n_samples)
        found = {name: tuple(self._file[name].shape) for name in expected}
        if found != expected:
            raise ValueError(f"its fields have the shapes {found}, but its spec says {expected}")
        if len(self._shard_hashes) != -(-self.n_samples // SHARD_SIZE):
            raise ValueError(f"it has {len(self._shard_hashes)} shard hashes for {self.n_samples} samples")
        numbers = {name: value for name, value in self.spec.parameters.items() if not isinstance(value, str)}
        for name, value in {**numbers, "n_trajectories": self.n_samples}.items():
            if self._file.attrs[name] != value:
                raise ValueError(f"its attribute {name} is {self._file.attrs[name]}, but its spec says {value}")
        for name, values in layout.scales(self.spec, self.n_samples).items():
            if not np.array_equal(self._file[name][:], values):
                raise ValueError(f"its coordinate {name} isn't that of its spec")


def to_xarray(path: Path) -> xr.Dataset:
    """The file as a lazy ``xarray.Dataset`` with dimensions sample, time and the space axes; close it after use."""
    import xarray as xr  # takes half a second, which every worker process would spend

    return xr.open_dataset(path, engine="h5netcdf")


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Turn the many errors that h5py and parsers raise into one that names the cause and says what to do."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        cause = hdf5.why(error)
        if cause is not None:
            raise StoreError(f"{path} can't be read: {cause}") from error
        raise StoreError(
            f"{path} is damaged or isn't a dataset file ({type(error).__name__}: {error}). {_REMEDY}"
        ) from error


def _hash_header(texts: list[str]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def hash_fields(arrays: Fields) -> str:
    """SHA-256 of names, shapes and values of fields and parameters. Diagnostics, which no model sees, are left out."""
    digest = hashlib.sha256()
    for name, values in arrays.items():
        if name.startswith(DIAGNOSTICS):
            continue
        digest.update(f"{name}{values.shape}".encode())
        precision = "<f8" if name.startswith(SCALARS) else "<f4"
        digest.update(np.ascontiguousarray(values, dtype=precision).tobytes())
    return digest.hexdigest()
