"""Networks with PtychoPINN's own weights against what PtychoPINN itself computed."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ptycho_torch.models.registry import build_network  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

ROOT = Path(__file__).parents[2]
BUNDLES = ROOT / "tests" / "data" / "bundles"
PREFIX = "model.autoencoder."


def cnn(era: str, gridsize: int, **values: object) -> ModelSpec:
    """Return the spec of a shared CNN bundle."""
    return ModelSpec(era=era, generator="cnn", N=64, gridsize=gridsize, n_filters_scale=1, **values)


GOLDENS = {
    "cnn-2025-11-n64-g2": cnn("A", 2, c_outer=4),
    "cnn-2026-02-n64-g1": cnn("B", 1, c_outer=4, encoder_attention="cbam"),
    "cnn-2026-02-n64-g2": cnn("B", 2, c_outer=4, encoder_attention="cbam", amp_activation="sigmoid"),
    "cnn-2026-07-n64-g2": cnn("J", 2, c_outer=4, amp_channels=4, encoder_attention="cbam", border_mask=True),
    "cnn-2026-07-n64-g1-demo": cnn("J", 1, c_outer=1, amp_channels=1, encoder_attention="cbam", border_mask=True),
    "ffno-2026-07-n64-g1": ModelSpec(era="J", generator="ffno", N=64, gridsize=1, output_mode="real_imag"),
}


def stored_weights(name: str) -> dict[str, torch.Tensor]:
    """Return the network's part of a bundle's state_dict."""
    path = ROOT / "examples" / "demo" / "wts.h5.zip" if name.endswith("demo") else BUNDLES / f"{name}.zip"
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("diffraction_to_obj/model.pth"))
    state = torch.load(content, weights_only=True)
    return {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_network_equals_ptychopinn(name: str, dtype: torch.dtype) -> None:
    spec = GOLDENS[name]
    with torch.device("meta"):
        network = build_network(spec)
    network.load_state_dict(stored_weights(name), strict=True, assign=True)
    with np.load(BUNDLES / f"{name}.golden.npz") as golden:
        x = torch.from_numpy(golden["x"] * golden["input_scale_factor"]).to(dtype)
        expected = golden["object_patches"]
    with torch.no_grad():
        first, second = network.to(dtype).eval()(x)
    patches = torch.complex(first, second) if spec.output_mode == "real_imag" else first * torch.exp(1j * second)
    assert patches.shape == expected.shape
    assert np.linalg.norm(patches.numpy() - expected) <= 1e-6 * np.linalg.norm(expected)
