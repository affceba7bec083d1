"""The documentation: its links, its code, the pages that are made from docstrings, and the site."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from helpers.pages import DOCS, ROOT, Session, blocks

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.batch import Batch
from neuralop_bench.metrics.metric import MetricContext

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
# The changelog names what was there at the time.
WRITTEN = [page for page in PAGES if page.name != "CHANGELOG.md"]
FIRST_HOUR = blocks(DOCS / "first_hour.md")
# What a page builds on: the files of another page.
BUILDS_ON = {"adding_a_model": "first_hour"}


def _writer() -> ModuleType:
    path = ROOT / "scripts" / "write_reference_pages.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = _writer()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_of_files_and_modules_are_right(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    saved = {block.file[0] for block in [*blocks(page), *FIRST_HOUR] if block.file}
    for name in re.findall(r"`([\w./-]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(
            r"(neuralop_bench|data_gen|configs|tests|scripts|benchmarks|docs|leaderboard|hydra_plugins)/", name
        ):
            assert (ROOT / name).exists() or name in saved, name
        elif re.match(r"(neuralop_bench|data_gen)\.\w", name):
            resolve_name(name)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_are_short(page: Path) -> None:
    # A table has a line for each row, and a long word stays whole.
    long = [line for line in page.read_text().splitlines() if len(line) > 120 and line[0] != "|" and " " in line[4:]]
    assert not long


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 700


def test_the_index_lists_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", (DOCS / "README.md").read_text()))
    pages = {path.relative_to(DOCS).as_posix(): path for path in DOCS.rglob("*.md")}
    missing = [
        f"- [{page.read_text().splitlines()[0].lstrip('# ')}]({name})"
        for name, page in pages.items()
        if name not in linked and name != "README.md"
    ]
    assert not missing, "add to docs/README.md: " + ", ".join(missing)


# The pages of metrics and models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WRITER.PAGES, ids=lambda path: path.stem)
def test_a_page_of_reference_is_what_the_docstrings_say(path: Path) -> None:
    assert path.read_text() == WRITER.PAGES[path](), "run `make docs`"


@pytest.mark.parametrize("name", WRITER.metrics())
def test_a_metric_documents_its_formula_its_range_and_each_of_its_columns(name: str) -> None:
    kind: Any = WRITER.metrics()[name]
    documented = [entry.strip() for names in WRITER.columns(kind.__doc__) for entry in names.split(",")]
    grid = Grid.periodic(32)
    state = (FieldSpec("a", "a field"), FieldSpec("b", "another"))
    # Everything that a dataset may name.
    conserved = ("mean", "mean_vorticity", "energy", "kinetic_energy", "enstrophy", "flux_balance", "positivity")
    conserved = (*conserved, "maximum_principle", "incompressibility", "drag")
    given = {"diameter": 0.2, "reynolds": 40.0}
    spec = DatasetSpec("made up", 1, "", grid, (0.0, 1.0, 2.0), state, parameters=given, conserved=conserved)
    metric = kind(MetricContext(spec, np.ones(2), spec.grid))
    fields = torch.randn(4, 3, 2, *grid.shape, generator=torch.Generator().manual_seed(0))
    batch = Batch(fields[:, :1], fields[:, 0, :0], fields[:, 1:])
    measured = metric.measure(fields[:, 1:] + 0.1, batch)
    arrays = xr.Dataset({key: (metric.variables[key], values) for key, values in measured.items()})
    assert sorted(documented) == sorted(metric.summarise(arrays))
    assert "\nRange: " in re.sub(r"\n +", "\n", kind.__doc__)
    assert "\n        " in kind.__doc__, "a formula, indented"


# Code in pages ------------------------------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A reader in a fresh clone of what is committed; see test_first_hour.py."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    session = Session(tmp_path / "clone")
    session.run(f'ln -s "{sys.prefix}" .venv\nsource .venv/bin/activate\nexport PYTHONPATH="$PWD"')
    assert session.packages() == {tmp_path / "clone"}
    return session


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["importing_data", "adding_a_model", "adding_a_dataset", "adding_a_metric"])
def test_a_page_can_be_followed_literally(session: Session, name: str) -> None:
    if name in BUILDS_ON:
        for block in blocks(DOCS / f"{BUILDS_ON[name]}.md"):
            if block.file:
                session.write(block)
    session.follow(blocks(DOCS / f"{name}.md"))
    session.run("ruff check . && ruff format --check . && lint-imports")


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_examples_in_python_run(session: Session) -> None:
    session.run("python run.py track=smoke trainer.epochs=1")
    session.follow(block for block in blocks(DOCS / "data_format.md") if block.language == "python")
    assert "time" in session.printed[-1]
    for name, printed in (("commands", "torch.Size([1, 10, 1, 32, 32])"), ("published_experiments", "n_train: 1000")):
        session.follow(block for block in blocks(DOCS / f"{name}.md") if block.language == "python")
        assert printed in session.printed[-1]


# The site -----------------------------------------------------------------------------------------------------------


def test_the_site_builds(tmp_path: Path) -> None:
    """Strictly: a broken link, an anchor that isn't there, or a page outside the navigation fails."""
    pytest.importorskip("mkdocs")
    # Not quietly: warnings that aren't shown don't fail a strict build.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Surrogate" in (tmp_path / "api" / "models.html").read_text()
    assert (tmp_path / "leaderboard" / "index.html").read_bytes() == (ROOT / "leaderboard" / "index.html").read_bytes()
