"""The command line of ``scripts/import_data.py``.

python scripts/import_data.py neuralop train=darcy_train_16.pt:900 valid=darcy_train_16.pt test=darcy_test_16.pt \\
    --name darcy16
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_gen.files import WriteError
from data_gen.importing.contents import Given, ImportedFileError
from data_gen.importing.convert import About, ImportedSplit, Part, existing_splits, import_data
from data_gen.importing.formats import FORMATS
from data_gen.progress import plain, printable
from data_gen.spec import Scalar
from data_gen.store import StoreError

_EXAMPLES = """\
examples:
  # neuraloperator's Darcy files; the last 100 training samples become valid
  import_data.py neuralop train=darcy_train_16.pt:900 valid=darcy_train_16.pt test=darcy_test_16.pt --name darcy16

  # a MATLAB file of the FNO paper, divided into three splits
  import_data.py mat train=burgers_data_R10.mat:1000 valid=burgers_data_R10.mat:100 test=burgers_data_R10.mat:200 \\
      --name burgers --parameter viscosity=0.1

  # PDEBench; values at cell centres of a channel with walls
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
            dict(options.axes),
        )
        written, warnings = import_data(
            options.format,
            [Part.parse(text) for text in options.splits],
            about,
            out,
            given,
            shuffle_seed=options.shuffle_seed,
            drop=options.drop,
            replace_existing=options.force,
        )
    except (ImportedFileError, StoreError, WriteError) as error:
        print(f"Error: {plain(str(error))}", file=sys.stderr)
        return 1
    except MemoryError:
        print("Error: there isn't enough memory. Import fewer samples at a time (FILE:COUNT).", file=sys.stderr)
        return 1
    _tell(written, warnings, out)
    return 0


def _tell(written: Mapping[str, ImportedSplit], warnings: Sequence[str], out: Path) -> None:
    spec = next(iter(written.values())).spec
    grid = spec.grid
    for split, entry in written.items():
        _print(f"{split:<8} {entry.n_samples} samples -> {entry.path}")
    given = f" from {', '.join(f.name for f in spec.static)}" if spec.static else ""
    _print(f"fields   {', '.join(f.name for f in spec.state)}{given}")
    for name, n, length, boundary, nodes in zip(
        grid.axis_names, grid.shape, grid.lengths, grid.boundary, grid.nodes, strict=True
    ):
        _print(f"axis {name}   {n} points, length {length:g}, boundary {boundary}, nodes {nodes}")
    if not spec.is_steady:
        _print(f"times    {spec.n_snapshots} from {spec.times[0]:g} to {spec.times[-1]:g}")
    for note in dict.fromkeys(note for entry in written.values() for note in entry.notes):
        _print(f"Note: {note}")
    for warning in warnings:
        _print(f"Warning: {warning}")
    missing = [split for split in ("train", "valid", "test") if split not in existing_splits(out)]
    if missing:
        _print(f"A run needs {' and '.join(missing)} as well: import into the same --out with {missing[0]}=FILE.")
    else:
        _print(f"Run: python run.py dataset=file {_override('dataset.path', out)} model=fno track=smoke")


def _print(text: str) -> None:
    """Print words that may come from a file of others."""
    print(printable(plain(text), sys.stdout.encoding))


def _override(key: str, path: Path) -> str:
    """An override that can be pasted: quoted for Hydra and for the shell.

    >>> print(_override("dataset.path", Path("my data")))
    'dataset.path="my data"'
    """
    text = str(path)
    if not re.fullmatch(r"[\w./=-]+", text, re.ASCII):
        # In Hydra's grammar a backslash stands for itself, unless it comes before a quote.
        text = '"' + re.sub(r'(\\*)(["]|$)', lambda m: 2 * m[1] + (f"\\{m[2]}" if m[2] else ""), text) + '"'
    return shlex.quote(f"{key}={text}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="import_data.py",
        description="Convert files in other formats to a dataset for dataset=file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("format", choices=list(FORMATS), help="of the files")
    parser.add_argument(
        "splits",
        nargs="+",
        metavar="SPLIT=FILE[:COUNT]",
        help="train, valid, test or test_<name>, and its file; COUNT takes the next so many samples that no earlier "
        "split has taken",
    )
    parser.add_argument("--name", required=True, help="of the dataset")
    parser.add_argument("--out", type=Path, help="folder of the dataset (imported/<name>)")
    parser.add_argument("--state", type=_names, metavar="A,B", help="names of the fields to predict, or which of them")
    parser.add_argument("--static", type=_names, metavar="A,B", help="the same for fields that don't change in time")
    parser.add_argument(
        "--axes",
        type=_axes,
        action="append",
        default=[],
        metavar="ARRAY=AXIS,AXIS,...",
        help="of an array x or y of a neuralop or npz file: sample, then time and channel if it has them, then x, y, "
        "z; may be repeated (guessed from the shapes)",
    )
    parser.add_argument("--lengths", type=_numbers, metavar="L[,L]", help="of the domain (from the file, or 1)")
    parser.add_argument("--boundary", type=_names, metavar="B[,B]", help="periodic, dirichlet, neumann or open")
    parser.add_argument("--nodes", type=_names, metavar="N[,N]", help="periodic, closed (both ends) or centres")
    parser.add_argument("--times", type=_numbers, metavar="T,T,...", help="of the snapshots")
    parser.add_argument("--interval", type=float, metavar="DT", help="between snapshots, instead of --times")
    parser.add_argument("--equation", default="", help="the PDE, as text")
    parser.add_argument("--reference", default="", help="where the data come from (paper, address)")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    parser.add_argument("--shuffle-seed", type=_seed, metavar="N", help="take samples in random order (the file's)")
    parser.add_argument(
        "--drop",
        type=_dropped,
        default=(),
        metavar="N,N,...",
        help="leave out the samples with these numbers in the file, counted from 0; nan stands for those with values "
        "that aren't finite",
    )
    parser.add_argument("--force", action="store_true", help="replace existing splits")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",")) if text else ()


def _axes(text: str) -> tuple[str, tuple[str, ...]]:
    array, equals, axes = text.partition("=")
    if not equals:
        raise ValueError(f"{text} isn't ARRAY=AXIS,AXIS,...")
    return array, _names(axes)


def _dropped(text: str) -> tuple[int | str, ...]:
    return tuple(entry if entry == "nan" else int(entry) for entry in _names(text))


def _seed(text: str) -> int:
    if int(text) < 0:
        raise ValueError(f"{text} is negative")
    return int(text)


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
            raise ImportedFileError(f"--parameter {entry!r} isn't NAME=VALUE.")
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
