"""Options of a beamline in a TOML file: `--config FILE`. What the command line says too counts more."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.files import printable

FLAG = "--config"
_MOST_BYTES = 1 << 20


def with_config(arguments: list[str], command: argparse.ArgumentParser, tables: Collection[str]) -> list[str]:
    """Return a command's arguments with those of its configuration file in front.

    Args:
        arguments: of the command, without its name.
        command: its grammar.
        tables: names that tables may have: those of all commands.

    A key is an option's long name, with `_` or `-`; a table is called like the command, or its keys stand outside of any.

    Raises:
        ReconstructionError: the file cannot be read, or holds what is no option of this command.
    """
    if FLAG not in command.format_usage():
        return arguments
    paths, rest = _named(arguments)
    options: list[str] = []
    for path in paths:
        options += _options(path, command, tables)
    return [*options, *rest]


def _named(arguments: list[str]) -> tuple[list[Path], list[str]]:
    paths: list[Path] = []
    rest: list[str] = []
    k = 0
    while k < len(arguments):
        text = arguments[k]
        if text == FLAG and k + 1 < len(arguments):
            paths.append(Path(arguments[k + 1]))
            k += 2
        elif text.startswith(FLAG + "="):
            paths.append(Path(text.partition("=")[2]))
            k += 1
        else:
            rest.append(text)
            k += 1
    return paths, rest


def _options(path: Path, command: argparse.ArgumentParser, tables: Collection[str]) -> list[str]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ReconstructionError(f"{path.name}: has more than {_MOST_BYTES} bytes; expected a few options in TOML")
        document = tomllib.loads(data.decode("utf-8-sig"))
    except FileNotFoundError:
        raise ReconstructionError(f"{path}: no such configuration file") from None
    except ReconstructionError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        raise ReconstructionError(f"{path.name}: cannot be read as TOML ({error})") from error
    strange = [key for key, value in document.items() if isinstance(value, dict) and key not in tables]
    if strange:
        raise ReconstructionError(
            f"{path.name}: [{printable(strange[0])}] is no command; expected a table of {', '.join(tables)}"
        )
    name = command.prog.rsplit(" ", 1)[-1]
    own = document.get(name, {})
    values = {key: value for key, value in document.items() if not isinstance(value, dict)}
    values |= own if isinstance(own, dict) else {}
    known = {option: action for action in command._actions for option in action.option_strings}
    arguments: list[str] = []
    for key, value in values.items():
        option = "--" + key.replace("_", "-")
        if option not in known or option in (FLAG, "--help"):
            raise ReconstructionError(f"{path.name}: {printable(key)} is no option of {command.prog}")
        arguments += _argument(option, value, known[option], path)
    return arguments


def _argument(option: str, value: Any, action: argparse.Action, path: Path) -> list[str]:
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ReconstructionError(f"{path.name}: {option[2:]} is {printable(value)}; expected true or false")
        return [option] if value else []
    if isinstance(value, (bool, dict, list)):
        raise ReconstructionError(f"{path.name}: {option[2:]} is {printable(value)}; expected text or a number")
    if action.type is Path and not Path(str(value)).is_absolute():
        value = path.parent / str(value)  # files beside the configuration
    return [f"{option}={value}"]
