"""Write docs/metrics.md and docs/models.md from the docstrings of what configs/evaluator and configs/model name.

    python scripts/write_reference_pages.py

A metric's docstring is a summary, paragraphs, indented formulas, a paragraph ``Range:``, and a section ``Columns:``
with one entry for each column, or for several that share a description. Of a model's docstring the page shows the first
paragraph, the first formulas, and the paragraphs ``Cost:`` and ``Reference:``.
"""

from __future__ import annotations

import csv
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from neuralop_bench.config.compose import compose
from neuralop_bench.config.schema import seen
from neuralop_bench.metrics import cost, metric
from neuralop_bench.runs import parts, scoring
from neuralop_bench.runs.plan import source_of
from neuralop_bench.runtime import place

DOCS = Path(__file__).parents[1] / "docs"
BOARD = DOCS.parent / "leaderboard" / "leaderboard.csv"

_HEAD = """\
# Metrics

<!-- Made by `make docs` from the docstrings in neuralop_bench/metrics: change those, not this page. -->
"""
_MODELS_HEAD = """\
# Models

<!-- Made by `make docs` from the docstrings in neuralop_bench/models: change those, not this page. -->

`python run.py model=<name>` trains one. Sizes and operations are those of the lite track's `ns2d`, a 64 x 64 grid with
ten frames of history: real parameters, and the operations of one call for one sample. Errors are relative L2 on the
lite board; a model without one hasn't been trained there, or can't be. Symbols, options, shapes and departures from
the papers are in the docstring of each class.
"""


def metrics() -> dict[str, type]:
    """The metric classes that the evaluators name, by metric name, in the order of the files."""
    found: dict[str, type] = {}
    for path in sorted((place.CONFIG_DIR / "evaluator").glob("*.yaml"), key=lambda path: path.stem != "standard"):
        evaluator = compose(f"evaluator={path.stem}").evaluator
        for node in (*evaluator.metrics.values(), *evaluator.rollout_metrics.values()):
            target: Any = resolve_name(node["_target_"])
            found.setdefault(target.name, target)
    return found


def columns(docstring: str) -> dict[str, str]:
    """Entries of a docstring's ``Columns:`` section: names, separated by commas, to their description.

    >>> columns("What.\\n\\nColumns:\\n    a, b: both\\n        of them.\\n    c: one.\\n\\nMore.")
    {'a, b': 'both of them.', 'c': 'one.'}
    """
    _, _, section = inspect.cleandoc(docstring).partition("\nColumns:\n")
    lines = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        lines.append(line)
    entries = re.split(r"\n(?=\S)", textwrap.dedent("\n".join(lines)).strip())
    pairs = (entry.partition(":") for entry in entries if entry)
    return {names: " ".join(text.split()) for names, _, text in pairs}


def metrics_page() -> str:
    """The whole page of metrics."""
    known = metrics()
    parts = [_HEAD, _prose(_after_summary(_doc(metric))), _overview(known)]
    for name, kind in known.items():
        stored = ", ".join(f"`{variable}`" for variable in kind.variables)
        parts += [
            f"## {name}\n",
            f"Version {kind.version}. `{kind.__module__}.{kind.__qualname__}`\n",
            _prose(_without_columns(_doc(kind))),
            _table(("column", "what"), columns(_doc(kind)).items()),
            textwrap.fill(f"Stored in `errors.nc`, per sample: {stored}.", 120) + "\n",
        ]
    for title, module in (("Cost", cost), ("Elsewhere, and beside the solver", scoring)):
        text = _doc(module)
        parts += [f"## {title}\n", _prose(_without_columns(text)), _table(("column", "what"), columns(text).items())]
    return "\n".join(part for part in parts if part)


def _overview(known: Mapping[str, type]) -> str:
    rows = [(f"[{name}](#{name})", str(kind.version), _summary(_doc(kind))) for name, kind in known.items()]
    return "\n".join(["| metric | version | what |", "| --- | ---: | --- |", *(_row(row) for row in rows), ""])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, str]]) -> str:
    lines = [_row(head), _row(["---"] * len(head))]
    for names, text in rows:
        lines.append(_row([", ".join(f"`{name.strip()}`" for name in names.split(",")), text]))
    return "\n".join([*lines, ""])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _doc(thing: object) -> str:
    return inspect.getdoc(thing) or ""


