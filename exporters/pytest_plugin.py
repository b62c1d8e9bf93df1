"""A pytest plug-in: `pytest --ptycho-bundle PATH` turns a bundle into parity tests in anybody's repository.

A bundle with exports is verified as it is stored; one without is exported into a temporary folder first.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from exporters.parity.report import ParityReport
    from exporters.parity.rows import ParityRow

_DEVICES = ("cuda", "tensorrt")


class Verdicts:
    """The verdict of each bundle, which no -k, -m or --deselect takes out: a run that names a bundle ends with what became of it."""

    def __init__(self) -> None:
        """Wait for the bundles."""
        self.items: list[pytest.Item] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Add the verdicts after everything else has chosen its tests."""
        items.extend(self.items)


VERDICTS = pytest.StashKey[Verdicts]()


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
        choices=_DEVICES,
        help="device that must have taken part; may be given several times",
    )
    group.addoption("--ptycho-batches", default="1,3,16", metavar="LIST", help="batch sizes (1,3,16)")
    group.addoption("--ptycho-scan", metavar="PATH", help="scan whose patterns are used in place of simulated ones")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse batch sizes that are none before anything runs."""
    text = config.getoption("--ptycho-batches")
    if not all(part.strip().isdecimal() and 1 <= int(part) <= 4096 for part in text.split(",")):
        raise pytest.UsageError(f"--ptycho-batches {text!r}: expected whole numbers from 1 to 4096, comma-separated")
    if config.getoption("--ptycho-require") and not config.getoption("--ptycho-bundle"):
        raise pytest.UsageError("--ptycho-require: there is no bundle to prove; give --ptycho-bundle too")

    config.stash[VERDICTS] = Verdicts()
    config.pluginmanager.register(config.stash[VERDICTS])


@pytest.hookimpl(tryfirst=True)  # so that -k and -m choose among these tests too
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add one test for each row of each bundle's parity report."""
    verdicts = config.stash[VERDICTS]
    for path in dict.fromkeys(config.getoption("--ptycho-bundle")):
        *rows, verdict = BundleCollector.from_parent(session, name=path, path=Path(path).absolute()).collect()
        items.extend(rows)
        verdicts.items.append(verdict)


class BundleCollector(pytest.Collector):
    """One bundle."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for each graph, runtime, device, precision and batch, and last one for the verdict as a whole."""
        report, problem = self._report()
        if report is None:
            yield RowItem.from_parent(self, name="readable", row=None, problem=problem)
            return
        for row in report.rows:
            precision = "" if row.precision == "float32" else f"-{row.precision}"
            # Without spaces, so that a name can be given to -k and in a node id.
            runtime = row.runtime.replace(" ", "-")
            name = f"{row.graph}-{runtime}-{row.device}{precision}-batch{row.batch}"
            yield RowItem.from_parent(self, name=name, row=row, problem="", required=row.device in report.required)
        yield RowItem.from_parent(self, name="verdict", row=None, problem="" if report.passed else report.summary())

    def _report(self) -> tuple[ParityReport | None, str]:
        """Return the report; where there is none, None and why."""
        try:
            with warnings.catch_warnings():
                # What PyTorch means to drop one day is no failure of the bundle, even under -W error.
                warnings.simplefilter("ignore")
                return self._prove(), ""
        except (ValueError, FileNotFoundError, RuntimeError) as error:
            # An export that is refused has a report too, and its rows say more than one line can.
            return getattr(error, "report", None), str(error)

    def _prove(self) -> ParityReport:
        from ptycho_torch.build import require_torch
        from ptycho_torch.bundle import read_bundle

        require_torch("--ptycho-bundle")
        from exporters.pipeline import export_bundle, verify_bundle

        option = self.config.getoption
        batches = tuple(int(size) for size in option("--ptycho-batches").split(","))
        chosen = {"batches": batches, "require": tuple(option("--ptycho-require")), "scan": option("--ptycho-scan")}
        if read_bundle(self.path).exports is not None:
            return verify_bundle(self.path, **chosen)
        with tempfile.TemporaryDirectory(prefix="ptycho-bundle-") as folder:
            return export_bundle(self.path, folder, **chosen).report


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
            raise ParityFailure(self.row.reason or _figures(self.row))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """Return the failure in one line instead of a traceback."""
        return f"{self.name}: {excinfo.value}"

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the test comes from."""
        return self.path, None, f"parity of {self.path.name}: {self.name}"


def _figures(row: ParityRow) -> str:
    name, share = row.worst()
    found = row.outputs[name]
    return (
        f"{name}: {share:.3g} times the allowed error; max abs {found['max_abs']:.2e} (allowed {found['allowed_max_abs']:.2e}), "
        f"relative L2 {found['rel_l2']:.2e} (allowed {found['allowed_rel_l2']:.2e})"
    )
