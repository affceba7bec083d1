"""What the documentation site needs beside mkdocs.yml: a hook for MkDocs, and an extension for mkdocstrings.

Links in docs/ are those of the repository, so that pages can be read there, too. On the site a link leads to the same
file if the site has it, and becomes plain text otherwise.
"""

from __future__ import annotations

import inspect
import os.path
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Files outside docs/ that the site has, too, under the same names.
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "leaderboard/index.html")

_CODE_OR_LINK = re.compile(
    r"```.*?^```|`[^`\n]*`|\[(?P<text>[^\]]*)\]\((?P<path>[^)#\s]+)(?P<anchor>#[^)]*)?\)", re.MULTILINE | re.DOTALL
)
_DOCTEST = re.compile(r"^>>> .*\n?(?:^.*\S.*\n?)*", re.MULTILINE)


def on_files(files: Any, *, config: Any) -> Any:
    """Add the files outside docs/."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    """Lead links to where the site has their files.

    Raises:
        ValueError: a link to a file that isn't there.
    """
    own = page.file.src_uri
    folder = Path(own if own in OUTSIDE else f"docs/{own}").parent

    def led(match: re.Match[str]) -> str:
        text, path, anchor = match["text"], match["path"], match["anchor"] or ""
        if path is None or "://" in path:
            return match[0]
        target = os.path.normpath(folder / path)
        if not (ROOT / target).exists():
            raise ValueError(f"{own} links to {target}, which isn't there.")
        on_site = target.removeprefix("docs/")
        if files.get_file_from_path(on_site) is None:
            return text
        return f"[{text}]({os.path.relpath(on_site, Path(own).parent)}{anchor})"

    return _CODE_OR_LINK.sub(led, markdown)


class Doctests(griffe.Extension):
    """Shows the examples of docstrings as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the examples of a docstring."""
        if obj.docstring is not None:
            text = inspect.cleandoc(obj.docstring.value)
            obj.docstring.value = _DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)
