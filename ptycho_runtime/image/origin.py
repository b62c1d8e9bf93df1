"""What a reconstruction was made of: export, scan, options, versions, host and time, for every product to say."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ptycho_runtime.export.bundle import Export
from ptycho_runtime.files import encodable
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.scan.scan import Scan

PACKAGES = ("ptycho-export", "numpy", "onnxruntime-gpu", "onnxruntime", "openvino", "h5py")


@dataclass(frozen=True)
class Origin:
    """Where an image comes from."""

    bundle: str = ""
    """Name of the exported bundle's file."""
    bundle_sha256: str = ""
    bundle_path: Path | None = field(default=None, repr=False)
    scan: str = ""
    """Name of the scan's file, or what the scan was called."""
    scan_path: Path | None = field(default=None, repr=False)
    """None for a scan that was built in Python."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the defaults: of reading the scan (`scan`), and of the image (`image`)."""
    engine: str = ""
    """Engine, precision, groups a run, threads and device that patterns went through."""
    finished: str = ""
    """Time at which the image was done, ISO 8601 in UTC."""

    @property
    def scan_sha256(self) -> str:
        """Return the digest of the scan's file as it is now; empty where there is none."""
        if self.scan_path is None:
            return ""
        try:
            status = self.scan_path.stat()
            return _sha256(self.scan_path, status.st_size, status.st_mtime_ns)
        except OSError:
            return ""

    def facts(self) -> dict[str, str]:
        """Return all that is known as text, by name, with versions and host; what is not known is left out."""
        known = {
            "program": "ptycho-runtime",
            "bundle": self.bundle,
            "bundle_sha256": self.bundle_sha256,
            "scan": self.scan,
            "scan_sha256": self.scan_sha256,
            "options": json.dumps(self.options, sort_keys=True),
            "engine": self.engine,
            "versions": "; ".join(f"{name} {number}" for name, number in versions().items()),
            "host": platform.node(),
            "finished": self.finished,
        }
        return {name: encodable(text) for name, text in known.items() if text}


def origin_of(export: Export, scan: Scan, options: ReconstructOptions, engine: str) -> Origin:
    """Return where an image that is done now comes from."""
    return Origin(
        bundle=export.path.name,
        bundle_sha256=export.sha256,
        bundle_path=export.path,
        scan=scan.name,
        scan_path=scan.path,
        options={"scan": changed(scan.options), "image": changed(options)},
        engine=engine,
        finished=now(),
    )


def now() -> str:
    """Return the time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def changed(options: object) -> dict[str, Any]:
    """Return the fields of a dataclass that are not their defaults, as JSON has them; none where it is no dataclass.

    A path stands there by its name alone.
    """
    if not is_dataclass(options):
        return {}
    values = {entry.name: getattr(options, entry.name) for entry in fields(options)}
    defaults = {entry.name: entry.default for entry in fields(options)}
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in values.items()
        if value != defaults[name]
    }


def versions() -> dict[str, str]:
    """Return the versions of what computes an image, by package, and Python's."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=16)
def _sha256(path: Path, size_bytes: int, changed_ns: int) -> str:
    """Return a file's digest; size and time of change are given so that another file under the name is read anew."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
