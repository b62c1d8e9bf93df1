"""prepare, reconstruct --part and merge on the command line, and the script that has Slurm run them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from one_layer import write_model, write_scan

from ptycho_runtime.cli import main as cli

# Runs what it is given at once, once a task, and refuses what depends on a job that it does not know.
SBATCH = r"""#!/bin/bash
set -euo pipefail
name=? tasks=("") wrap= after=
while [ $# -gt 0 ]; do case $1 in
  --parsable|--kill-on-invalid-dep=yes) ;;
  --job-name=*) name=${1#*=} ;;
  --output=*) ;;
  --partition=short) ;;
  --array=1-*) mapfile -t tasks < <(seq "${1##*-}") ;;
  --dependency=afterok:*) after=${1##*:}; grep -qx "$after" "$JOBS" || { echo "no job $after" >&2; exit 1; } ;;
  --wrap) shift; wrap=$1 ;;
  *) echo "sbatch: unknown $1" >&2; exit 1 ;;
esac; shift; done
for task in "${tasks[@]}"; do
  SLURM_ARRAY_TASK_ID=$task sh -c "$wrap" >&2
done
id=$((100 + $(wc -l < "$JOBS")))
echo $id >> "$JOBS"
echo "$name $id after ${after:-nothing}, ${#tasks[@]} tasks" >&2
echo "$id;cluster"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose name a shell would read, with a model and a scan."""
    folder = tmp_path_factory.mktemp("it's $HOME")
    write_model(folder / "model.onnx")
    write_scan(folder / "scan.npz", side=5)
    return folder


def run(*words: object) -> int:
    return cli.run(list(map(str, words)))


def test_parts_and_merge_are_one_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, scan, plan = folder / "model.onnx", folder / "scan.npz", tmp_path / "plan.h5"
    given = ("--device", "cpu", "--crop-px", "9", "--amplitude")
    assert run("prepare", model, scan, "-o", plan, *given) == 0
    assert "25 groups" in capsys.readouterr().out
    parts = [tmp_path / f"{number}.h5" for number in (1, 2)]
    for number, path in enumerate(parts, 1):
        part = ("--plan", plan, "--part", f"{number}/2", "-o", path, "--device", "cpu", "--quiet")
        assert run("reconstruct", model, scan, *part) == 0
    assert run("reconstruct", model, scan, *given, *part) == 0
    assert "part 2/2 is done already" in capsys.readouterr().out
    for place, what in ((plan, "plan"), (scan, "scan"), (parts[0], "part")):
        before = place.read_bytes()
        assert run("merge", *parts, "-o", place, "--force") == 2
        assert f"is the same file as the {what}" in capsys.readouterr().err
        assert place.read_bytes() == before
    assert run("reconstruct", model, scan, "-o", plan, *given) == 2
    assert "exists, and is a plan, no earlier result; give another name, or --force" in capsys.readouterr().err
    assert run("merge", *parts[::-1], "-o", tmp_path / "merged.npz") == 0
    assert run("reconstruct", model, scan, "-o", tmp_path / "whole.npz", *given, "--quiet") == 0
    with np.load(tmp_path / "merged.npz") as merged, np.load(tmp_path / "whole.npz") as whole:
        for name in ("object", "coverage", "flagged", "pattern_disagreement", "frames"):
            assert merged[name].tobytes() == whole[name].tobytes(), name


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--part", "1/2"), "--plan FILE and --part K/N go together"),
            (("--parts", "3"), "--plan FILE and --part K/N go together"),
            (("--slurm", "--plan", "plan.h5"), "--slurm makes a plan and its parts itself"),
        ],
    )
    def test_options_that_do_not_go_together(
        self, words: tuple[str, ...], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("reconstruct", folder / "model.onnx", folder / "scan.npz", "-o", tmp_path / "o.h5", *words) == 2
        assert message in capsys.readouterr().err

    def test_other_options_than_the_plans(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model, scan, plan = folder / "model.onnx", folder / "scan.npz", tmp_path / "plan.h5"
        assert run("prepare", model, scan, "-o", plan, "--device", "cpu") == 0
        part = ("--plan", plan, "--part", "1/2", "-o", tmp_path / "p.h5", "--crop-px", "9")
        assert run("reconstruct", model, scan, *part) == 2
        assert (
            "plan.h5 was made with other options (how the image is made); give them to prepare"
            in capsys.readouterr().err
        )

    def test_a_plan_does_not_take_the_place_of_an_image(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model, scan, out = folder / "model.onnx", folder / "scan.npz", tmp_path / "object.h5"
        assert run("reconstruct", model, scan, "-o", out, "--device", "cpu", "--quiet") == 0
        assert run("prepare", model, scan, "-o", out) == 2
        assert (
            "object.h5: exists, and is no plan; give another name, or --force to overwrite it"
            in capsys.readouterr().err
        )

    @pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/x"])
    def test_what_is_no_part(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            run("reconstruct", "m", "s", "-o", "o", "--plan", "p", "--part", text)
        assert f"{text!r} is no part such as 7/64" in capsys.readouterr().err


def test_slurm_runs_the_script(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "object.npz"
    words = (
        folder / "model.onnx",
        folder / "scan.npz",
        "--device",
        "cpu",
        "--exclude",
        "3,4",
        "--parts",
        "2",
        "--slurm",
        "-o",
        out,
        "--force",
    )
    assert run("reconstruct", *words) == 0
    script = tmp_path / "job.sh"
    script.write_text(capsys.readouterr().out)
    subprocess.run(["bash", "-n", script], check=True)
    (tmp_path / "sbatch").write_text(SBATCH)
    (tmp_path / "sbatch").chmod(0o755)
    (tmp_path / "jobs").touch()
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "JOBS": str(tmp_path / "jobs"),
        "PTYCHO_SBATCH": "--partition=short",
    }
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "prepare 100, parts 101, merge 102; logs in" in done.stdout
    assert "ptycho-part 101 after 100, 2 tasks" in done.stderr
    assert "ptycho-merge 102 after 101, 1 tasks" in done.stderr
    with np.load(out) as merged:
        assert len(merged["frames"]) == 23
