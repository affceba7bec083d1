"""How far the runs below a folder have come, and which command completes each.

python -m neuralop_bench.status outputs
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from neuralop_bench.record import RECORD_NAME
from neuralop_bench.run_directory import CONFIG_NAME, SUPERSEDED, State, state

# What needs somebody's attention comes last, where a long list ends on the terminal.
_ORDER = ("finished", "running", "resumable", "diverged", "failed")


def states(outputs: Path) -> dict[Path, State]:
    """The state of every run directory below a folder, finished ones first."""
    folders = {
        path.parent
        for name in (CONFIG_NAME, RECORD_NAME)
        for path in outputs.rglob(name)
        if SUPERSEDED not in path.parts
    }
    found = {folder: state(folder) for folder in sorted(folders)}
    return dict(sorted(found.items(), key=lambda entry: _ORDER.index(entry[1].progress)))


def report(outputs: Path) -> str:
    """One line per run, with the reason, and the command for what isn't finished; then a count."""
    found = states(outputs)
    if not found:
        return f"No run lies below {outputs}."
    lines = []
    for folder, where in found.items():
        lines.append(f"{where.progress:<10} {folder.relative_to(outputs)}  {where.reason}")
        if where.command:
            lines.append(f"{'':<10} -> {where.command}")
    counts = Counter(where.progress for where in found.values())
    lines.append(f"{len(found)} runs: " + ", ".join(f"{counts[name]} {name}" for name in _ORDER if counts[name]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 0 if every run is finished or running, 3 if some need a command."""
    parser = argparse.ArgumentParser(
        prog="python -m neuralop_bench.status", description="Tell how far runs have come, and what completes them."
    )
    parser.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"), help="folder of runs (outputs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per run instead")
    options = parser.parse_args(arguments)
    if not options.outputs.is_dir():
        print(f"Error: no folder {options.outputs}.", file=sys.stderr)
        return 1
    if options.json:
        for folder, where in states(options.outputs).items():
            print(json.dumps({"run": str(folder), **where.__dict__}))
    else:
        print(report(options.outputs))
    return 0 if all(where.command == "" for where in states(options.outputs).values()) else 3


if __name__ == "__main__":
    raise SystemExit(main())
