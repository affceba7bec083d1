"""From benchmarks/results: docs/performance.md with its pictures, and the tables of docs/findings.md.

python benchmarks/report.py
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from timing import RESULTS

from neuralop_bench.layers.spectral_conv import is_faster_as_product

_PLACE = re.compile(r"(?<=<!-- ways of training: made by benchmarks/report.py -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)
DOCS = Path(__file__).parents[1] / "docs"
Row = tuple[str, ...]
LABELS = {
    "neuralop": "neuralop's FNO, equal one to one",
    "neuralop_compiled": "the same, compiled",
    "neuralop_defaults": "neuralop's defaults",
    "plain": "plain form",
    "softmax": "softmax attention",
}
HEADER = """# Performance

Made by `make bench` (benchmarks/report.py) from benchmarks/results, where each machine that it ran on has a file with
all figures, versions and commits. Alternatives are measured side by side in one process and take turns; ratios are
those of their medians, and the only figures here that carry over to another machine. What misses what we ask for is
**bold**.
"""
STEPS = """Forward, backward and AdamW in float32: how many times as fast as another implementation of the same network
(benchmarks/references.py, and neuralop 2.0.0). `run.py` keeps the memory that it frees, other programs mostly don't:
the first figure is with that setting for both sides, the second with the C library's own for both. Memory is that of
our step as a part of the other's. The last column is the share of the rate of a large matrix product in the same turns.
"""
TRANSFORMS = """A layer of an FNO with 32 channels, forward and backward, by products with the kept modes and by fast
transforms. Bold where `is_faster_as_product` chooses the slower.
"""
GROWTH = """Exponents of power laws through the last two points of each line. Twice the points per axis are four times
the points.
"""


def page() -> str:
    """All machines, one after the other."""
    parts = [HEADER]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        machine = max((section["machine"] for section in found.values()), key=lambda entry: entry["date_utc"])
        gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
        parts.append(
            f"## {machine['processor']}, {machine['cores']} cores\n\n"
            f"{gpu}torch {machine['torch']}, {machine['threads']} threads unless said otherwise, {path.name}.\n"
        )
        parts += [
            text for section in (_steps, _transforms, _around, _growth, _data) for text in section(found, path.stem)
        ]
    return "\n".join(parts)


def _table(rows: Iterable[Row]) -> str:
    head, *body = rows
    lines = [head, ("---", *("---:" for _ in head[1:])), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"


def _judged(value: float, asked: float | None, *, at_most: bool = False, digits: int = 2) -> str:
    text = f"{value:.{digits}f}"
    missed = asked is not None and (value > asked if at_most else value < asked)
    return f"**{text}**" if missed else text


def _steps(found: dict[str, Any], _: str) -> Iterator[str]:
    kept, default, memory = (
        found.get(name, {}).get("cases", {}) for name in ("steps, freed memory kept", "steps", "memory")
    )
    if not kept:
        return
    rows: list[Row] = [("network", "beside", "kept", "not kept", "asked", "memory (asked .8)", "of the product's rate")]
    for case, entry in kept.items():
        for i, (other, gain) in enumerate(entry["times_as_fast"].items()):
            asked = entry["asked"].get(other)
            usual = default.get(case, {}).get("times_as_fast", {}).get(other)
            share = memory.get(case, {}).get("share", {}).get(other)
            rows.append(
                (
                    case if i == 0 else "",
                    LABELS[other],
                    _judged(gain, asked),
                    "" if usual is None else _judged(usual, asked),
                    "" if asked is None else f"{asked:g}",
                    "" if share is None else _judged(share, 0.8 if other == "plain" else None, at_most=True),
                    f"{entry['share_of_matrix_product_rate']:.2f}" if i == 0 else "",
                )
            )
    yield from ("### Training steps\n", STEPS, _table(rows))


def _transforms(found: dict[str, Any], _: str) -> Iterator[str]:
    if "transforms" not in found:
        return
    rows: list[Row] = [("points", "modes kept per axis", "products are times as fast", "chosen")]
    for entry in found["transforms"]["rows"]:
        space, gain = entry["space"], entry["gain_of_product"]
        chosen = is_faster_as_product(space, (entry["n_modes"],) * len(space))
        text = f"{gain:.2f}" if (gain >= 1) == chosen else f"**{gain:.2f}**"
        name = "products" if chosen else "fast transforms"
        rows.append((" x ".join(map(str, space)), str(entry["n_modes"]), text, name))
    yield from ("### Products or fast transforms\n", TRANSFORMS, _table(rows))


def _around(found: dict[str, Any], _: str) -> Iterator[str]:
    rows: list[Row] = [("what", "figure", "asked")]
    if entry := found.get("reading"):
        best = max(entry["share"].values())
        rows.append(
            (
                "random windows from a file that isn't in the page cache, beside `numpy.fromfile`",
                _judged(best, entry["asked"]),
                f"{entry['asked']:g}",
            )
        )
    if entry := found.get("metrics"):
        share = entry["share_of_a_prediction"]
        rows.append(
            (
                "all standard metrics of a trajectory, in units of predicting it by the lite FNO",
                _judged(share, entry["asked"], at_most=True),
                f"at most {entry['asked']:g}",
            )
        )
    if len(rows) > 1:
        yield from ("### Reading and measuring\n", _table(rows))


def _growth(found: dict[str, Any], machine: str) -> Iterator[str]:
    if "growth of steps" not in found:
        return
    lines = found["growth of steps"]["lines"]
    rows: list[Row] = [("varied", "network", "exponent of time", "exponent of memory")]
    for varied, networks in lines.items():
        for i, (name, entry) in enumerate(networks.items()):
            exponents = entry["exponents"]
            rows.append((varied if i == 0 else "", name, f"{exponents['time']:.2f}", f"{exponents['memory']:.2f}"))
    yield from (
        "### Growth of a training step\n",
        GROWTH,
        _table(rows),
        f"![Time and memory of a step against what is varied](images/{picture(machine).name})\n",
    )


def _data(found: dict[str, Any], _: str) -> Iterator[str]:
    rows: list[Row] = [("what", "figure", "asked")]
    if entry := found.get("data, navier_stokes"):
        rows += [
            (f"ns2d to T = 50 against the original scheme, {kind}", f"{entry[f'ratio_{key}']:.0f}x", asked)
            for kind, key, asked in (
                ("as released, float32", "released_float32", "150x"),
                ("as released, float64", "released_float64", "300x"),
                ("with real transforms, float32", "real_float32", ""),
                ("with real transforms, float64", "real_float64", ""),
            )
        ]
        rows.append(("its largest error (half the step, twice the resolution)", f"{entry['our_error']:.1e}", "1e-7"))
    if entry := found.get("data, burgers"):
        for name in ("nu=0.1", "nu=0.01"):
            rows.append((f"burgers1d, {name}, against dt = 1e-4", f"{entry[name]['ratio']:.0f}x", "1500x"))
            rows.append(("its largest error (Cole-Hopf)", f"{entry[name]['largest_error']:.1e}", "1e-6"))
    if entry := found.get("data, darcy"):
        rows.append(("darcy2d 12/3 against spsolve", f"{entry['two_phase_12_3']['ratio_spsolve']:.1f}x", "10x"))
        rows.append(("darcy2d smooth 1e6 against splu", f"{entry['smooth_1e6']['ratio_splu']:.1f}x", "1.5x"))
    if entry := found.get("data, steps"):
        for name, asked in (("64x64, batch 16", 1.5), ("128x128, batch 4", 2), ("256x256, batch 4", 2)):
            text = _judged(entry[name]["ratio_exponax"], asked)
            rows.append((f"a step against exponax, {name}", f"{text}x", f"{asked:g}x"))
        ratio = entry["256x256, batch 4"]["ratio_transforms"]
        rows.append(("a step at 256x256 in units of its transforms", f"{ratio:.2f}", "at most 1.6"))
    if entry := found.get("data, workers"):
        rows.append(("1 -> 2 processes", f"{_judged(entry['ratio'], 1.8)}x", "1.8x"))
    if entry := found.get("data, lite"):
        rows.append(("lite data of all three datasets, 2 processes", f"{entry['seconds_together']:.0f} s", "180 s"))
    if entry := found.get("data, memory"):
        rows.append(
            (f"peak memory of {len(entry['tasks'])} full datasets, 2 workers", f"{entry['peak_gib']:.2f} GiB", "2 GiB")
        )
    if len(rows) > 1:
        yield from ("### Making data\n", "Ratios are of medians measured side by side on one core.\n", _table(rows))


# Pictures ------------------------------------------------------------------------------------------------------------


def picture(machine: str) -> Path:
    """Where the growth of steps and of data on a machine is drawn."""
    return DOCS / "images" / f"growth-{machine}.png"


def draw() -> None:
    """The pictures of all machines that have something to show."""
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        if "growth of steps" in found:
            _draw({**found["growth of steps"]["lines"], **_of_data(found)}, picture(path.stem))


def _of_data(found: dict[str, Any]) -> dict[str, Any]:
    if "data, growth" not in found:
        return {}
    lines = found["data, growth"]["seconds_per_sample_by_resolution"]
    milliseconds = {
        name: {"milliseconds": {n: 1e3 * seconds for n, seconds in line.items()}} for name, line in lines.items()
    }
    return {"points per axis of the solver": milliseconds}


def _draw(panels: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(4.2 * len(panels), 6.6), layout="constrained")
    for column, (varied, lines) in enumerate(panels.items()):
        for row, (quantity, label) in enumerate(
            (("milliseconds", "time of a step, ms"), ("megabytes", "memory, 10^6 bytes"))
        ):
            if not any(quantity in line for line in lines.values()):
                continue
            axis = figure.add_subplot(2, len(panels), row * len(panels) + column + 1)
            for (name, line), style in zip(lines.items(), ("-o", "--s", ":^", "-.v", "-D", "--x"), strict=False):
                axis.loglog([int(n) for n in line[quantity]], list(line[quantity].values()), style, label=name)
            axis.set_xlabel(varied)
            axis.set_ylabel("time per sample, one core, ms" if "solver" in varied else label)
            axis.grid(visible=True, which="major", color="0.9")
            axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=80)


# Findings ------------------------------------------------------------------------------------------------------------


def training() -> str:
    """The ways of training of every dataset (benchmarks/training.py)."""
    rows: list[Row] = [("dataset", "way", "epochs", "rate", "relative L2 on valid", "seeds", "training, s")]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        for name in [section for section in found if section.startswith("training, ")]:
            dataset = name.removeprefix("training, ")
            seconds = found.get(f"seconds of an epoch, {dataset}", {}).get("ways", {})
            for i, (way, entry) in enumerate(found[name]["ways"].items()):
                errors = entry["valid_rel_l2"]
                spread = f" ± {statistics.stdev(errors):.4f}" if len(errors) > 1 else ""
                rows.append(
                    (
                        dataset if i == 0 else "",
                        way,
                        str(entry["epochs"]),
                        f"{entry['rate']:g}",
                        f"{statistics.mean(errors):.4f}{spread}",
                        str(len(errors)),
                        f"{entry['epochs'] * seconds[way]:.0f}" if way in seconds else "",
                    )
                )
    return _table(rows)


def with_table(text: str, table: str) -> str:
    """The page with its table made anew.

    Raises:
        ValueError: the page has no place for it.
    """
    if not _PLACE.search(text):
        raise ValueError("docs/findings.md has no place for the table: the two comments around it are missing.")
    return _PLACE.sub(lambda _: table, text)


def main() -> None:
    """Write both pages and draw."""
    draw()
    (DOCS / "performance.md").write_text(page().rstrip() + "\n")
    findings = DOCS / "findings.md"
    findings.write_text(with_table(findings.read_text(), training()))


if __name__ == "__main__":
    main()
