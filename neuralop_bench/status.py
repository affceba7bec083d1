"""Progress of the runs and sweeps below a folder, and the command that completes each.

python -m neuralop_bench.status outputs
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from neuralop_bench.records.record import RECORD_NAME
from neuralop_bench.records.run_directory import CONFIG_NAME, FAILURE_NAME, LAST_NAME, SUPERSEDED, State, state
from neuralop_bench.records.sweep_file import FOLDER, SweepFile, sweeps
from neuralop_bench.runtime.table import plain

# What needs attention comes last, where a long list ends on the terminal.
_ORDER = ("finished", "running", "resumable", "diverged", "failed")


def states(outputs: Path) -> dict[Path, State]:
    """The state of every run directory below a folder, finished ones first."""
    folders = set()
    # Unlike rglob, walk survives a folder that vanishes: a run with force=true may be moving an old one aside.
    for parent, below, files in os.walk(outputs):
        if SUPERSEDED in below:
            below.remove(SUPERSEDED)
        if not {CONFIG_NAME, RECORD_NAME, LAST_NAME, FAILURE_NAME}.isdisjoint(files):
            folders.add(Path(parent))
    found = {folder: state(folder) for folder in sorted(folders)}
    known = {folder: where for folder, where in found.items() if where.progress in _ORDER}
    return dict(sorted(known.items(), key=lambda entry: _ORDER.index(entry[1].progress)))


def report(outputs: Path, found: Mapping[Path, State]) -> str:
    """One line per run, with the reason, and the command for what isn't finished; then a count."""
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


def report_sweep(sweep: SweepFile, outputs: Path, found: Mapping[Path, State]) -> tuple[str, bool]:
    """The progress of a sweep with the command that completes it, and whether some of its runs haven't begun."""
    progress = {run: found[outputs / run].progress if outputs / run in found else "waiting" for run in sweep.runs}
    counts = Counter(progress.values())
    line = f"sweep {sweep.name} of {sweep.date_utc}: {len(sweep.runs)} runs: "
    line += ", ".join(f"{counts[name]} {name}" for name in (*_ORDER, "waiting") if counts[name])
    if set(progress.values()) <= {"finished", "diverged"}:
        return line, False
    waiting = [f"  waiting {run}" for run, name in progress.items() if name == "waiting"]
    return "\n".join([line, *waiting, f"  -> {sweep.command}"]), "waiting" in counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 0 if every run is finished or running, 3 if some need a command or a
    sweep has runs that haven't begun."""
    parser = argparse.ArgumentParser(
        prog="python -m neuralop_bench.status",
        description="Show the progress of runs, and the command that completes each.",
    )
    parser.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"), help="folder of runs (outputs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per run instead")
    options = parser.parse_args(arguments)
    if not options.outputs.is_dir():
        print(f"Error: no folder {options.outputs}.", file=sys.stderr)
        return 1
    found = states(options.outputs)
    if options.json:
        for folder, where in found.items():
            print(json.dumps({"run": str(folder), **where.__dict__}))
    else:
        print(plain(report(options.outputs, found)))
    is_waiting = False
    for sweep in sweeps(options.outputs):
        text, waits = report_sweep(sweep, options.outputs, found)
        is_waiting = is_waiting or waits
        if not options.json:
            print(plain(text))
    if is_waiting and not options.json:
        print(f"To forget a sweep, delete its file in {options.outputs / FOLDER}.")
    all_well = all(where.progress in ("finished", "running") for where in found.values())
    return 0 if all_well and not is_waiting else 3


if __name__ == "__main__":
    raise SystemExit(main())
