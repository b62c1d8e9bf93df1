"""What the names and shapes in a state_dict say about the architecture, before anything is built from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ptycho_torch.bundle import StateDict
from ptycho_torch.bundle.state_dict import is_foreign
from ptycho_torch.errors import WeightMismatchError

_NETWORK = "model.autoencoder."
_PHYSICS = "model.forward_model."
_SIZE_BY_ENCODER_BLOCKS = {3: 64, 4: 128, 5: 256}


@dataclass(frozen=True)
class Settled:
    """One field of the spec and what settled it."""

    value: Any
    source: str  # "weights", "checkpoint", "metadata", "params", "override" or "assumed"
    note: str = ""


class WeightEvidence:
    """Answers about one state_dict; every answer comes from key names or shapes alone."""

    def __init__(self, weights: StateDict) -> None:
        """Take the state_dict as the bundle holds it."""
        self.shapes = {key: value.shape for key, value in weights.items()}
        self.network = {
            key.removeprefix(_NETWORK): shape for key, shape in self.shapes.items() if key.startswith(_NETWORK)
        }
        self.physics_keys = {key.removeprefix(_PHYSICS) for key in self.shapes if key.startswith(_PHYSICS)}
        self.has_parity_delta = "log_scale_delta" in self.shapes

    @property
    def has_physics(self) -> bool:
        """Say whether any part of the physics is stored."""
        return bool(self.physics_keys)

    def foreign_keys(self) -> list[str]:
        """Return the keys of something beside the model, where there is a model."""
        foreign = [key for key in self.shapes if is_foreign(key)]
        return foreign if len(foreign) < len(self.shapes) else []

    def first_keys(self, count: int = 3) -> list[str]:
        """Return the first few keys, for messages."""
        return list(self.shapes)[:count]

    def has(self, pattern: str) -> bool:
        """Say whether any key of the network matches a regular expression."""
        return any(re.match(pattern, key) for key in self.network)

    def shape(self, *keys: str) -> tuple[int, ...]:
        """Return the shape of the first of these keys that is there; raises `WeightMismatchError` if none is."""
        for key in keys:
            if key in self.network:
                return self.network[key]
        raise WeightMismatchError(f"the weights lack {_NETWORK}{keys[0]}; the state_dict is incomplete")

    def dimension(self, axis: int, *keys: str) -> int:
        """Return one size of the first of these keys that is there."""
        shape = self.shape(*keys)
        if axis >= len(shape):
            raise WeightMismatchError(f"{_NETWORK}{keys[0]} has shape {shape}; expected at least {axis + 1} axes")
        return shape[axis]

    def count(self, pattern: str) -> int:
        """Return one more than the largest number that a pattern's group captures, 0 if nothing matches."""
        numbers = [int(m.group(1)) for key in self.network if (m := re.match(pattern, key))]
        return 1 + max(numbers) if numbers else 0

    def generator(self) -> str | None:
        """Return the generator whose key names these are, or None."""
        if self.has(r"decoder\w*\.merge_blocks\."):
            return "unet"
        if self.has(r"encoder\.blocks\."):
            return "cnn"
        if self.has(r"uno\."):
            return "neuralop_uno"
        if self.has(r"ffno_stack\."):
            return "ffno"
        if self.has(r"fno_blocks\.\d+\.spectral\."):
            return "fno"
        if self.has(r"blocks\.\d+\.spectral\."):
            return "fno_vanilla"
        return None

    def size(self) -> Settled | None:
        """Return N where the number of encoder blocks gives it."""
        blocks = self.count(r"encoder\.blocks\.(\d+)\.")
        if blocks:
            if blocks not in _SIZE_BY_ENCODER_BLOCKS:
                raise WeightMismatchError(f"the encoder has {blocks} blocks; N = 64, 128, 256 have 3, 4, 5")
            return Settled(_SIZE_BY_ENCODER_BLOCKS[blocks], "weights", f"{blocks} encoder blocks")
        return Settled(128, "weights", "neuralop_uno") if self.has(r"uno\.") else None

    def input_channels(self) -> int:
        """Return the channels of the network's input."""
        if self.has(r"uno\."):
            return 1
        return self.dimension(1, "encoder.blocks.0.conv1.weight", "lifter.conv1.weight")

    def output_channels(self) -> int:
        """Return the patches a spectral generator gives."""
        if self.has(r"uno\."):
            return 1
        if self.has_amp_phase_heads:
            return self.dimension(0, "output_phase.weight")
        return self.dimension(0, "output_proj.weight") // 2

    @property
    def has_amp_phase_heads(self) -> bool:
        """Say whether a spectral generator has separate amplitude and phase heads."""
        return self.has(r"output_amp\.")

    def filters_scale(self) -> Settled:
        """Return n_filters_scale: the deepest encoder level has 128 times as many channels."""
        blocks = self.count(r"encoder\.blocks\.(\d+)\.")
        rows = self.dimension(0, f"encoder.blocks.{blocks - 1}.conv2.weight")
        if rows % 128 or not rows:
            raise WeightMismatchError(f"the deepest encoder level has {rows} channels; expected a multiple of 128")
        return Settled(rows // 128, "weights", "channels of the deepest encoder level")

    @property
    def shared_decoder(self) -> bool:
        """Say whether one decoder serves both halves of the output."""
        return self.has(r"decoder(_shared)?\.")

    def _heads(self) -> list[str]:
        names = ("decoder_amp.amp", "decoder_phase.phase", "decoder_shared.head", "decoder.head")
        return [name for name in names if f"{name}.conv1.weight" in self.network]

    def amp_channels(self) -> Settled:
        """Return the rows of the amplitude (or real) half."""
        if self.shared_decoder:
            return Settled(
                self.dimension(0, "decoder_shared.head.conv1.weight", "decoder.head.conv1.weight") // 2, "weights"
            )
        return Settled(self.dimension(0, "decoder_amp.amp.conv1.weight"), "weights")

    def outer_channels(self) -> Settled:
        """Return the channels that feed the outer path, the same in every head."""
        numbers = {self.dimension(1, f"{head}.conv_up_block.conv1.weight") for head in self._heads()}
        if len(numbers) != 1:
            raise WeightMismatchError(
                f"the heads' outer paths take {sorted(numbers)} channels; expected one number in all heads"
            )
        return Settled(numbers.pop(), "weights", "channels of conv_up_block")

    @property
    def batch_norm(self) -> bool:
        """Say whether batch normalisation is stored."""
        return self.has(r".*\.bn1\.weight")

    def encoder_attention(self) -> str:
        """Return which attention the encoder blocks store."""
        return self._attention(r"encoder\.blocks\.0\.attention\.")[0]

    @property
    def bottleneck_cbam(self) -> bool:
        """Say whether attention follows the last encoder block."""
        return self.has(r"bottleneck_cbam\.")

    def decoder_attention(self) -> tuple[str, int]:
        """Return (which attention the decoder levels store, kernel of the spatial one)."""
        return self._attention(r"decoder\w*\.attention_blocks\.0\.")

    def _attention(self, prefix: str) -> tuple[str, int]:
        for key, shape in self.network.items():
            if match := re.match(prefix, key):
                name = key[match.end() :]
                if name.startswith(("ChannelGate", "SpatialGate")):
                    return "cbam", 7
                if name.startswith("conv"):
                    return "eca", 7
                if name.startswith("spatial_gate"):
                    return "spatial", shape[-1]
                raise WeightMismatchError(f"{_NETWORK}{key} belongs to no attention that is known")
        return "none", 7

    def spectral_sizes(self, generator: str) -> dict[str, int]:
        """Return width, modes and block counts of a spectral generator."""
        width = self.dimension(0, "lifter.conv1.weight")
        if generator == "ffno":
            return {
                "fno_width": width,
                "fno_modes": self.dimension(2, "ffno_stack.shared_spectral.weights_x"),
                "fno_blocks": self.count(r"ffno_stack\.blocks\.(\d+)\."),
                "fno_cnn_blocks": self.count(r"refiners\.(\d+)\."),
            }
        prefix = "fno_blocks" if generator == "fno" else "blocks"
        sizes = {
            "fno_width": width,
            "fno_modes": self.dimension(2, f"{prefix}.0.spectral.weights"),
            "fno_blocks": self.count(rf"{prefix}\.(\d+)\."),
        }
        if generator == "fno":
            sizes["fno_cnn_blocks"] = self.count(r"cnn_refiner\.(\d+)\.")
        return sizes

    def datasets(self) -> int:
        """Return the number of datasets the physics was trained on together."""
        for key in ("alpha", "rect_scaler.s1"):
            if key in self.physics_keys:
                shape = self.shapes[_PHYSICS + key]
                return shape[0] if shape else 1
        return 1
