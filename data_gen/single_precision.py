"""What single precision, in which files hold fields, keeps of a field's values."""

from __future__ import annotations

import math

import numpy as np

_LIMITS = np.finfo(np.float32)
# Digits are lost below the smallest normal number; sums and products need some room above the largest.
SMALLEST, LARGEST = 10 * float(_LIMITS.tiny), 0.1 * float(_LIMITS.max)
# Numbers near a mean m are m * 1.2e-7 apart. A field that varies by less than so many of these steps is mostly noise.
_STEPS = 100


def remark(name: str, mean: float, deviation: float) -> str:
    """What is lost of a field with this mean and standard deviation; an empty string if nothing is.

    To judge data in double precision, take their statistics before they are converted.

    >>> remark("pressure", 101325.0, 1e-3)  # doctest: +ELLIPSIS
    'pressure varies by only 0.001 around 101325, but single precision holds steps of 0.01 there: ...'
    """
    size = math.hypot(mean, deviation)
    if not size < LARGEST or 0 < size < SMALLEST:
        return (
            f"{name} has a size of {size:.3g}, but single precision holds about {_LIMITS.tiny:.1g} to "
            f"{_LIMITS.max:.1g}. Give the field in other units before the import."
        )
    if deviation == 0:
        text = f"{name} never varies: it is {mean:g} everywhere, so models learn nothing about it."
        if mean:
            text += " If it should vary, single precision has lost that: subtract the mean before the import."
        return text
    step = float(_LIMITS.eps) * abs(mean)
    if deviation < _STEPS * step:
        return (
            f"{name} varies by only {deviation:.3g} around {mean:.6g}, but single precision holds steps of {step:.1g} "
            "there: most of what varies is lost or rounded. Subtract the mean before the import."
        )
    return ""
