"""HDF5 that leads nowhere: links stay in the scan's folder, storage in the file, and what nobody wrote is known."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.closing import Closing
from ptycho_runtime.errors import PackageMissingError, ScanError, ScanIncompleteError
from ptycho_runtime.files import printable
from ptycho_runtime.scan.layouts.numbers import MOST_FRAMES, MOST_VALUES, check_type, names_in
from ptycho_runtime.scan.options import ReadOptions

_MOST_LINKS = 32  # one after the other
_MOST_NAMES = 4096
_MOST_CHUNK_BYTES = 512 << 20
_MOST_RATIO = 1000.0  # of a dataset to what is stored of it
MATLAB_AXES = (
    "its arrays have their axes the other way round, and patterns are transposed; store them again as (n, rows, columns), in MATLAB by "
    "h5create and h5write of permute(patterns, [2 1 3])"
)
_FILTERS = {32001: "blosc", 32004: "LZ4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32026: "blosc2"}


class Hdf5File(Closing):
    """An open HDF5 file with those that it links to; close it, or use it as a context manager."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        """Open the file for reading, without locks.

        Raises:
            ScanError: it is no HDF5, is cut short, or is still being written.
        """
        self.label = path.name
        self.folder = path.resolve().parent
        self.options = options
        self._open: dict[Path, Any] = {}
        self.root = self._file(path.resolve())
        if block := self.root.userblock_size:
            self.close()
            take_off = f"; take it off: h5unjam -i FILE -o NEW, or tail -c +{block + 1} FILE > NEW"
            by_matlab = f", as MATLAB 7.3 writes: {MATLAB_AXES}"
            raise ScanError(
                f"{path.name}: begins with a user block of {block} bytes{by_matlab if _is_matlab(path) else take_off}"
            )

    def close(self) -> None:
        """Close all files."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def names(self) -> set[str]:
        """Return the names of datasets and of links, which are not followed."""
        import h5py

        names: set[str] = set()
        groups = [(self.root, "")]
        while groups and len(names) < _MOST_NAMES:
            group, prefix = groups.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    names.add(prefix + name)
                elif group.get(name, getclass=True) is h5py.Group:
                    if prefix.count("/") < _MOST_LINKS:  # hard links may go round in circles
                        groups.append((group[name], f"{prefix}{name}/"))
                else:
                    names.add(prefix + name)
        return names

    def item(self, key: str) -> Any | None:
        """Return the dataset or group of a name, following links in the scan's folder; None where there is none.

        Raises:
            ScanError: a link leads outside, in circles, or to a file that is not there; storage is in another file.
        """
        found = self._walk(self.root, key.strip("/").split("/"), key, [])
        if found is not None and hasattr(found, "shape"):
            self._check_storage(found, key, [])
        return found

    def dataset(self, key: str) -> Any | None:
        """Return the dataset of a name, None where there is none."""
        item = self.item(key)
        return item if item is not None and hasattr(item, "shape") else None

    def array(self, key: str) -> np.ndarray:
        """Return a dataset's values; `ScanError` where there are none, not all were written, or too many claimed.

        Where what is there was asked for, numbers that nobody wrote are NaN.
        """
        dataset = self.dataset(key)
        if dataset is None:
            raise ScanError(f"{self.label}: has no dataset {printable(key)}; it has {names_in(self.names())}")
        check_type(dataset.dtype, f"{self.label}: {key}", "biufcSUO")
        if dataset.size is None or dataset.size > MOST_VALUES:
            raise ScanError(f"{self.label}: {key} has shape {dataset.shape}, which is more than a scan's can be")
        missing = self._missing(dataset, key)
        if len(missing) and not self.options.incomplete:
            raise ScanError(
                f"{self.label}: {printable(key)} is incomplete: some of it was never written, or is in a file that is not there; wait for "
                "the rest, or give --incomplete to take what is there"
            )
        try:
            values = np.asarray(dataset[()])
            if len(missing) and values.dtype.kind in "iuf":
                values = values.astype(np.float64)
                values[missing] = np.nan
            return values
        except (OSError, RuntimeError) as error:
            raise ScanError(f"{self.label}: {key} cannot be read, its data are damaged ({error})") from error

    def usable_filters(self, dataset: Any, key: str) -> None:
        """Raise `PackageMissingError` where the dataset's compression is none that is installed."""
        import h5py

        def missing() -> list[int]:
            plist = dataset.id.get_create_plist()
            numbers = [plist.get_filter(k)[0] for k in range(plist.get_nfilters())]
            return [number for number in numbers if not h5py.h5z.filter_avail(number)]

        if missing():
            with contextlib.suppress(ImportError):
                importlib.import_module("hdf5plugin")  # registers its filters
        if missing():
            named = ", ".join(_FILTERS.get(number, f"filter {number}") for number in missing())
            raise PackageMissingError(
                f"{self.label}: {key} is compressed by {named}, which the package hdf5plugin reads; "
                "install it: pip install 'ptycho-export[compression]'"
            )

    def missing_rows(self, dataset: Any, key: str) -> np.ndarray:
        """Return the rows of patterns that nobody wrote, in this file or in those that a virtual dataset joins."""
        rows = self._missing(dataset, key)
        if len(dataset.shape) == 4:  # a raster's line is lost where one of its frames is
            columns = dataset.shape[1]
            rows = (rows[:, None] * columns + np.arange(columns)).reshape(-1)
        return rows

    def _missing(self, dataset: Any, key: str) -> np.ndarray:
        """Return the rows (first axis) that nobody wrote, here or in what a virtual dataset joins."""
        rows = unwritten_rows(dataset)
        if dataset.shape and dataset.is_virtual:
            for source in dataset.virtual_sources():
                whole = self._source(dataset, source, key, [])
                rows = np.union1d(rows, self._rows_of(source, whole, len(dataset)))
        return rows.astype(np.int64)

    def _rows_of(self, source: Any, whole: Any | None, n: int) -> np.ndarray:
        """Return the rows that a virtual dataset takes from a source that lacks them."""
        rows = _selected_rows(source.vspace, n)
        rows = rows[rows < n]
        if whole is None:
            return rows
        taken = _selected_rows(source.src_space, len(rows))
        if len(taken) != len(rows):
            return rows  # all of them or none: which belongs to which is not known
        lacking = np.union1d(unwritten_rows(whole), taken[taken >= whole.shape[0]])
        return rows[np.isin(taken, lacking)]

    def _file(self, path: Path) -> Any:
        import h5py

        if path not in self._open:
            try:
                self._open[path] = h5py.File(path, "r", locking=False)
            except OSError as error:
                busy = "h5clear" in str(error) or "already open" in str(error)
                if busy and self.options.incomplete:
                    self._open[path] = h5py.File(path, "r", swmr=True, locking=False)
                elif busy:
                    raise ScanError(
                        f"{path.name}: is still being written (SWMR), or its writer died; follow it with "
                        "ptycho-runtime live BUNDLE SCAN --follow, wait for its end, or give --incomplete to take the frames "
                        "that are there"
                    ) from error
                else:
                    raise ScanError(f"{path.name}: cannot be read as HDF5 ({error})") from error
        return self._open[path]

    def _walk(self, group: Any, parts: list[str], key: str, hops: list[str]) -> Any | None:
        """Follow a path part by part, as HDF5 would, but never out of the folder."""
        import h5py

        at = group
        for k, part in enumerate(parts):
            if part in ("", "."):
                continue
            if not isinstance(at, h5py.Group):
                return None
            if not at.id.links.exists(part.encode()):
                return None
            link = at.get(part, getlink=True)
            rest = parts[k + 1 :]
            if isinstance(link, h5py.HardLink):
                at = at[part]
                continue
            if len(hops) >= _MOST_LINKS:
                raise ScanError(f"{self.label}: the links of {printable(key)} lead in circles; no patterns are there")
            if isinstance(link, h5py.SoftLink):
                target = link.path.split("/")
                start = at.file["/"] if link.path.startswith("/") else at
                return self._walk(start, [*target, *rest], key, [*hops, link.path])
            file = self._beside(at.file, link.filename, key)
            if not file.is_file():
                raise ScanIncompleteError(
                    f"{self.label}: is incomplete: {printable(key)} is a link to {printable(link.filename)}, which is not there"
                )
            return self._walk(self._file(file), [*link.path.split("/"), *rest], key, [*hops, link.filename])
        return at

    def _beside(self, file: Any, name: str, key: str) -> Path:
        """Return the file that a link means, refusing those outside the scan's folder unless links are to be followed."""
        path = (Path(file.filename).resolve().parent / name).resolve()
        if not self.options.follow_links and not path.is_relative_to(self.folder):
            raise ScanError(
                f"{self.label}: {printable(key)} links to {printable(name)}, outside the scan's folder; "
                "give --follow-links to read it all the same"
            )
        return path

    def _source(self, dataset: Any, source: Any, key: str, hops: list[str]) -> Any | None:
        """Return a virtual dataset's source, None where it is not there."""
        if "%" in source.file_name or "%" in source.dset_name:
            raise ScanError(f"{self.label}: {printable(key)} names its parts by a pattern; expected their names")
        if len(hops) >= _MOST_LINKS:
            raise ScanError(f"{self.label}: the links of {printable(key)} lead in circles; no patterns are there")
        file = dataset.file
        if source.file_name != ".":
            path = self._beside(file, source.file_name, key)
            if not path.is_file():
                return None
            file = self._file(path)
        hops = [*hops, source.file_name]
        whole = self._walk(file, source.dset_name.split("/"), key, hops)
        if whole is None or not hasattr(whole, "shape"):
            return None
        self._check_storage(whole, key, hops)
        return whole

    def _check_storage(self, dataset: Any, key: str, hops: list[str]) -> None:
        """Refuse a dataset whose bytes are elsewhere, or are more than its file holds."""
        what = f"{self.label}: {printable(key)}"
        if dataset.shape and dataset.shape[0] > MOST_FRAMES:
            raise ScanError(
                f"{what} has shape {dataset.shape}, which is more than a scan's can be; it is incomplete, or no scan"
            )
        if dataset.external:
            raise ScanError(
                f"{what} keeps its numbers in another file (external storage), which is never read; copy them into the file"
            )
        if dataset.is_virtual:
            for source in dataset.virtual_sources():
                self._source(dataset, source, key, hops)
            return
        if dataset.chunks is not None:
            size = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
            if size > _MOST_CHUNK_BYTES:
                raise ScanError(f"{what} is stored in chunks of {size / 2**20:.0f} MiB; 512 MiB are the most")
            stored, claimed = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
            if stored and claimed > max(1 << 30, _MOST_RATIO * stored):
                raise ScanError(
                    f"{what} has shape {dataset.shape} but only {stored} bytes are stored: "
                    "it is incomplete, most of it was never written"
                )


