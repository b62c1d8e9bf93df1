"""What a processor is told to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptycho_runtime.engine import hardware


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flags\t\t: fpu avx2 fma\n", "this processor has no int8 dot products and no bfloat16"),
        ("flags\t\t: avx512_vnni avx512_bf16\n", "this processor has int8 dot products and bfloat16"),
        ("Features\t: fp asimd asimddp\n", "this processor has int8 dot products and no bfloat16"),
        ("processor\t: 0\n", ""),
    ],
)
def test_arithmetic_of_reduced_precision(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert hardware.reduced_arithmetic(tmp_path / "cpuinfo") == said


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert hardware.reduced_arithmetic(tmp_path / "none") == ""
    assert hardware.processor(tmp_path / "none")
