"""How a board writes numbers: in its tables, on its page and in its verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping

Cell = str | int | float | bool | None
Cells = Mapping[str, Cell]

# Marks intervals and ranks that rest on a single training.
SINGLE_SEED = "†"
# Marks errors that are relative to a lower bound in part, because some references vanish.
VANISHING = "‡"
# An adjusted p-value gets a star for each of these levels that it is below.
_STARS = (0.05, 0.01, 0.001)


def text(value: Cell) -> str:
    """Three significant digits; whole numbers from 1000 on; empty for a missing value."""
    if not isinstance(value, float | int) or isinstance(value, bool):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if math.isfinite(value) and (value >= 1000 or float(value).is_integer()) else f"{value:.3g}"


def with_deviation(cells: Cells) -> str:
    """The mean error ± the standard deviation over seeds."""
    deviation = cells["rel_l2_sd"]
    return text(cells["rel_l2_mean"]) + (f" ± {text(deviation)}" if deviation is not None else "")


def interval_text(cells: Cells) -> str:
    """Both ends of the interval, marked if it rests on one seed; empty if there is none."""
    low, high = cells["rel_l2_ci_lo"], cells["rel_l2_ci_hi"]
    if low is None:
        return ""
    return f"{text(low)}–{text(high)}" + (f" {SINGLE_SEED}" if cells["n_seeds"] == 1 else "")


def speedup_text(cells: Cells) -> str:
    """The speed-up over the solver, with < or > if only a bound is known, and with its spread if that was measured."""
    bound = f"{cells['speedup_is_bound']} " if cells["speedup_is_bound"] in ("<", ">") else ""
    low, high = cells["speedup_lowest"], cells["speedup_highest"]
    spread = "" if low is None else f" ({text(low)}–{text(high)})"
    return bound + text(cells["speedup_at_equal_error"]) + spread


def faster(cells: Cells) -> str:
    """Which is faster at the same error, and how many times; > (at least) or < (at most) if only a bound is known.

    >>> faster({"speedup_at_equal_error": 0.25, "speedup_is_bound": "<"})
    'solver, >4x'
    >>> faster({"speedup_at_equal_error": 2.0, "speedup_is_bound": "no"})
    'model, 2x'
    """
    speedup, bound = cells["speedup_at_equal_error"], cells["speedup_is_bound"]
    if not isinstance(speedup, float) or not speedup > 0:
        return ""
    who, factor, signs = ("model", speedup, "<>") if speedup >= 1 else ("solver", 1 / speedup, "><")
    sign = dict(zip("<>", signs, strict=True)).get(str(bound), "")
    return f"{who}, {sign}{text(float(f'{factor:.2g}'))}x"


def stars(p_value: float) -> str:
    """One star for each level of significance that an adjusted p-value reaches.

    >>> stars(0.2), stars(0.004)
    ('', '**')
    """
    return "*" * sum(p_value < level for level in _STARS)
