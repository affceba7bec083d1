"""Jobs handed to submitit: which ended badly, and when the others have ended."""

from __future__ import annotations

from pathlib import Path


def await_others(error: Exception) -> bool:
    return False


def reason(folder: Path, error: Exception) -> str:
    return str(error)
