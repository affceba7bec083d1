"""From benchmarks/results: docs/performance.md with its pictures, and the tables of docs/findings.md.

python -m benchmarks.report
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from benchmarks.timing import RESULTS
from neuralop_bench.layers.spectral_conv import is_faster_as_product

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

`python -m benchmarks.report` makes this page from `benchmarks/results`. Each machine that ran `make bench` has a file
there with all figures, versions and commits. Alternatives are measured in one process and take turns. Ratios are those
of their medians; they carry over to other machines better than seconds do. The column "target" is what we aim for, and
figures that miss it are **bold**.
"""
STEPS = """\
How many times as fast a training step (forward, backward and AdamW in float32) is as another implementation of the same
network (`benchmarks/references`, and neuralop 2.0.0). `run.py` keeps the memory that it frees, which other programs
mostly don't. The column "kept" has this setting for both sides, and "not kept" the C library's default for both. AdamW
is torch's fused version, except for neuralop and the plain FNO, whose complex parameters it doesn't accept. The column
"memory" is the memory of our step relative to the other's, each in its own process. The last column is the share of the
rate of a large matrix product, measured in the same turns.
"""
TRANSFORMS = """\
A spectral layer with 32 channels, forward and backward: transforms as matrix products with the kept modes, or as FFTs.
Bold: `is_faster_as_product` chose the slower one.
"""
DATA = """\
On one core. Ratios compare medians of alternating runs. Figures of whole datasets (processes, lite data, peak memory)
come from `python -m benchmarks.datagen workers lite lite_flows memory`, the others from `make bench`.

Compared with exponax, our steps are faster where FFTs dominate. In 1D they are mostly slower: half of the time or more
goes into pointwise operations, which JAX's compiler fuses. For the linear equations, most of our time goes into
diagnostics and copies.
"""
DATA_GROWTH = {"points per axis of the solver": "seconds_per_sample_by_resolution", "samples": "seconds_by_samples"}
GROWTH = """\
Exponents of power laws through the last two points of each line. Twice the points per axis means four times the points.
"""


def page() -> str:
    """All machines, one after the other."""
    parts = [HEADER]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        machine = max((section["machine"] for section in found.values()), key=lambda entry: entry["date_utc"])
        gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
        parts.append(
            f"## {machine['processor']}, {machine['cores']} cores\n\n{gpu}torch {machine['torch']}, {path.name}.\n"
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
    rows: list[Row] = [
        ("network", "compared with", "kept", "not kept", "target", "memory (target .8)", "share of product")
    ]
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
    rows: list[Row] = [("points", "modes kept per axis", "speed-up by products", "chosen")]
    for entry in found["transforms"]["rows"]:
        space, gain = entry["space"], entry["gain_of_product"]
        chosen = is_faster_as_product(space, (entry["n_modes"],) * len(space))
        text = f"{gain:.2f}" if (gain >= 1) == chosen else f"**{gain:.2f}**"
        name = "products" if chosen else "fast transforms"
        rows.append((" x ".join(map(str, space)), str(entry["n_modes"]), text, name))
    yield from ("### Products or fast transforms\n", TRANSFORMS, _table(rows))


def _around(found: dict[str, Any], _: str) -> Iterator[str]:
    rows: list[Row] = [("what", "figure", "target")]
    if entry := found.get("reading"):
        for workers, share in entry["share"].items():
            text = f"reading random windows of a file that isn't cached, relative to `numpy.fromfile`, {workers}"
            rows.append((text, _judged(share, entry["asked"]), f"{entry['asked']:g}"))
    if entry := found.get("memory of lazy data"):
        small, large = entry["megabytes of data"].values()
        for name, line in entry["peak megabytes"].items():
            text = f"peak memory of training on {large:.0f} MB of data, relative to {small:.0f} MB, {name}"
            asked = None if name == "held in memory" else entry["asked"]
            rows.append(
                (
                    text,
                    _judged(line["growth"], asked, at_most=True, digits=3),
                    "" if asked is None else f"at most {asked:g}",
                )
            )
    if entry := found.get("waiting for data"):
        for name, line in entry["of a step"].items():
            asked = entry["asked"] if name.startswith("0 workers") else None
            text = f"share of a lite FNO's step spent waiting for a batch of 2 GiB of lazy data, {name}"
            rows.append(
                (
                    text,
                    _judged(line["share"], asked, at_most=True, digits=3),
                    "" if asked is None else f"at most {asked:g}",
                )
            )
    if entry := found.get("metrics"):
        share = entry["share_of_a_prediction"]
        rows.append(
            (
                "time of all standard metrics of a trajectory, relative to its prediction by the lite FNO",
                _judged(share, entry["asked"], at_most=True),
                f"at most {entry['asked']:g}",
            )
        )
    if entry := found.get("sweeps"):
        for launcher, seconds in entry["beside_the_run"].items():
            text = f"seconds that a job of a sweep adds to its run, {launcher} launcher"
            rows.append((text, _judged(seconds, 1, at_most=True), "below 1"))
        for what, seconds in entry["skipped"].items():
            text = f"seconds to skip {entry['n_skipped']} finished runs, including the import of torch, {what}"
            rows.append((text, _judged(seconds, 20, at_most=True, digits=1), "below 20"))
    for what, line in found.get("boards", {}).get("boards", {}).items():
        asked = line["asked_seconds"]
        rows.append(
            (
                f"seconds to make a board of {what}",
                _judged(line["seconds"], asked, at_most=True, digits=1),
                f"below {asked:g}",
            )
        )
        memory = _judged(line["peak_mib"], line["asked_mib"], at_most=True, digits=0)
        rows.append((f"peak memory to make a board, MiB, {what}", memory, f"below {line['asked_mib']}"))
    if len(rows) > 1:
        yield from ("### Reading, measuring, sweeps and boards\n", _table(rows))


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
        f"![Time and memory of a step against what is varied](images/{picture('steps', machine).name})\n",
    )


