"""`scan` and the loader give the same verdict on everything, and `scan` names what would have run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import builders as b
import pytest
from cases import CASES, Case
from sample_bundles import BUNDLES, DEMO

from exporters.inspect.audit import scan_file

Outcomes = dict[str, dict[str, Any]]
SOUND = [DEMO, *sorted(BUNDLES.glob("*.zip")), *sorted(BUNDLES.glob("*.ckpt"))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_verdict_as_the_loader(case: Case, outcomes: Outcomes) -> None:
    outcome = outcomes[case.name]
    scan = outcome["scan"]
    assert (scan["error_class"], scan["message"]) == (outcome["error_class"], outcome["message"])
    assert outcome["scan_exit_code"] == 2
    unsafe = case.error in ("UnsafeContentError", "LimitExceededError")
    assert scan["verdict"] == ("unsafe" if unsafe else "unreadable")


@pytest.mark.parametrize("case", [c for c in CASES if "the global" in c.message], ids=lambda case: case.name)
def test_names_the_refused_global(case: Case, outcomes: Outcomes) -> None:
    wanted = case.message.partition("the global ")[2]
    pickles = outcomes[case.name]["scan"]["pickles"]
    assert wanted in [name for pickle in pickles for name in pickle["refused_globals"]]


def test_names_the_command_that_would_have_run(outcomes: Outcomes) -> None:
    for name in (
        "reduce-protocol-0",
        "reduce-protocol-5",
        "stack-global-from-memo",
        "checkpoint-callbacks",
        "object-opcode",
    ):
        calls = [call for pickle in outcomes[name]["scan"]["pickles"] for call in pickle["calls"]]
        assert len(calls) == 1, name
        assert calls[0].startswith("posix.system('touch "), name


def test_follows_a_pickle_past_the_first_refusal(tmp_path: Path) -> None:
    first = b.call(b.glob("posix", "system"), b.text("one"))
    second = b.call(b.glob("subprocess", "Popen"), b.text("two"))
    path = tmp_path / "params.dill"
    path.write_bytes(b.done(b.lst(first, b"\x82\x01", second)))
    (report,) = scan_file(path).pickles
    assert report.calls == ("posix.system('one')", "subprocess.Popen('two')")
    assert report.opcodes["EXT1"] == 1


def test_looks_into_every_pickle_of_an_old_pytorch_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b.done(b.number(1)) + b.done(b.call(b.glob("posix", "system"), b.text("two"))))
    result = scan_file(path)
    assert (result.verdict, result.error_class) == ("unreadable", "NotABundleError")
    assert [pickle.calls for pickle in result.pickles] == [(), ("posix.system('two')",)]


@pytest.mark.parametrize("path", SOUND, ids=lambda path: path.name)
def test_accepts_what_ptychopinn_wrote(path: Path) -> None:
    result = scan_file(path)
    assert (result.verdict, result.exit_code, result.message) == ("accepted", 0, None)
    assert not any(pickle.refused_globals or pickle.calls for pickle in result.pickles)


def test_accepts_single_files(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b.weights_file())
    (tmp_path / "params.dill").write_bytes(dict(b.bundle_members())["autoencoder/params.dill"])
    assert [scan_file(path).verdict for path in sorted(tmp_path.iterdir())] == ["accepted", "accepted"]


def test_json_has_every_field_and_says_what_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "wts.h5.zip"
    path.write_bytes(b.bundle({"autoencoder/model.torchscript.pt": b"PK", "exports.json": b"{}"}))
    found = json.loads(scan_file(path).to_json())
    assert found["verdict"] == "accepted"
    assert found["not_read"] == ["autoencoder/model.torchscript.pt", "exports.json"]
    assert found["pickles"][0]["member"] == "manifest.dill"


def test_text_fits_a_screen_and_obeys_no_terminal_codes(tmp_path: Path) -> None:
    path = tmp_path / "params.dill"
    path.write_bytes(b.done(b.lst(*[b.stack_glob(f"\x1b[31mm{n}", "x\ny") for n in range(100)]), 4))
    text = scan_file(path).text()
    assert text.count("\n") < 30
    assert "\x1b" not in text


def test_needs_no_pytorch() -> None:
    code = f"import sys; from exporters.inspect.audit import scan_file; scan_file({str(DEMO)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
