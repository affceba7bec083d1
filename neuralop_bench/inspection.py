"""The contents of a dataset file: its spec, certificate, hashes and a picture.

python scripts/inspect_data.py data/ns2d-1a2b3c4d/test/ns2d.hdf5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_gen.files import WriteError
from data_gen.generation.certificate import Certificate
from data_gen.progress import plain, printable
from data_gen.store import DatasetFile, StoreError
from neuralop_bench.evaluation import field_figures, figures


def describe(path: Path) -> str:
    """Spec, certificate and hashes of a file, after comparing every stored number with its hash.

    Raises:
        StoreError: the file is missing or damaged.
    """
    with DatasetFile(path) as file:
        spec, sha256 = file.spec, file.sha256()
        fields = [
            *(f"state     {entry.name} [{entry.unit}]: {entry.description}" for entry in spec.state),
            *(f"static    {entry.name} [{entry.unit}]: {entry.description}" for entry in spec.static),
        ]
        if spec.is_steady:
            times = "none, a steady problem"
        else:
            times = f"{spec.n_snapshots}, t = {spec.times[0]:g} ... {spec.times[-1]:g}"
            times += ", the initial state apart" if spec.stores_initial else ""
        axes = zip(spec.grid.axis_names, spec.grid.shape, spec.grid.lengths, spec.grid.boundary, strict=True)
        lines = [
            f"{path}",
            f"dataset   {spec.name}, version {spec.version}, split {file.split}, seed {file.seed}",
            f"equation  {spec.equation}",
            *(f"axis {name}    {n} points on [0, {length:g}], {boundary}" for name, n, length, boundary in axes),
            f"times     {times}",
            f"samples   {file.n_samples}",
            *fields,
            *(
                f"          {name} = {value}"
                for name, value in spec.parameters.items()
                if name not in {entry.name for entry in spec.varying}
            ),
            *_parameters(file),
            *(f"made by   {name}: {value}" for name, value in file.provenance.items()),
            f"sha256    {sha256} (all samples, compared with the hashes stored beside them)",
            "",
            _certificate(file),
        ]
    return "\n".join(lines)


def _parameters(file: DatasetFile) -> list[str]:
    """The parameters that differ between samples, with their law and the values that occur."""
    lines = []
    for entry, values in zip(file.spec.varying, file.read_parameters().T, strict=True):
        law = file.spec.parameters.get(entry.name, "")
        found = f"{values.min():.4g} to {values.max():.4g} in these samples"
        lines.append(f"parameter {entry.name}, one value per sample: {law}{', ' if law else ''}{found}")
    return lines


def _certificate(file: DatasetFile) -> str:
    if "errors" not in file.certificate:
        return "certificate: none; the error of these data was not measured"
    try:
        known = Certificate.from_dict(file.certificate).describe(file.spec)
    except (AttributeError, LookupError, TypeError, ValueError):
        return "certificate: it can't be read"
    origin = file.certificate.get("regridded_from")
    head = f"certificate (of {origin}, from which these samples were regridded):" if origin else "certificate:"
    return "\n".join([head, *(f"  {line}" for line in known.splitlines())])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the contents of a file and draw its first samples; 1 if it can't be read."""
    parser = argparse.ArgumentParser(description="Show what a dataset file holds, and draw some samples.")
    parser.add_argument("file", type=Path, help="a dataset file (.hdf5)")
    parser.add_argument("--samples", type=int, default=3, help="how many to draw (default 3; 0 draws nothing)")
    parser.add_argument("-o", "--output", type=Path, help="the picture (default: <dataset>-<split>.png here)")
    given = parser.parse_args(arguments)
    try:
        print(printable(plain(describe(given.file)), sys.stdout.encoding))
        if given.samples > 0:
            print(f"\npicture: {draw(given.file, given.samples, given.output)}")
    except (StoreError, WriteError) as error:
        print(f"Error: {plain(str(error))}", file=sys.stderr)
        return 1
    return 0


def draw(path: Path, n_samples: int, output: Path | None = None) -> Path:
    """Draw the first samples of a file and return the path of the picture."""
    with DatasetFile(path) as file:
        chosen = slice(0, min(n_samples, file.n_samples))
        title = f"{file.spec.name}, {file.split}: {file.spec.equation}"
        figure = field_figures.data_figure(file.read_states(chosen), file.read_static(chosen), file.spec, title=title)
        output = output or Path(f"{file.spec.name}-{file.split}.png")
    figures.save(figure, output)
    return output