def _is_matlab(path: Path) -> bool:
    """Say whether a user block is MATLAB's."""
    with path.open("rb") as file:
        return file.read(6) == b"MATLAB"


def unwritten_rows(dataset: Any) -> np.ndarray:
    """Return the rows (first axis) of a dataset of which some chunk was never written; all where nothing is stored."""
    if dataset.shape is None or not dataset.shape or dataset.is_virtual or dataset.external:
        return _uncovered(dataset) if dataset.shape and dataset.is_virtual else np.zeros(0, np.int64)
    n = dataset.shape[0]
    if dataset.chunks is None:
        size = dataset.size * dataset.dtype.itemsize
        return np.arange(n if size and not dataset.id.get_storage_size() else 0)
    step = dataset.chunks[0]
    per_row = int(
        np.prod([-(-s // c) for s, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)], dtype=object)
    )
    blocks = -(-n // step)
    if dataset.id.get_num_chunks() >= blocks * per_row:
        return np.zeros(0, np.int64)
    if blocks > MOST_VALUES:
        file = printable(Path(dataset.file.filename).name)
        raise ScanError(
            f"{file}: {printable(dataset.name)} has shape {dataset.shape}, most of which was never written: it is incomplete"
        )
    written = np.zeros(blocks, np.int64)

    def count(chunk: Any) -> None:
        written[chunk.chunk_offset[0] // step] += 1

    dataset.id.chunk_iter(count)
    rows = np.arange(n)
    return rows[np.repeat(written < per_row, step)[:n]]


def _uncovered(dataset: Any) -> np.ndarray:
    """Return the rows of a virtual dataset that no source gives."""
    covered = np.zeros(dataset.shape[0], bool)
    for source in dataset.virtual_sources():
        rows = _selected_rows(source.vspace, len(covered))
        covered[rows[rows < len(covered)]] = True
    return np.flatnonzero(~covered)


def _selected_rows(space: Any, n: int) -> np.ndarray:
    """Return the rows (first axis) that a selection of a virtual dataset takes, in their order: all n, or those that it names."""
    import h5py

    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS:
        return np.arange(n)
    if space.is_regular_hyperslab():
        start, stride, count, block = (int(values[0]) for values in space.get_regular_hyperslab())
        # One of them says that there is no end where the dataset may grow.
        count, block = min(count, n), min(block, n)
        return (start + stride * np.arange(count)[:, None] + np.arange(block)).reshape(-1)
    blocks = {(int(first[0]), int(last[0])) for first, last in space.get_select_hyper_blocklist()}
    return np.unique(np.concatenate([np.arange(first, last + 1) for first, last in blocks]))