def _data(found: dict[str, Any], machine: str) -> Iterator[str]:
    rows: list[Row] = [("what", "figure", "target")]

    def row(what: str, value: float, asked: float | None, form: str, *, at_most: bool = False) -> None:
        text = form.format(value)
        missed = asked is not None and (value > asked if at_most else value < asked)
        limit = "" if asked is None else ("at most " if at_most else "") + form.format(asked)
        rows.append((what, f"**{text}**" if missed else text, limit))

    if entry := found.get("data, navier_stokes"):
        for kind, key, asked in (
            ("as released, float32", "released_float32", 150),
            ("as released, float64", "released_float64", 300),
            ("with real transforms, float32", "real_float32", None),
            ("with real transforms, float64", "real_float64", None),
        ):
            what = f"ns2d to T = 50, speed-up over the original scheme, {kind}"
            row(what, entry[f"ratio_{key}"], asked, "{:.0f}x")
        what = "largest error of our ns2d data (half the step, twice the resolution)"
        row(what, entry["our_error"], 1e-7, "{:.1e}", at_most=True)
    if entry := found.get("data, burgers"):
        for name in ("nu=0.1", "nu=0.01"):
            row(f"burgers1d, {name}, speed-up over dt = 1e-4", entry[name]["ratio"], 1500, "{:.0f}x")
            row(
                f"burgers1d, {name}, largest error of our data (Cole-Hopf)",
                entry[name]["largest_error"],
                1e-6,
                "{:.1e}",
                at_most=True,
            )
    if entry := found.get("data, darcy"):
        row("darcy2d, two phases, speed-up over spsolve", entry["two_phase_12_3"]["ratio_spsolve"], 10, "{:.1f}x")
        row("darcy2d, smooth, contrast 1e6, speed-up over splu", entry["smooth_1e6"]["ratio_splu"], 1.5, "{:.1f}x")
    if entry := found.get("data, steps"):
        for name, asked in (("64x64, batch 16", 1.5), ("128x128, batch 4", 2), ("256x256, batch 4", 2)):
            row(f"a step, speed-up over exponax, {name}", entry[name]["ratio_exponax"], asked, "{:.2f}x")
        ratio = entry["256x256, batch 4"]["ratio_transforms"]
        row("a step at 256x256, relative to its transforms", ratio, 1.6, "{:.2f}", at_most=True)
    if entry := found.get("data, equations"):
        for name, one in entry.items():
            if isinstance(one, dict) and "ratio_exponax" in one:
                row(f"a step of {name}, speed-up over exponax", one["ratio_exponax"], 1, "{:.2f}x")
        row("a step of these equations on average, speed-up over exponax", entry["mean_ratio"], 1.5, "{:.2f}x")
    if entry := found.get("data, finite_volumes"):
        for stages in ("2 stages", "3 stages"):
            what = f"a step of euler2d at 128x128, {stages}, relative to the same fluxes in bare NumPy"
            row(what, entry[stages]["ratio_numpy"], 1.5, "{:.2f}", at_most=True)
    if entry := found.get("data, workers"):
        row("speed-up by 2 processes instead of 1", entry["ratio"], 1.8, "{:.2f}x")
    if entry := found.get("data, lite"):
        row(
            "lite data of ns2d, darcy2d and burgers1d with 2 processes",
            entry["seconds_together"],
            180,
            "{:.0f} s",
            at_most=True,
        )
    if entry := found.get("data, lite_flows"):
        what = f"lite data of {len(entry['seconds'])} datasets with shocks, walls or obstacles, or in 3D, 2 processes"
        row(what, entry["seconds_together"], 480, "{:.0f} s", at_most=True)
    if entry := found.get("data, memory"):
        what = f"peak memory of {len(entry['tasks'])} full datasets with 2 workers"
        row(what, entry["peak_gib"], 2, "{:.2f} GiB", at_most=True)
    if len(rows) > 1:
        yield from ("### Making data\n", DATA, _table(rows))
    if entry := found.get("data, growth"):
        exponents: list[Row] = [("varied", "dataset", "exponent of time")]
        for varied, key in DATA_GROWTH.items():
            for i, (name, line) in enumerate(entry[key].items()):
                (n, before), (m, after) = [(int(value), seconds) for value, seconds in line.items()][-2:]
                exponent = math.log(after / before) / math.log(m / n)
                exponents.append((varied if i == 0 else "", name, f"{exponent:.2f}"))
        yield _table(exponents)
        yield f"![Time of making data against resolution and samples](images/{picture('data', machine).name})\n"


