"""Scalar parameters that differ between samples or splits: a value per sample, or words in the metadata."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_gen.importing.contents import Contents
from data_gen.spec import FieldSpec, ParameterSpec


def settle(
    contents: Mapping[Path, Contents],
    main: Collection[Path],
    train: Collection[Path],
    wanted: Collection[str] | None,
    allowed: Callable[[str], bool],
    known: Collection[ParameterSpec] = (),
) -> dict[Path, Contents]:
    """Contents in which the parameters of train, valid and test agree.

    A parameter that differs between samples of train is kept as a value per sample, which models are given. One that is
    the same in all of train, but not in all of valid and test, can't be learnt: it is kept as the words "from ... to
    ...".

    Args:
        contents: of every file.
        main: files of train, valid and test. Further test sets keep their own parameters, unless they vary in train.
        train: those of train; empty if train was imported before.
        wanted: names of static fields and of parameters per sample, if they are known: chosen by the user, or those of
            splits imported before.
        allowed: whether a name can be that of an array in our files.
        known: parameters per sample of splits imported before.
    """
    result = dict(contents)
    for name in sorted({name for path in main for name in _numbers(contents[path])}):
        values = {path: _numbers(found)[name] for path, found in contents.items() if name in _numbers(found)}
        n_values = len(np.unique(np.concatenate([values[path] for path in main if path in values])))
        if not values.keys() >= set(main):
            change = _without(name, "some files lack it")
        elif n_values == 1 and name not in (wanted or ()):
            continue
        elif not allowed(name) or any(name == field.name for path in main for field in _fields(contents[path])):
            change = _in_words(name, values, main, "its name is taken")
        elif wanted is not None and name not in wanted:
            change = _in_words(name, values, main, "it isn't among those chosen (--static)")
        elif wanted is None and len(np.unique(np.concatenate([values[path] for path in train or main]))) == 1:
            change = _in_words(name, values, main, "it is the same in all of train, so no model could learn from it")
        else:
            every = np.concatenate([values[path] for path in main])
            own = ParameterSpec(name, _scale(every))
            change = _per_sample(next((entry for entry in known if entry.name == name), own), values)
        result = {path: change(path, found) for path, found in result.items()}
    return result


def _numbers(found: Contents) -> dict[str, NDArray[np.float64]]:
    """Parameters of a file by name, as a number for every sample, [n_samples] each; without those that describe its
    grid."""
    constant = {
        name: np.full(found.n_samples, float(value))
        for name, value in found.parameters.items()
        if not isinstance(value, str) and not name.startswith("origin_")
    }
    return {**constant, **found.scalars}


def _fields(found: Contents) -> tuple[FieldSpec, ...]:
    return (*found.state, *found.static)


_Change = Callable[[Path, Contents], Contents]


def _removed(found: Contents, name: str, note: str) -> Contents:
    scalars = {key: value for key, value in found.scalars.items() if key != name}
    parameters = {key: value for key, value in found.parameters.items() if key != name}
    return replace(found, scalars=scalars, parameters=parameters, notes=(*found.notes, note))


def _without(name: str, reason: str) -> _Change:
    return lambda _, found: _removed(found, name, f"{name} isn't stored: {reason}")


def _in_words(name: str, values: Mapping[Path, NDArray[np.float64]], main: Collection[Path], reason: str) -> _Change:
    every = np.concatenate([values[path] for path in main])
    words = f"from {every.min():g} to {every.max():g}"

    def change(path: Path, found: Contents) -> Contents:
        if path not in main:
            return found
        note = f"{name} differs between samples ({words}), but isn't an input of the models: {reason}"
        rest = _removed(found, name, note)
        return replace(rest, parameters={**rest.parameters, name: words})

    return change


def _per_sample(entry: ParameterSpec, values: Mapping[Path, NDArray[np.float64]]) -> _Change:
    note = f"{entry.name} differs between samples: it has a value per sample, which models are given (--static)"

    def change(path: Path, found: Contents) -> Contents:
        if path not in values:
            return found
        rest = _removed(found, entry.name, note)
        return replace(rest, varying=(*rest.varying, entry), scalars={**rest.scalars, entry.name: values[path]})

    return change


def _scale(values: NDArray[np.float64]) -> Literal["linear", "log"]:
    """Logarithmic for positive values over a decade or more."""
    return "log" if values.min() > 0 and values.max() >= 10 * values.min() else "linear"
