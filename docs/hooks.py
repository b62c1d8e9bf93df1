"""What the site takes from beside `docs/`: security, contributing and changes; and links that lead out of the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
FROM_ROOT = {"security.md": "SECURITY.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
_OUT_OF_DOCS = re.compile(r"(!?)\[([^\]]+)\]\(\.\./[^)]*\)")
_INTO_DOCS = re.compile(r"\]\(docs/")


def inside(text: str) -> str:
    """Return Markdown whose links into `docs/` are the site's, and whose links out of it are plain text."""
    return _OUT_OF_DOCS.sub(r"\2", _INTO_DOCS.sub("](", text))


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie beside `docs/`."""
    for name, source in FROM_ROOT.items():
        text = inside((ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links that lead out of the site into text."""
    return inside(markdown)
