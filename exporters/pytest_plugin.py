"""A pytest plug-in: `pytest --ptycho-bundle PATH` turns a bundle into parity tests in anybody's repository.

A bundle with exports is verified as it is stored; one without is exported into a temporary folder first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from exporters.parity import ParityReport, ParityRow


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("ptycho-export")
    group.addoption(
        "--ptycho-bundle",
        action="append",
        default=[],
        metavar="PATH",
        help="bundle to prove; may be given several times",
    )
    group.addoption(
        "--ptycho-require",
        action="append",
        default=[],
        metavar="DEVICE",
        help="device that must have taken part (cuda, tensorrt)",
    )
    group.addoption("--ptycho-batches", default="1,3,16", metavar="LIST", help="batch sizes (1,3,16)")


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add one test for each row of each bundle's parity report."""
    for path in config.getoption("--ptycho-bundle"):
        items.extend(BundleCollector.from_parent(session, name=Path(path).name, path=Path(path).absolute()).collect())


class BundleCollector(pytest.Collector):
    """One bundle."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for each graph, runtime, device and batch."""
        report, problem = self._report()
        if report is None:
            yield RowItem.from_parent(self, name="readable", row=None, problem=problem)
            return
        required = set(self.config.getoption("--ptycho-require"))
        for row in report.rows:
            name = f"{row.graph}-{row.runtime}-{row.device}-batch{row.batch}"
            yield RowItem.from_parent(self, name=name, row=row, problem="", required=row.device in required)
        yield RowItem.from_parent(self, name="verdict", row=None, problem="" if report.passed else report.summary())

    def _report(self) -> tuple[ParityReport | None, str]:
        import tempfile

        from exporters.parity import ParityError
        from exporters.pipeline import export_bundle, verify_bundle
        from ptycho_torch.bundle import read_bundle

        batches = tuple(int(size) for size in self.config.getoption("--ptycho-batches").split(","))
        try:
            if read_bundle(self.path).exports is not None:
                return verify_bundle(self.path, batches=batches), ""
            with tempfile.TemporaryDirectory(prefix="ptycho-bundle-") as folder:
                return export_bundle(self.path, folder, batches=batches).report, ""
        except (ParityError, ValueError, FileNotFoundError) as error:
            return None, str(error)


class ParityFailure(AssertionError):
    """A row that does not hold."""


class RowItem(pytest.Item):
    """One row of the report as a test."""

    def __init__(self, *, row: ParityRow | None, problem: str, required: bool = False, **kwargs: Any) -> None:
        """Take the row; `problem` fails the test by itself."""
        super().__init__(**kwargs)
        self.row, self.problem, self.required = row, problem, required

    def runtest(self) -> None:
        """Fail or skip as the row says."""
        if self.problem:
            raise ParityFailure(self.problem)
        if self.row is None:
            return
        if self.row.verdict == "not run":
            if self.required:
                raise ParityFailure(f"required, but not run: {self.row.reason}")
            pytest.skip(f"not run: {self.row.reason}")
        if self.row.verdict != "passed":
            name, share = self.row.worst()
            raise ParityFailure(
                self.row.reason or f"{name}: {share:.1f} times the allowed error; {self.row.outputs[name]}"
            )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """Return the failure in one line instead of a traceback."""
        return f"{self.name}: {excinfo.value}"

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the test comes from."""
        return self.path, None, f"parity of {self.path.name}: {self.name}"
