"""Run every example beside this file and write a page of their code, what they print and what they draw.

python examples/gallery/make.py FOLDER
"""

from __future__ import annotations

import ast
import contextlib
import io
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def page(folder: Path) -> str:
    """Return the page in Markdown, and leave the pictures in a folder."""
    parts = ["# Gallery", "Each picture was made by the program beneath it, when this page was built."]
    for example in sorted(HERE.glob("*.py")):
        if example.name == Path(__file__).name:
            continue
        source = example.read_text(encoding="utf-8")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.chdir(folder):
            runpy.run_path(str(example), run_name="__main__")
        code = source.split('"""', 2)[2].strip()
        title = example.stem.replace("_", " ").capitalize()
        parts += [f"## {title}", ast.get_docstring(ast.parse(source)) or ""]
        parts += [f"![{title}]({example.stem}.figure.png)", f"```python\n{code}\n```"]
        if printed.getvalue():
            parts.append(f"It prints\n\n```text\n{printed.getvalue().strip()}\n```")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Make the page in the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.md").write_text(page(folder.absolute()), encoding="utf-8")
    for product in folder.glob("*.h5"):
        product.unlink()


if __name__ == "__main__":
    main()