def _summary(docstring: str) -> str:
    return " ".join(docstring.partition("\n\n")[0].split())


def _after_summary(docstring: str) -> str:
    return docstring.partition("\n\n")[2]


def _without_columns(docstring: str) -> str:
    before, _, section = docstring.partition("\nColumns:\n")
    rest = re.split(r"\n(?=\S)", section, maxsplit=1)
    return before.rstrip() + ("\n\n" + rest[1] if len(rest) > 1 else "")


def _prose(docstring: str) -> str:
    """Text as Markdown: indented blocks become code, double backticks single ones, a ``Section:`` a bold word."""
    blocks = []
    for block in docstring.strip().split("\n\n"):
        if block.startswith("    "):
            blocks.append(f"```text\n{textwrap.dedent(block)}\n```")
        else:
            text = re.sub(r"``([^`]+)``", r"`\1`", block)
            blocks.append(re.sub(r"^(Range|Cost|References?|Returns):\s*(.)", _in_bold, re.sub(r"\n {4}", "\n", text)))
    return "\n\n".join(blocks) + "\n"


def models() -> dict[type, list[str]]:
    """The classes that configs/model names, with the names of their files, the plainest first."""
    found: dict[type, list[str]] = {}
    for path in sorted((place.CONFIG_DIR / "model").glob("*.yaml")):
        if path.stem != "external":
            found.setdefault(resolve_name(compose(f"model={path.stem}").model["_target_"]), []).append(path.stem)
    return found


def models_page() -> str:
    """The whole page of models."""
    known, errors = models(), _errors()
    datasets = sorted({dataset for _, dataset in errors})
    names = {name: kind for kind, found in known.items() for name in found}
    rows = []
    for name in sorted(names):
        n_parameters, operations = _size(name)
        cells = [errors.get((name, dataset), "") for dataset in datasets]
        rows.append((f"[{name}](#{names[name].__name__.lower()})", f"{n_parameters:,}", f"{operations:.2g}", *cells))
    heads = ("model", "parameters", "GFLOP", *datasets)
    lines = [_row(heads), _row(["---", *["---:"] * (len(heads) - 1)]), *map(_row, rows), ""]
    parts = [_MODELS_HEAD, "\n".join(lines)]
    for kind, found in sorted(known.items(), key=lambda entry: entry[1]):
        files = ", ".join(f"`model={name}`" for name in found)
        parts += [f"## {kind.__name__}\n", f"{files}. `{kind.__module__}.{kind.__qualname__}`\n", _card(_doc(kind))]
    return "\n".join(parts)


def _card(docstring: str) -> str:
    """The parts of a model's docstring that the page shows."""
    blocks = re.split(r"\n\n(?=\S)", docstring)
    formulas = [block for block in re.split(r"\n\n", docstring) if block.startswith("    ")][:1]
    idea = blocks[0].partition("\n\n")[0]
    named = [block for block in blocks if re.match("(Cost|References?):", block)]
    return _prose("\n\n".join([idea, *formulas, *named]))


def _size(model: str) -> tuple[int, float]:
    """Parameters, and 10^9 operations of one call, on the lite track's ns2d."""
    cfg = compose(f"model={model}", "dataset=ns2d")
    spec = seen(cfg, source_of(cfg).spec)
    operator = parts.operator(cfg, spec, torch.device("meta"))
    n_channels = cfg.dataset.history * len(spec.state) + len(spec.static) + len(spec.channels)
    fields = torch.empty(1, n_channels, *spec.grid.shape, device="meta")
    return cost.count_parameters(operator), cost.forward_flops(operator, fields) / 1e9


def _errors() -> dict[tuple[str, str], str]:
    """Mean relative L2 on the lite board, by model and dataset, for the default recipes."""
    with open(BOARD, newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["track"] == "lite"]
    return {
        (row["model"], row["task"]): f"{float(row['rel_l2_mean']):.2g}"
        for row in rows
        if row["variant"].startswith("default-") and row["rel_l2_mean"]
    }


def _in_bold(section: re.Match[str]) -> str:
    return f"**{section[1]}.** {section[2].upper()}"


PAGES = {DOCS / "metrics.md": metrics_page, DOCS / "models.md": models_page}

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
