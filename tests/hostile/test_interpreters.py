"""A zip member has one name, or is refused, on every Python at hand."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from sample_bundles import ROOT

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
LOOK = """
import json, sys, zipfile
sys.path.insert(0, sys.argv[1])
from ptycho_runtime.files import other_name
try:
    with zipfile.ZipFile(sys.argv[2]) as archive:
        said = [[entry.filename, bool(other_name(entry))] for entry in archive.infolist()]
except (zipfile.BadZipFile, ValueError):
    said = "refused"
if said != "refused" and any(twice for _, twice in said):
    said = "refused"
print(json.dumps(said))
"""


def interpreters() -> list[str]:
    """Return the interpreters that are there: this one, those on the path, those that pyenv keeps."""
    found = {".".join(map(str, sys.version_info[:2])): sys.executable}
    for version in VERSIONS:
        kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
        path = str(kept[-1]) if kept else shutil.which(f"python{version}")
        if path is not None:
            found.setdefault(version, path)
    return list(found.values())


def unicode_path(name: str, second: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    data = b"\x01" + struct.pack("<I", zlib.crc32(name.encode())) + second.encode()
    entry.extra = struct.pack("<HH", 0x7075, len(data)) + data
    return entry


def archive(*names: str | zipfile.ZipInfo) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name in names:
            made.writestr(name, b"x")
    return buffer.getvalue()


ARCHIVES = {
    "plain": (archive("exports.json", "golden.npz"), [["exports.json", False], ["golden.npz", False]]),
    "letters beyond ASCII, said to be UTF-8": (archive("größe.txt"), [["größe.txt", False]]),
    "a second name": (archive(unicode_path("notes.txt", "exports.json")), "refused"),
    "a second name that is the first": (archive(unicode_path("notes.txt", "notes.txt")), "refused"),
    "a name that ends early": (archive("notes_x.txt").replace(b"notes_x.txt", b"notes\0x.txt"), "refused"),
    "bytes beyond ASCII in no said encoding": (archive("notes_x.txt").replace(b"notes_x.txt", b"notes\xe4x.txt"), "refused"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_interpreter_says_the_same(name: str, tmp_path: Path) -> None:
    data, expected = ARCHIVES[name]
    path = tmp_path / "w.zip"
    path.write_bytes(data)
    for interpreter in interpreters():
        command = [interpreter, "-c", LOOK, str(ROOT), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONDONTWRITEBYTECODE": "1"})
        assert json.loads(done.stdout) == expected, interpreter
