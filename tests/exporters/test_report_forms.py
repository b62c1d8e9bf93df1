"""The page says what was done: rule, units, inputs, what did not run, and pictures that can be read without being seen."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from PIL import Image
from rich.console import Console

from exporters.parity.evidence import Case, Evidence
from exporters.parity.forms.html import to_html
from exporters.parity.forms.pictures import Picture, output_picture, pictures
from exporters.parity.forms.terminal import matrix_table, not_run_lines
from exporters.parity.report import ParityReport
from exporters.parity.rows import ParityRow
from ptycho_runtime import contract

FIGURES = {"max_abs": 1e-7, "rel_l2": 2e-7, "allowed_max_abs": 4e-7, "allowed_rel_l2": 4e-7, "share": 0.5}


def row(runtime: str, device: str, batch: int, reason: str = "") -> ParityRow:
    verdict, outputs = ("not run", {}) if reason else ("passed", {contract.PHASE: dict(FIGURES)})
    return ParityRow("autoencoder", runtime, device, "float32", batch, "simulated", verdict, reason, outputs)


def report() -> ParityReport:
    rows = [row(runtime, "cpu", 1) for runtime in ("torchscript", "onnx")]
    rows += [
        row(runtime, "cuda", batch, "no NVIDIA driver")
        for runtime in ("eager", "torchscript", "onnx")
        for batch in (1, 5)
    ]
    reference = {"model": "eager", "groups": 8, "patterns": "scan.npz", "positions": "the scan's own", "sha256": "ab12"}
    return ParityReport(
        "demo",
        rows,
        reference=reference,
        planned=tuple(r.cell for r in rows),
        rule="error ≤ 4 × eager's",
        notices=["<b>said</b>"],
    )


def case(found: float) -> Case:
    random = np.random.default_rng(1)
    amplitude, phase = random.uniform(0.5, 1.0, (3, 1, 16, 16)), random.uniform(-3, 3, (3, 1, 16, 16))
    reference = {contract.AMPLITUDE: amplitude, contract.PHASE: phase}
    wrong = {contract.AMPLITUDE: amplitude.astype(np.float32), contract.PHASE: (phase + found).astype(np.float32)}
    kinds = ["simulated", "all zero", "scan"]
    return Case("autoencoder", "onnx", "cpu", "float32", 0.5, False, kinds, {}, wrong, reference, {}, contract.PHASE)


def test_the_page_says_rule_inputs_units_and_notices() -> None:
    page = to_html(report())
    for text in (
        "error ≤ 4 × eager&#x27;s",
        "scan.npz",
        "the scan&#x27;s own",
        "ab12",
        "phase, rad",
        "&lt;b&gt;said&lt;/b&gt;",
    ):
        assert text in page, text


def test_what_did_not_run_is_one_line_a_device() -> None:
    page = to_html(report())
    lines = re.findall(r"<tr>(?:(?!</tr>).)*not run: no NVIDIA driver</td></tr>", page)
    assert len(lines) == 1
    assert "eager, torchscript, onnx" in lines[0]
    assert "1, 5" in lines[0]


def test_the_worst_output_is_drawn_as_itself_and_said_in_words() -> None:
    picture = output_picture(case(0.25))[0]
    assert picture.caption.startswith("autoencoder, onnx on cpu: phase, the output nearest to its limits")
    assert "differs by at most 2.5e-01" in picture.alt
    assert picture.uri.startswith("data:image/png;base64,")


def pixels_of(values: np.ndarray) -> np.ndarray:
    """Return the picture of an output with these values, (rows, columns, 3)."""
    shape = (1, 1, *values.shape)
    reference = {contract.OBJECT_REAL: values.reshape(shape)}
    found = {contract.OBJECT_REAL: values.reshape(shape).astype(np.float32)}
    made = Case(
        "autoencoder",
        "onnx",
        "cpu",
        "float32",
        0.5,
        False,
        ["simulated"],
        {},
        found,
        reference,
        found,
        contract.OBJECT_REAL,
    )
    data = base64.b64decode(output_picture(made)[0].uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_map_stands_upright_beside_the_scale_of_its_colours() -> None:
    # Black above, white below in the map; the scale has the large values above.
    pixels = pixels_of(np.repeat(np.linspace(-1.0, 1.0, 64)[:, None], 64, 1))
    rows, maps, scale = pixels.shape[0], pixels[:, 80, 0], pixels[:, 167, 0]
    drawn = np.flatnonzero(pixels[:, 7, 0] < 250)
    assert len(drawn) > 0.6 * rows
    assert maps[drawn[0]] < 10
    assert maps[drawn[-1]] > 240
    assert scale[drawn[0]] > 240
    assert scale[drawn[-1]] < 10
    assert pixels[:, -1].min() == 255


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan], ids=str)
def test_a_map_of_one_value_or_none_is_drawn_too(value: float) -> None:
    assert pixels_of(np.full((64, 64), value)).min() == 0


def test_every_picture_of_a_report_has_words_for_what_is_seen() -> None:
    evidence = Evidence("demo", worst={"autoencoder": case(1e-3)}, shown={"autoencoder": case(1e-3)})
    evidence.histograms["autoencoder", "onnx cpu"] = np.bincount([10, 10, 20], minlength=50)
    made = pictures(evidence)
    assert [len(made)] == [4]
    assert made[0].alt == "Histograms of relative errors, a line for each runtime: autoencoder up to 10^-6.75"
    assert all("err" in picture.alt or "differ" in picture.alt for picture in made)
    page = to_html(report(), [Picture('a "caption"', "what & how", "data:,")])
    assert '<img alt="what &amp; how" src="data:,"><figcaption>a &quot;caption&quot;</figcaption>' in page


def test_a_device_has_one_line_whatever_the_reasons() -> None:
    made = report()
    made.rows += [row("onnx", "cuda", 9, "cuda cannot be used")]
    lines = re.findall(r"<tr>(?:(?!</tr>).)*not run: [^<]*</td></tr>", to_html(made))
    assert len(lines) == 1
    assert "not run: no NVIDIA driver; cuda cannot be used" in lines[0]


def test_where_a_table_has_no_head_each_number_says_what_it_is() -> None:
    page = to_html(report())
    for label, figure in (("max abs", "1.0e-07"), ("of", "4.0e-07"), ("relative L2", "2.0e-07")):
        assert f'<td class="n" data-is="{label}">{figure}</td>' in page
    small = page.partition("@media (max-width: 40rem)")[2].partition("</style>")[0]
    assert "thead { display: none; }" in small
    assert "td[data-is]::before { content: attr(data-is)" in small


def test_the_path_of_a_layer_may_go_on_in_the_next_line() -> None:
    made = report()
    made.rows[1].outputs = {"network.encoder.conv1": dict(FIGURES)}
    assert "<td>network.<wbr>encoder.<wbr>conv1</td>" in to_html(made)


def test_rows_of_a_graph_stand_together_in_the_order_of_the_files() -> None:
    made = report()
    other = row("onnx", "cpu", 1)
    other.graph = "diffraction_to_obj"
    made.rows.append(other)
    made.files = {"diffraction_to_obj": {}, "autoencoder": {}}
    page = to_html(made)
    assert re.findall(r"<td>(diffraction_to_obj|autoencoder)</td><td>(\w+)</td><td>cpu</td>", page) == [
        ("diffraction_to_obj", "onnx"),
        ("autoencoder", "torchscript"),
        ("autoencoder", "onnx"),
    ]


def test_a_notebook_shows_verdict_and_matrix_and_no_tags_of_files() -> None:
    found = report()
    assert repr(found) == f"<ParityReport of demo: passed, {len(found.rows)} rows>"
    found.rows[0].reason = "<b>bold</b>"
    shown = found._repr_html_()
    assert "<strong>passed</strong>" in shown
    assert "<td>1, 5</td>" in shown
    assert "not run: no NVIDIA driver" in shown
    assert "&lt;b&gt;bold" in shown


def test_the_terminal_has_one_line_for_a_device_that_did_not_run() -> None:
    made = report()
    assert not_run_lines(made) == ["not run on cuda: eager, torchscript, onnx (no NVIDIA driver)"]
    assert matrix_table(made).row_count == 3


def test_words_of_a_table_stay_whole_in_eighty_columns() -> None:
    names = "onnx behind its network", "openvino"
    rows = [
        ParityRow(
            "diffraction_to_obj", name, "cuda emulated", "int8 (13 layers) and float32", batch, "scan", "passed", ""
        )
        for batch, name in enumerate(names, 1)
    ]
    for made in rows:
        made.outputs[contract.PHASE] = FIGURES | {"max_abs": 1.2e-9, "rel_l2": 3.4e-7}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(matrix_table(ParityReport("demo", rows)))
    text = console.export_text()
    assert "…" not in text
    for word in ("emulated", "layers)", "float32", "onnx behind its network", "1.2e-09", "3.4e-07", "passed"):
        assert word in text
