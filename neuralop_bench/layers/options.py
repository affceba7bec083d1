"""Checks of the options that models and layers are given: one message for one mistake.

Names are those of the configuration: ``width`` is ``model.width`` there. The messages begin with who asks, e.g. "FNO".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from data_gen.grids import AXIS_NAMES, Grid

_T = TypeVar("_T")


class Inapplicable(ValueError):
    """A model can't be used for these data, whatever its options are. A sweep leaves such a job out."""


class DoesNotFit(ValueError):
    """An option is larger than the grid or the number of training pairs allows.

    On imported data, a default that is refused in this way is replaced by ``fitting`` (``config.compose``). So a model
    that raises this error needs nothing else to run on any grid.

    Args:
        message: what doesn't fit, why, and which option to change.
        fitting: for each option, by its name below ``model``, the largest value that fits.
    """

    def __init__(self, message: str, **fitting: Any) -> None:
        super().__init__(message)
        self.fitting = fitting


def require_at_least(least: int, who: str, **sizes: int) -> None:
    """Check sizes, given by name.

    Raises:
        ValueError: one of them is below ``least``.

    >>> require_at_least(1, "FNO", width=32, n_layers=0)
    Traceback (most recent call last):
    ValueError: FNO needs model.n_layers to be at least 1, got 0.
    """
    for name, value in sizes.items():
        if value < least:
            raise ValueError(f"{who} needs model.{name} to be at least {least}, got {value}.")


def require_known(who: str, name: str, value: str, known: Collection[str]) -> None:
    """Check an option that takes one of a few words.

    Raises:
        ValueError: ``value`` isn't among ``known``.
    """
    if value not in known:
        raise ValueError(f"{who} needs model.{name} to be one of {', '.join(known)}, got {value!r}.")


def choose(who: str, name: str, value: str, table: Mapping[str, _T]) -> _T:
    """The entry of a table that an option names.

    Raises:
        ValueError: the table has no such entry.

    >>> choose("FNO", "activation", "sine", {"gelu": 1, "relu": 2})
    Traceback (most recent call last):
    ValueError: FNO needs model.activation to be one of gelu, relu, got 'sine'.
    """
    require_known(who, name, value, table)
    return table[value]


def require_bundle(n_steps: int, out_channels: int, grid: Grid) -> None:
    """Check what a model that treats time as one more axis is given.

    Raises:
        Inapplicable: fewer than two steps; a grid of three axes.
        ValueError: ``out_channels`` isn't a multiple of ``n_steps``.
    """
    if n_steps < 2:
        raise Inapplicable(
            f"A space-time model predicts a bundle of steps at once and needs at least 2, got n_steps={n_steps}. "
            "Raise surrogate.bundle, e.g. to dataset.horizon, and trainer.unroll with it. Data with a single step need "
            "another model."
        )
    if out_channels % n_steps:
        raise ValueError(
            f"A bundle of n_steps={n_steps} has a multiple of {n_steps} channels, but out_channels is "
            f"{out_channels}. Set model.n_steps to the value of surrogate.bundle."
        )
    if grid.n_dims == len(AXIS_NAMES):
        raise Inapplicable(
            f"A space-time model adds a time axis to at most {len(AXIS_NAMES) - 1} space axes, but the grid has "
            f"{grid.n_dims}. Predict step by step: choose another model and surrogate.bundle=1."
        )


def one_for_each(value: int | Sequence[int], n: int) -> tuple[int, ...]:
    """An option that is one number for all of n axes or levels, or one number for each.

    >>> one_for_each(12, 2), one_for_each([12, 8], 2)
    ((12, 12), (12, 8))
    """
    return (value,) * n if isinstance(value, int) else tuple(value)


def one_if_equal(values: Sequence[int]) -> int | list[int]:
    """The inverse of ``one_for_each``: one number if all are equal, otherwise a list.

    >>> one_if_equal((8, 8)), one_if_equal((8, 6))
    (8, [8, 6])
    """
    return values[0] if len(set(values)) == 1 else list(values)
