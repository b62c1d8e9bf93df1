"""What a user, or the bundle's own `architecture.json`, says of the architecture: fields of `ModelSpec` by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptycho_torch.errors import ConfigurationError
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
    if isinstance(architecture, Mapping):
        values = dict(architecture)
    else:
        try:
            values = json.loads(Path(architecture).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{architecture}: cannot be read ({error.strerror})") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{architecture}: is no JSON ({error})") from error
        if not isinstance(values, dict):
            raise ConfigurationError(f"{architecture}: holds {type(values).__name__}; expected an object of fields")
    unknown = sorted(set(values) - set(ModelSpec.__dataclass_fields__))
    if unknown:
        raise ConfigurationError(f"unknown architecture field(s): {', '.join(unknown)}")
    return values
