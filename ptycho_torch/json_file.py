"""JSON files that a user names: parameters and architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from ptycho_torch.errors import ConfigurationError

MAX_BYTES = 4 << 20


def read_json_object(path: str | Path, what: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: of the file.
        what: it should hold, for messages: "parameters".

    Raises:
        ConfigurationError: it cannot be read, is no JSON, holds NaN or infinity, or no object.

    Examples:
        >>> read_json_object("params.json", "parameters")["N"]  # doctest: +SKIP
        64
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{path}: has more than {MAX_BYTES} bytes; expected a JSON object of {what}")
    try:
        values = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: is no JSON ({error}); expected an object of {what}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: holds {type(values).__name__}; expected an object of {what}")
    return values


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"holds {name}")
