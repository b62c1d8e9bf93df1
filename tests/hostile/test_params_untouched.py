"""`load_torch_bundle` on hostile files: `params.cfg` and the random generators are as they were."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from cases import CASES, Case

torch = pytest.importorskip("torch")

from ptycho_torch import load_torch_bundle, params  # noqa: E402

# One for each place where reading can end, early and late.
NAMES = ("reduce-protocol-4", "reduce-in-weights", "reduce-in-scaling-metadata", "N-of-a-trillion", "not-a-number",
         "one-model-missing", "exports-no-json", "checkpoint-callbacks", "name-twice")  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if case.name in NAMES], ids=lambda case: case.name)
def test_params_cfg_is_untouched(case: Case, tmp_path: Path) -> None:
    path = case.build(tmp_path, f"touch {tmp_path}/canary")
    before, state = copy.deepcopy(params.cfg), torch.get_rng_state()
    with pytest.raises(ValueError) as caught:  # the class is asserted next
        load_torch_bundle(path)
    assert type(caught.value).__name__ == case.error
    assert case.message in str(caught.value)
    assert params.cfg == before
    assert torch.equal(torch.get_rng_state(), state)
    assert not (tmp_path / "canary").exists()


def test_a_bundle_whose_weights_fit_no_architecture_leaves_params_cfg(tmp_path: Path) -> None:
    import builders

    path = tmp_path / "wts.h5.zip"
    path.write_bytes(builders.bundle())
    before = copy.deepcopy(params.cfg)
    with pytest.raises(ValueError):  # whichever evidence is missed first
        load_torch_bundle(path)
    assert params.cfg == before
