"""What a scan's file may leave open: the very options of `ptycho-runtime reconstruct`, given to a command of this program."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

import click

from ptycho_runtime.cli import options as runtime_options
from ptycho_runtime.scan.options import ReadOptions


class _Recorder:
    """Takes options as argparse does, and keeps them."""

    def __init__(self) -> None:
        self.options: list[tuple[str, dict[str, Any]]] = []

    def add_argument_group(self, title: str) -> Self:
        return self

    def add_mutually_exclusive_group(self) -> Self:
        return self

    def add_argument(self, name: str, **settings: Any) -> None:
        self.options.append((name, settings))


def _recorded() -> list[tuple[str, dict[str, Any]]]:
    recorder = _Recorder()
    runtime_options.scan_options(cast(argparse.ArgumentParser, recorder))
    return recorder.options


def _destination(name: str, settings: dict[str, Any]) -> str:
    return str(settings.get("dest", name.removeprefix("--").replace("-", "_")))


def _option(name: str, settings: dict[str, Any]) -> Callable[[Any], Any]:
    """Return one option as click takes it."""
    more: dict[str, Any] = {}
    kind = settings.get("type")
    if settings.get("action") == "store_const":
        more["flag_value"] = settings["const"]
    elif settings.get("action") == "store_true":
        more["is_flag"] = True
    elif "choices" in settings:
        more["type"] = click.Choice(settings["choices"])
    elif kind is Path:
        more["type"] = click.Path(path_type=Path)
    elif kind is float:
        more["type"] = float
    elif kind is not None:
        more |= {"callback": _converted(kind, settings.get("default")), "metavar": settings.get("metavar")}
    text = f"Of the scan: {settings['help']}."
    return click.option(name, _destination(name, settings), help=text, **more)


def _converted(kind: Callable[[str], Any], default: Any) -> Callable[..., Any]:
    def convert(context: click.Context, option: click.Parameter, text: str | None) -> Any:
        try:
            return default if text is None else kind(text)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise click.BadParameter(str(error)) from error

    return convert


def scan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what a scan's file leaves open; see `read_options`."""
    for name, settings in reversed(_recorded()):
        command = _option(name, settings)(command)
    return command


def read_options(chosen: dict[str, Any]) -> ReadOptions:
    """Take what a scan's file leaves open out of a command's options."""
    names = dict.fromkeys(_destination(name, settings) for name, settings in _recorded())
    return runtime_options.read_options(argparse.Namespace(**{name: chosen.pop(name) for name in names}))
