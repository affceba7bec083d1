"""The structure that the design promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_import_rules_hold() -> None:
    done = _run(str(Path(sys.executable).with_name("lint-imports")))
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_import_rules_would_notice_a_breach(tmp_path: Path) -> None:
    # A contract that can't fail proves nothing: forbid an import that is there.
    contract = (
        (ROOT / ".importlinter")
        .read_text()
        .replace("forbidden_modules =\n    neuralop_bench", "forbidden_modules =\n    h5py")
    )
    (tmp_path / "rules").write_text(contract)
    done = _run(str(Path(sys.executable).with_name("lint-imports")), "--config", str(tmp_path / "rules"), "--no-cache")
    assert done.returncode == 1
    assert "1 broken" in done.stdout


def test_help_and_cfg_do_not_import_torch() -> None:
    # Importing torch takes seconds; --help and --cfg job must answer at once.
    script = "import sys, run; sys.exit('torch' in sys.modules)"
    assert _run(sys.executable, "-c", script).returncode == 0


def test_help_lists_the_choices() -> None:
    done = _run(sys.executable, "run.py", "--help")
    assert done.returncode == 0
    assert "fno, fno_2020" in done.stdout
    assert "track: full, lite, paper, smoke" in done.stdout


def test_no_workplace_words_in_packages() -> None:
    # Absolute paths of somebody's machine have no place in what we ship.
    files = [path for package in ("data_gen", "neuralop_bench", "configs") for path in (ROOT / package).rglob("*.*")]
    texts = {path: path.read_text() for path in files if path.suffix in (".py", ".yaml")}
    assert texts
    assert not [path for path, text in texts.items() if "/home/" in text or "/root/" in text]


def test_committed_records_name_no_folder_of_a_machine() -> None:
    # Run with the default folders, relative to the repository, or take paths out before a record is committed.
    absolute = re.compile(r'"(?:[\w.]+=)?(?:/|~)[^"]*"')
    texts = {path: path.read_text() for path in (ROOT / "leaderboard").rglob("*.json")}
    assert texts
    assert not [path for path, text in texts.items() if absolute.search(text)]
