"""Convolutions in strips are PyTorch's own to the rounding of float64."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters.parity.double import DoubleConvolutions  # noqa: E402


def random(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(
    ("groups", "channels", "size", "kernel", "padding"),
    [
        (2, 32, (64, 64), 3, 1),
        (2, 20, (67, 45), 3, 1),
        (2, 32, (64, 64), 3, 0),
        (2, 9, (96, 61), 7, 3),
        (2, 300, (40, 64), (3, 5), (1, 2)),
    ],
)
def test_large_images(groups: int, channels: int, size: tuple[int, int], kernel: Any, padding: Any) -> None:
    layer = torch.nn.Conv2d(channels, 5, kernel, padding=padding).double().requires_grad_(False)
    image = random(groups, channels, *size)
    with torch.no_grad():
        wanted = layer(image)
        with DoubleConvolutions():
            found = layer(image)
    assert not torch.equal(found, wanted)  # in another order, so it was computed in strips
    assert torch.allclose(found, wanted, rtol=0, atol=1e-13 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (torch.nn.Conv2d(32, 4, 3, padding=1), torch.float32),
        (torch.nn.Conv2d(32, 4, 3, stride=2), torch.float64),
        (torch.nn.Conv2d(32, 4, 3, dilation=2), torch.float64),
        (torch.nn.Conv2d(32, 4, 3, groups=2), torch.float64),
        (torch.nn.Conv2d(32, 4, 3, padding="same"), torch.float64),
        (torch.nn.Conv2d(32, 4, 3, padding=1, padding_mode="circular"), torch.float64),
    ],
)
def test_other_kinds_are_left_to_pytorch(layer: Any, dtype: Any) -> None:
    layer = layer.to(dtype)
    image = random(2, 32, 64, 64, dtype=dtype)
    with torch.no_grad():
        wanted = layer(image)
        with DoubleConvolutions():
            assert torch.allclose(layer(image), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("channels", "size_px"), [(32, 64), (64, 16)])
def test_a_result_does_not_depend_on_the_batch(channels: int, size_px: int) -> None:
    """Where one image is large, and where only many are."""
    layer, images = torch.nn.Conv2d(channels, 8, 3, padding=1).double(), random(9, channels, size_px, size_px)
    with torch.no_grad():
        wanted = layer(images)
        with DoubleConvolutions():
            found = layer(images)
            assert torch.equal(found[8:], layer(images[8:]))
    assert torch.allclose(found, wanted, rtol=0, atol=1e-13)