# Pictures ------------------------------------------------------------------------------------------------------------


def picture(what: str, machine: str) -> Path:
    """Where the growth of steps or of data on a machine is drawn."""
    return DOCS / "images" / f"growth-of-{what}-{machine}.png"


def draw() -> None:
    """The pictures of all machines that have something to show."""
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        if "growth of steps" in found:
            lines = found["growth of steps"]["lines"]
            panels = [
                (quantity, varied, {name: line[key] for name, line in networks.items()})
                for quantity, key in (("ms per step", "milliseconds"), ("10^6 bytes", "megabytes"))
                for varied, networks in lines.items()
            ]
            _draw(panels, picture("steps", path.stem))
        if entry := found.get("data, growth"):
            panels = [
                (key.partition("_by_")[0].replace("_", " "), varied, entry[key]) for varied, key in DATA_GROWTH.items()
            ]
            _draw(panels, picture("data", path.stem))


def _draw(panels: list[tuple[str, str, dict[str, dict[str, float]]]], path: Path) -> None:
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns, 3.6 * n_rows), layout="constrained")
    for i, (quantity, varied, lines) in enumerate(panels):
        axis = figure.add_subplot(n_rows, n_columns, i + 1)
        for (name, line), style in zip(lines.items(), ("-o", "--s", ":^", "-.v", "-D", "--x"), strict=False):
            axis.loglog([int(n) for n in line], list(line.values()), style, label=name)
        values = sorted({int(n) for line in lines.values() for n in line})
        axis.set(xlabel=varied, ylabel=quantity)
        axis.set_xticks(values if len(values) < 6 else values[::3], minor=False)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(visible=True, which="major", color="0.9")
        axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
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
                epoch = seconds.get(way.removesuffix(", all epochs"))
                spread = f" ± {statistics.stdev(errors):.5f}" if len(errors) > 1 else ""
                rows.append(
                    (
                        dataset if i == 0 else "",
                        way,
                        str(entry["epochs"]),
                        f"{entry['rate']:g}",
                        f"{statistics.mean(errors):.5f}{spread}",
                        str(len(errors)),
                        "" if epoch is None else f"{entry['epochs'] * epoch:.0f}",
                    )
                )
    return _table(rows)


def soap() -> str:
    """The other models with SOAP, dataset by dataset (benchmarks/training.py)."""
    rows: list[Row] = [("dataset", "model", "epochs", "rate", "AdamW", "SOAP", "ratio", "time of an epoch")]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        for name in [section for section in found if section.startswith("SOAP, ")]:
            for i, (model, entry) in enumerate(found[name]["models"].items()):
                rows.append(
                    (
                        name.removeprefix("SOAP, ") if i == 0 else "",
                        f"`{model}`",
                        str(entry["epochs"]),
                        f"{entry['rate']:g}",
                        f"{entry['AdamW']:.4f}",
                        f"{entry['SOAP']:.4f}",
                        f"{entry['SOAP'] / entry['AdamW']:.2f}",
                        f"{entry['times_as_long']:.1f}x",
                    )
                )
    return _table(rows)


def with_tables(text: str) -> str:
    """The page of findings with its tables made anew.

    Raises:
        ValueError: the page has no place for one.
    """
    for name, table in (("ways of training", training()), ("SOAP for the other models", soap())):
        place = re.compile(rf"(?<=<!-- {name}: made by benchmarks/report.py -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)
        if not place.search(text):
            raise ValueError(f"docs/findings.md has no place for {name!r}: the two comments around it are missing.")
        text = place.sub(lambda _, table=table: table, text)
    return text


def main() -> None:
    """Write both pages and draw."""
    draw()
    (DOCS / "performance.md").write_text(page().rstrip() + "\n")
    findings = DOCS / "findings.md"
    findings.write_text(with_tables(findings.read_text()))


if __name__ == "__main__":
    main()
