"""Text that comes out of files does nothing on a terminal, in a report, or in XML: it goes through one door, escaped."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ptycho_runtime.files import printable, shown

ROOT = Path(__file__).resolve().parents[1]
DOORS = {"exporters/cli/start.py", "exporters/cli/terminal.py", "ptycho_runtime/cli/terminal.py"}
# Processes of the bench: what they print is read by their parent.
CHILDREN = {"exporters/bench/profile.py", "exporters/bench/loading.py", "exporters/bench/end_to_end.py"}
HOSTILE = "\x1b]0;x\x07\x1b[2J\u009b1m\u202e[/bold][red]x\r"


def sources() -> list[Path]:
    return sorted(
        path for house in ("exporters", "ptycho_torch", "ptycho_runtime") for path in (ROOT / house).rglob("*.py")
    )


def prints(tree: ast.AST) -> list[int]:
    """Return the lines at which something prints past the doors: print, click.echo, a console of its own, a stream's write."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        streams = ("sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer.write", "sys.stderr.buffer.write")
        own = name in ("print", "click.echo", "click.secho", "Console", "rich.print", "os.write", *streams)
        marked = any(k.arg in ("markup", "emoji") and ast.unparse(k.value) != "False" for k in node.keywords)
        if own or marked or name.endswith(("Text.from_markup", "Text.from_ansi")):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_prints_past_the_doors(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() not in DOORS | CHILDREN:
        assert prints(ast.parse(path.read_text())) == []


def test_the_check_sees_each_way_of_printing() -> None:
    for way in ("print(x)", "click.echo(x)", "Console()", "output.print(x, markup=True)", "sys.stdout.write(x)"):
        assert prints(ast.parse(way)) == [1]
    assert prints(ast.parse("output.print(x)\nshow(x)")) == []


def test_what_is_shown_only_stands_there() -> None:
    assert shown("a\x1b[2J\u009bb\u202e\tc\n") == "a\\x1b[2J\\x9bb\\u202e\tc\n"
    assert printable("a\nb\x7f") == "a\\x0ab\\x7f"


def test_consoles_know_no_markup_and_no_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    from rich.table import Table

    from exporters.cli.terminal import PlainConsole, echo

    table = Table(title=HOSTILE, caption=HOSTILE)
    table.add_column("text", no_wrap=True)
    table.add_row(HOSTILE)
    console = PlainConsole()
    console.width = 120
    console.print(HOSTILE)
    console.print(table)
    echo(HOSTILE)
    text = capsys.readouterr().out
    assert text.count("[/bold][red]x") >= 4
    assert not any(character in text for character in "\x1b\x07\u009b\u202e\r")


def test_the_runtime_prints_escaped_whatever_the_encoding(capsys: pytest.CaptureFixture[str]) -> None:
    from ptycho_runtime.cli.terminal import say, show

    show(HOSTILE)
    say(HOSTILE)
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert "[/bold][red]x" in text
        assert not any(character in text for character in "\x1b\x07\u009b\u202e\r")


def test_reports_take_text_as_text() -> None:
    pytest.importorskip("torch")
    from xml.etree import ElementTree

    from exporters.parity.forms.html import to_html
    from exporters.parity.forms.junit import to_junit
    from exporters.parity.forms.markdown import to_markdown
    from exporters.parity.report import ParityReport
    from exporters.parity.rows import ParityRow

    name = "<img src=x>![x](http://x)|`\x1b\n# title"
    row = ParityRow(name, "onnx", "cpu", "float32", 1, "simulated", "failed", reason=name)
    report = ParityReport(name, [row], problems=[name])
    markdown = to_markdown(report)
    assert "\\<img src=x\\>!\\[x\\](http://x)\\|\\`\\\\x1b # title" in markdown
    assert not any(part in markdown for part in (" <img", "![x", "\x1b", "\n# title"))
    assert "<img" not in to_html(report)
    assert "\x1b" not in to_html(report)
    assert "\ufffd" in ElementTree.fromstring(to_junit(report)).attrib["name"]
