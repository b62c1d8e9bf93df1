"""What must be read back before a row counts as one of its device: where every node ran, and in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptycho_runtime.engine.options import PROVIDERS


def why_unproven(runtime: str, device: str, precision: str, facts: Mapping[str, Any]) -> str:
    """Return why a row's facts do not show that it ran as it says; empty where they do.

    Args:
        runtime: `eager`, `torchscript` or `onnx`.
        device: `cpu`, `cuda` or `tensorrt`.
        precision: `float32` or `tf32`.
        facts: what the runner read back.
    """
    if runtime == "onnx":
        return _onnx(device, precision, facts)
    found = facts.get("outputs_on", [])
    if found != [device]:
        return f"PyTorch left the results on {', '.join(found) or 'no device'}; expected {device}"
    if device == "cuda":
        for name in ("tf32_matmul", "tf32_cudnn"):
            if facts.get(name) is not (precision == "tf32"):
                return f"{name} was {facts.get(name)} in a {precision} row"
    return ""


def _onnx(device: str, precision: str, facts: Mapping[str, Any]) -> str:
    provider = PROVIDERS[device]
    if device == "cpu":
        found = facts.get("providers", [])
        return "" if found == [provider] else f"onnxruntime's session has {found}; expected {[provider]}"
    nodes: Mapping[str, int] = facts.get("node_providers", {})
    if not nodes:
        return "onnxruntime's profile says of no node which provider ran it"
    strangers = {name: count for name, count in nodes.items() if name != provider}
    if strangers:
        told = ", ".join(f"{count} on {name}" for name, count in strangers.items())
        return f"onnxruntime ran {told}, of {sum(nodes.values())} node runs; expected all on {provider}"
    # TensorRT has no such option; its rows are judged as TF32.
    if device == "cuda" and facts.get("tf32") is not (precision == "tf32"):
        return f"onnxruntime's use_tf32 was {facts.get('tf32')} in a {precision} row"
    return ""
