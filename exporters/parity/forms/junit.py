"""The report as JUnit XML: what a CI server counts as passed must be what the report calls passed."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from exporters.parity.report import ParityReport
from exporters.parity.rows import finite


def to_junit(report: ParityReport) -> str:
    """Return one test case a row, stored file that is another, and stitched object, and one for the verdict as a whole."""
    suite = ElementTree.Element("testsuite", name=_legal(f"parity of {report.name}"), errors="0")

    def case(group: str, name: str, failure: str = "", detail: str = "") -> ElementTree.Element:
        made = ElementTree.SubElement(suite, "testcase", classname=_legal(f"parity.{group}"), name=_legal(name))
        if failure:
            ElementTree.SubElement(made, "failure", message=_legal(failure)).text = _legal(detail)
        return made

    for row in report.rows:
        name = f"{row.runtime} {row.device} {row.precision} batch {row.batch}"
        if row.verdict == "failed":
            detail = json.dumps(finite(row.outputs))
            case(row.graph, name, row.reason or "beyond what rounding explains", detail)
        elif row.verdict == "not run" and row.device in report.required:
            case(row.graph, name, f"required, but not run: {row.reason}")
        elif row.verdict == "not run":
            ElementTree.SubElement(case(row.graph, name), "skipped", message=_legal(f"not run: {row.reason}"))
        else:
            case(row.graph, name)
    for problem in report.problems:
        case("stored", problem.split(" ")[0], problem)
    for found in report.stitched:
        figures = ", ".join(f"{value:.1e}" for value in found.deficits)
        name = f"{found.runtime} {found.device} {found.patterns} patterns"
        case("stitched", name, "" if found.passed else f"1−FRC, 1−SSIM of amplitude and phase: {figures}")
    case("report", "verdict", "" if report.passed else report.summary())
    counts = {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped"}
    suite.attrib |= {name: str(len(suite.findall(path))) for name, path in counts.items()}
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _legal(text: str) -> str:
    """Return text without the control characters that XML cannot hold."""
    return "".join(character if character.isprintable() or character in "\n\t" else "�" for character in text)
