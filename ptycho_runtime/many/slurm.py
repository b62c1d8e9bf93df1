"""A scan in parts under Slurm: one script that submits three jobs, each waiting for the one before."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """What is to be run in parts."""

    bundle: Path
    scan: Path
    out: Path
    """The image."""
    words: Sequence[str]
    """Of `prepare`'s command line and of each part's, bundle and scan among them."""
    ending: Sequence[str]
    """Of `merge`'s command line beyond parts and result."""
    parts: int


def script(job: Job) -> str:
    """Return a bash script. It is run by bash on a host that has `sbatch`, from any folder.

    Parts that are done for the same plan are passed over when it is run again.
    """
    program = [sys.executable, "-m", "ptycho_runtime"]
    folder = job.out.absolute().with_name(f"{job.out.name}.parts")
    plan = folder / "plan.h5"
    prepare = _words(*program, "prepare", *job.words, "-o", str(plan), "--force")
    part = _words(*program, "reconstruct", *job.words, "--plan", str(plan))
    numbered = f'"$SLURM_ARRAY_TASK_ID"/{job.parts} -o {_words(f"{folder}/part-")}"$SLURM_ARRAY_TASK_ID".h5'
    # A name for each part, and no pattern: what another division left in the folder is not taken.
    parts = f"{_words(f'{folder}/part-')}{{1..{job.parts}}}.h5"
    merge = f"{_words(*program, 'merge')} {parts} {_words('-o', str(job.out.absolute()), *job.ending)}"
    return f"""\
#!/bin/bash
# {_comment(job.scan.name)} with {_comment(job.bundle.name)} in {job.parts} parts, written by ptycho-runtime reconstruct --slurm.
# Run it with bash where sbatch is: it submits three jobs and ends. Run again, it passes over parts that are done.
set -euo pipefail
cd {_words(str(Path.cwd()))}
# For all three jobs: partition, account, time, memory. The last one wants memory for the whole image and its verdict.
options=(${{PTYCHO_SBATCH:-}})
folder={_words(str(folder))}
mkdir -p "$folder"
submit() {{ sbatch --parsable --kill-on-invalid-dep=yes "${{options[@]}}" "$@" | cut -d';' -f1; }}
prepare=$(submit --job-name=ptycho-prepare --output="$folder/prepare.log" --wrap {_words(_bash(prepare))})
parts=$(submit --job-name=ptycho-part --output="$folder/part-%a.log" --array=1-{job.parts} --dependency="afterok:$prepare" \\
  --wrap {_words(_bash(f"{part} --part {numbered}"))})
merge=$(submit --job-name=ptycho-merge --output="$folder/merge.log" --dependency="afterok:$parts" \\
  --wrap {_words(_bash(merge))})
echo "prepare $prepare, parts $parts, merge $merge; logs in $folder"
"""


def _words(*words: str) -> str:
    return shlex.join(words)


def _bash(command: str) -> str:
    """Return a command that bash runs, whatever shell runs jobs."""
    return f"exec bash -c {shlex.quote(command)}"


def _comment(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
