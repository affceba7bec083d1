"""Pages of documentation as programs: their fenced blocks are taken literally, in order, by the tests that follow them.

- ``bash`` blocks are commands, run one block after the other as in one shell session.
- ``python`` blocks are run by the ``python`` of that session.
- A block of any language below a line that ends "Save this as `path`:" is a file, and below one that ends "Add this to
  the end of `path`:" the last lines of one.
- ``text`` blocks are what a command shows; nobody runs them.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"(?P<how>Save this as|Add this to the end of) `(?P<path>[^`]+)`:$")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the line of prose before it."""

    language: str
    text: str
    before: str

    @property
    def file(self) -> tuple[str, bool] | None:
        """The path that the block is a file for, and whether it is added to what is there."""
        match = _FILE.search(self.before)
        return (match["path"], match["how"].startswith("Add")) if match else None


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = [Block(m["language"], m["text"], m["before"].strip()) for m in _BLOCK.finditer(page.read_text())]
    assert len(found) == page.read_text().count("\n```") / 2, f"{page.name} has fences that aren't understood"
    return found


@dataclass
class Session:
    """A reader at work: a working directory and environment that last from block to block.

    Attributes:
        folder: where the reader starts.
        printed: what each command printed, in order.
    """

    folder: Path
    printed: list[str] = field(default_factory=list)

    def follow(self, page: Iterable[Block]) -> None:
        """Do what the blocks of a page say."""
        for block in page:
            if block.file:
                self.write(block)
            elif block.language == "bash":
                self.run(block.text)
            elif block.language == "python":
                self.run(f"python - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK\n")
            else:
                assert block.language == "text", f"nobody runs {block.language}: {block.text}"

    def write(self, block: Block) -> None:
        assert block.file
        path, adds = block.file
        target = self.here / path
        assert target.exists() == adds, f"{path} exists already" if not adds else f"there is no {path} to add to"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((target.read_text() if adds else "") + block.text)

    def run(self, commands: str) -> str:
        """Run commands where the last ones left off; the first that fails ends the test."""
        before = f"source {self._environment}\n" if self._environment.exists() else ""
        script = f'set -euo pipefail\n{before}cd "$PWD"\n{commands}\nexport -p > {self._environment}\n'
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA", "PYTEST"))}
        environment = {**kept, "OMP_NUM_THREADS": "1", "PWD": str(self.folder)}
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{commands}\nended with status {done.returncode}:\n{done.stdout}{done.stderr}"
        self.printed.append(done.stdout)
        return done.stdout

    @property
    def here(self) -> Path:
        """The reader's working directory."""
        return Path(self.run("pwd").strip()) if self._environment.exists() else self.folder

    def packages(self) -> set[Path]:
        """Where the session's python finds the project's two packages."""
        code = "import data_gen, neuralop_bench; print(data_gen.__file__, neuralop_bench.__file__, sep='\\n')"
        return {Path(line).parents[1] for line in self.run(f'python -c "{code}"').splitlines()}

    @property
    def _environment(self) -> Path:
        return self.folder / ".session"
