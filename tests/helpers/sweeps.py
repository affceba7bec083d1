"""What a sweep prints."""

from __future__ import annotations


def table(text: str) -> dict[str, str]:
    """State of each job in the table of a sweep, whose long names are folded."""
    states: dict[str, str] = {}
    for line in text.partition("| job")[2].splitlines():
        job, state = (cell.strip() for cell in line.split("|")[1:3]) if line.startswith("| ") else ("", "")
        if state:
            states[job] = state
        elif job:
            name, state = states.popitem()
            states[f"{name} {job}"] = state
    return states
