"""How the C library hands memory out."""

from __future__ import annotations

import ctypes
import platform

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4


def keep_freed_memory() -> None:
    """Let the process keep the memory that it frees, for the next tensor of that size.

    By default glibc returns every block above a few hundred kilobytes to the system at once, and each new tensor costs
    page faults again: on 2 cores they take a third of an FNO's training step (65 ms against 43 ms). Elsewhere than on
    Linux with glibc this does nothing. Results don't depend on it.
    """
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20})


def hand_memory_back() -> None:
    """Let the process hand every block of more than 64 KiB back once it is freed, so that its resident memory is that
    of the tensors that there are: for measurements. ``keep_freed_memory`` ends it."""
    _set({_M_MMAP_MAX: 2**16, _M_MMAP_THRESHOLD: 2**16, _M_TRIM_THRESHOLD: 2**16})


def _set(parameters: dict[int, int]) -> None:
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for parameter, value in parameters.items():
        libc.mallopt(parameter, value)
