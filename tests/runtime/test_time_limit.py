"""`--timeout` ends a command that is not done, whatever it is at."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ptycho_runtime.cli.main import parser

ENDLESS = (
    "import time; from ptycho_runtime.cli.time_limit import time_limit\n"
    "with time_limit(0.2):\n    while True: time.sleep(0.01)\n"
)


def test_what_is_not_done_in_time_is_ended_with_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "ptycho-runtime: not done after 0.2 s (--timeout); nothing is written\n"


def test_what_is_done_in_time_goes_on() -> None:
    code = "import time; from ptycho_runtime.cli.time_limit import time_limit\nwith time_limit(0.5): pass\ntime.sleep(0.8); print('on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "on\n")


@pytest.mark.parametrize("command", ["reconstruct b s -o o.h5", "predict b d -o o.npy", "check b"])
def test_commands_that_run_graphs_take_it(command: str) -> None:
    assert parser().parse_args([*command.split(), "--timeout", "30"]).timeout == 30.0
    with pytest.raises(SystemExit):
        parser().parse_args([*command.split(), "--timeout", "-1"])
