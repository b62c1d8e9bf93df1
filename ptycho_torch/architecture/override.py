"""What a user, or the bundle's own `architecture.json`, says of the architecture: fields of `ModelSpec` by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptycho_torch.errors import ConfigurationError
from ptycho_torch.json_file import read_json_object
from ptycho_torch.spec import ModelSpec

Architecture = ModelSpec | Mapping[str, Any] | str | Path


def read_architecture(architecture: Architecture | None) -> dict[str, Any]:
    """Return an override as a dictionary of `ModelSpec` fields; a path names a JSON file.

    Raises `ConfigurationError` for a file that is no JSON object, or for fields that no architecture has.
    """
    if architecture is None:
        return {}
    if isinstance(architecture, ModelSpec):
        return architecture.to_json()
    values = dict(architecture) if isinstance(architecture, Mapping) else read_json_object(architecture, "fields")
    unknown = sorted(set(values) - set(ModelSpec.__dataclass_fields__))
    if unknown:
        raise ConfigurationError(f"unknown architecture field(s): {', '.join(unknown)}")
    return values
