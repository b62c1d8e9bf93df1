"""The service and the image are what their comments promise."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNIT = ROOT / "deploy" / "ptycho-reconstruct@.service"
LIVE = ROOT / "deploy" / "ptycho-live@.service"
WATCH = ROOT / "deploy" / "ptycho-watch.service"


def test_the_example_in_the_unit_starts_what_it_names() -> None:
    text = UNIT.read_text()
    assert "%I" not in re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    assert "${SCANS}/%i.npz -o ${OBJECTS}/%i.h5" in text


def test_settings_of_the_units_are_those_of_their_file() -> None:
    used = set(re.findall(r"\$\{(\w+)\}", UNIT.read_text() + WATCH.read_text() + LIVE.read_text()))
    given = set(re.findall(r"^(\w+)=", (ROOT / "deploy" / "ptycho-runtime.conf").read_text(), flags=re.MULTILINE))
    assert used == given


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    ("unit", "name"),
    [
        (UNIT, "ptycho-reconstruct@2026-11-24_0042.service"),
        (WATCH, WATCH.name),
        (LIVE, "ptycho-live@2026-11-24_0042.service"),
    ],
    ids=["one", "watch", "live"],
)
def test_the_units_are_exposed_to_little(unit: Path, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(unit.read_bytes())
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_watching_unit_gives_what_the_command_takes() -> None:
    from ptycho_runtime.cli.main import parser

    (line,) = re.findall(r"^ExecStart=\S+/ptycho-runtime (.+)$", WATCH.read_text(), flags=re.MULTILINE)
    settings = dict(
        re.findall(r"^(\w+)=(.*)$", (ROOT / "deploy" / "ptycho-runtime.conf").read_text(), flags=re.MULTILINE)
    )
    given = parser().parse_args(
        [re.sub(r"\$\{(\w+)\}", lambda found: settings[found[1]], word) for word in line.split()]
    )
    assert (given.command, given.pattern, given.device, given.once) == ("watch", "*.h5", "cpu", False)
    assert (str(given.folder), str(given.out)) == (settings["SCANS"], settings["OBJECTS"])


def test_the_live_unit_gives_what_the_command_takes() -> None:
    from ptycho_runtime.cli.main import parser

    (line,) = re.findall(r"^ExecStart=\S+/ptycho-runtime (.+)$", LIVE.read_text(), flags=re.MULTILINE)
    settings = dict(
        re.findall(r"^(\w+)=(.*)$", (ROOT / "deploy" / "ptycho-runtime.conf").read_text(), flags=re.MULTILINE)
    )
    given = parser().parse_args(
        [re.sub(r"\$\{(\w+)\}", lambda found: settings[found[1]], word) for word in line.split()]
    )
    assert (given.command, given.source, given.positions) == (
        "live",
        settings["LIVE_IMAGE"],
        settings["LIVE_POSITIONS"],
    )
    assert (given.publish, str(given.out)) == (settings["LIVE_PUBLISH"], f"{settings['OBJECTS']}/%i.h5")


def test_the_image_is_pinned_and_checked() -> None:
    text = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, flags=re.MULTILINE)
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", bases[0])
    for part in ("--constraint", "pip check", "HEALTHCHECK", "USER 1000:1000", "XDG_CACHE_HOME"):
        assert part in text
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.MULTILINE)
    assert all((ROOT / name).exists() for line in copied for name in line.split())


def test_continuous_integration_builds_the_image_or_runs_its_steps() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "docker build" in script
    assert "deploy/image-steps" in script
    steps = (ROOT / "deploy" / "image-steps").read_text()
    # What the Dockerfile does to the sources, the constraints and the wheel is what the script does.
    for part in (
        "s/onnxruntime-gpu/onnxruntime/g",
        "s/^onnxruntime-gpu/onnxruntime/",
        "--no-deps",
        "--constraint",
        "check",
        "doctor",
    ):
        assert part in steps
        assert part in (ROOT / "Dockerfile").read_text()
