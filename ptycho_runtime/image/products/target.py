"""Where a result goes: looked at before any work is done, so that nothing is lost and nothing is computed in vain."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptycho_runtime.errors import OutputError
from ptycho_runtime.image.paper.write import check_figure
from ptycho_runtime.image.products.ours import is_ours, kind_of

SUFFIXES = (".h5", ".hdf5", ".npz", ".cxi", ".tif", ".tiff", ".png")
# Of 255 that file systems take: a temporary name is longer by 22, one of a partial result by 8.
_MOST_NAME_BYTES = 224


@dataclass(frozen=True)
class Target:
    """A place for a result and the picture beside it, and for a figure where one is asked for."""

    path: Path
    figure: Path | None = None

    @property
    def picture(self) -> Path:
        """The PNG beside the result, or the result itself where that is a PNG."""
        return self.path.with_suffix(".png")

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are written."""
        return tuple(dict.fromkeys([self.path, self.picture, *([] if self.figure is None else [self.figure])]))

    def for_partial(self) -> Target:
        """Return where a partial result goes: `NAME.partial.SUFFIX` where a result is there already, for it may be complete."""
        if not self.path.exists():
            return self
        return Target(_partial(self.path), None if self.figure is None else _partial(self.figure))


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def check_target(
    path: Path, inputs: Mapping[str, Path | None], *, force: bool = False, figure: Path | None = None
) -> Target:
    """Return the place of a result.

    Args:
        path: name of the result; its suffix names the format.
        inputs: files that are read, by what they are ("scan", "bundle"); None where there is none.
        force: overwrite files that this project did not write.
        figure: name of the figure; none is drawn where None.

    Raises:
        OutputError: a suffix names no format; a file that would be written is an input, is no file, is somebody else's
            (unless forced), or is written twice; or its folder cannot be written.
        PackageMissingError: the figure's format needs matplotlib, which is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: what to write is told by the suffix; expected one of {', '.join(SUFFIXES)}")
    target = Target(path, figure)
    for each in target.paths:
        refuse_long_name(each)
    if figure is not None:
        check_figure(figure)
        refuse_input(figure, {"result": path, "picture beside the result": target.picture})
        refuse_unwritable(figure)
    written = [*target.paths, *target.for_partial().paths]
    for each in written:
        refuse_input(each, inputs)
    refuse_foreign(written, force=force)
    for each in written:
        kind = "" if force else kind_of(each)
        if kind:
            raise OutputError(
                f"{each}: exists, and is a {kind}, no earlier result; give another name, or --force to overwrite it"
            )
    refuse_unwritable(path)
    return target


def check_patches_target(path: Path, inputs: Mapping[str, Path | None], *, force: bool = False) -> None:
    """Check the place of object patches as `check_target` does that of a result; `.npy` has no room for a mark, so nothing there is ours.

    Raises:
        OutputError: as `check_target`.
    """
    if path.suffix.lower() != ".npy":
        raise OutputError(f"{path}: patches are written as .npy; give a name that ends so")
    refuse_long_name(path)
    refuse_input(path, inputs)
    refuse_foreign([path], force=force)
    refuse_unwritable(path)


def refuse_long_name(path: Path) -> None:
    """Raise `OutputError` where the names that a file has while it is written would be longer than file systems take."""
    size = len(os.fsencode(path.name))
    if size > _MOST_NAME_BYTES:
        raise OutputError(
            f"{path.name[:24]}…: is a name of {size} bytes; expected {_MOST_NAME_BYTES} at most; give a shorter one"
        )


def refuse_input(path: Path, inputs: Mapping[str, Path | None]) -> None:
    """Raise `OutputError` where a path is, or leads to, one of the files that are read."""
    for what, given in inputs.items():
        if given is not None and (path.resolve() == given.resolve() or _same_file(path, given)):
            raise OutputError(f"{path}: is the same file as the {what} {given}; give another name")


def _same_file(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False


def refuse_foreign(paths: Sequence[Path], *, force: bool) -> None:
    """Raise `OutputError` where something is at one of the paths that is not an earlier result of this project."""
    for path in paths:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; expected the name of a file")
        if path.is_symlink() and not path.exists() and not force:
            raise OutputError(f"{path}: exists, and is a link to nothing; give another name, or --force to replace it")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: is neither file nor folder; give another name")
        if path.exists() and not force and not is_ours(path):
            raise OutputError(
                f"{path}: exists, and is not an earlier result of ptycho-runtime; give another name, or --force to overwrite it"
            )


def refuse_unwritable(path: Path) -> None:
    """Raise `OutputError` where no file can be made in a path's folder, or in the nearest folder above it that is there."""
    folder = path.parent
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written to {folder} ({error.strerror or error}); give another folder"
        ) from error
