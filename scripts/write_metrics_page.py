"""Write docs/metrics.md from the docstrings of the metrics that configs/evaluator names.

    python scripts/write_metrics_page.py

A metric's docstring is a summary, paragraphs, indented formulas, a paragraph ``Range:``, and a section ``Columns:``
with one entry for each column, or for several that share a description.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from neuralop_bench.config.compose import compose
from neuralop_bench.metrics import cost, metric
from neuralop_bench.runs import scoring
from neuralop_bench.runtime import place

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

_HEAD = """\
# Metrics

<!-- Made by `make docs` from the docstrings in neuralop_bench/metrics: change those, not this page. -->
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


def page() -> str:
    """The whole page."""
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
            blocks.append(re.sub(r"^(Range|Reference|Returns):\s*", r"**\1.** ", re.sub(r"\n {4}", "\n", text)))
    return "\n\n".join(blocks) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
