"""Stored TorchScript is looked through before PyTorch loads it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import builders as b
import pytest

torch = pytest.importorskip("torch")

from exporters.formats.torchscript_check import check_torchscript  # noqa: E402
from ptycho_torch.errors import BundleError, DamagedBundleError, UnsafeContentError  # noqa: E402


def scripted(module: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def changed(data: bytes, change: Callable[[str, bytes], bytes | None], extra: dict[str, bytes] | None = None) -> bytes:
    """Return a TorchScript file with every member put through a function."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, change(name, archive.read(name))) for name in archive.namelist()]
    kept = [(name, content) for name, content in members if content is not None and not name.endswith(".debug_pkl")]
    return b.zip_of([*kept, *(extra or {}).items()], zipfile.ZIP_STORED)


@pytest.fixture(scope="module")
def sound() -> bytes:
    """Return a small traced network, as exports are."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.ReLU(), torch.nn.Sigmoid())
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(network.eval(), torch.ones(1, 1, 8, 8)), buffer)
    return changed(buffer.getvalue(), lambda name, content: content)


def test_a_traced_network_is_accepted(sound: bytes) -> None:
    check_torchscript(sound, "model.torchscript.pt")


SMALL = {"n_filters_scale": 1, "fno_width": 8, "fno_modes": 4, "fno_blocks": 1, "fno_cnn_blocks": 1}
REAL = {"output_mode": "real_imag", "border_mask": False}


@pytest.mark.parametrize(
    "values",
    [
        {"encoder_attention": "eca", "batch_norm": True},
        {"shared_decoder": True, "probe_mask": "disk", "patch_weighting": "probe"},
        {"era": "U2", "generator": "unet", "physics": "rectangular", **REAL, "patch_weighting": "probe"},
        {"generator": "ffno", "input_transform": "log1p", **REAL},
        {
            "generator": "fno",
            "output_mode": "amp_phase_logits",
            "border_mask": False,
            "input_transform": "instancenorm",
        },
        {"generator": "fno_vanilla", "input_transform": "sqrt", "parity_scale_mode": "input", **REAL},
    ],
    ids=lambda values: "-".join(str(value) for value in values.values()),
)
def test_every_familys_export_is_accepted(values: dict[str, object]) -> None:
    from exporters.formats.torchscript import export_torchscript
    from exporters.graph.graphs import build_graph, graph_io
    from ptycho_torch import create_torch_model_with_gridsize

    model = create_torch_model_with_gridsize(2, 64, {**SMALL, **values})
    for graph in ("diffraction_to_obj", "autoencoder"):
        check_torchscript(export_torchscript(build_graph(model, graph), graph_io(model.spec, graph)[0]), graph)


class ReadsFiles(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", False, 4, dtype=torch.uint8)


class WritesFiles(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "/tmp/canary")
        return x


class Loops(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(x.sum() < 1e9):
            x = x + 1
        return x


class Prints(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print(x)
        return x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (ReadsFiles, r"calls torch\.from_file"),
        (WritesFiles, r"calls torch\.save|calls ops\.aten\.save"),
        (Loops, "holds a While statement"),
        (Prints, "calls print"),
    ],
)
def test_what_is_no_tensor_arithmetic_is_refused_by_name(module: type[torch.nn.Module], message: str) -> None:
    try:
        data = scripted(module())
    except RuntimeError:
        pytest.skip("this PyTorch cannot script it")
    with pytest.raises(UnsafeContentError, match=message):
        check_torchscript(changed(data, lambda name, content: content), "t")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"ops.aten.save(input, 'x')", r"calls ops\.aten\.save"),
        (b"ops.prim.rpc_async(input)", r"calls ops\.prim\.rpc_async"),
        (b"torch.from_file('/etc/passwd')", r"calls torch\.from_file"),
        (b"import os", "holds a Import statement"),
        (b"[x for x in input]", "holds a ListComp statement"),
        (b"(lambda: 1)()", r"calls lambda: 1|calls \(lambda"),
        (b"getattr(ops, 'aten')(input)", "calls getattr"),
    ],
)
def test_a_line_put_into_the_code_is_refused(line: bytes, message: str, sound: bytes) -> None:
    def insert(name: str, content: bytes) -> bytes:
        if not name.endswith(".py") or b"  def forward(" not in content:
            return content
        start = content.index(b":\n", content.index(b"-> Tensor")) + 2
        return content[:start] + b"    " + line + b"\n" + content[start:]

    with pytest.raises(UnsafeContentError, match=message):
        check_torchscript(changed(sound, insert), "t")


def test_a_global_put_into_the_pickle_is_refused(sound: bytes) -> None:
    def replace(name: str, content: bytes) -> bytes:
        return b.done(b.call(b.glob("posix", "system"), b.text("true"))) if name.endswith("/data.pkl") else content

    with pytest.raises(UnsafeContentError, match=r"data\.pkl: holds the global posix\.system; refused"):
        check_torchscript(changed(sound, replace), "t")


def test_members_that_no_export_has_are_refused(sound: bytes) -> None:
    prefix = zipfile.ZipFile(io.BytesIO(sound)).namelist()[0].partition("/")[0]
    with pytest.raises(UnsafeContentError, match=r"holds 'extra/library\.so', which no export has"):
        check_torchscript(changed(sound, lambda _, content: content, {f"{prefix}/extra/library.so": b"x"}), "t")


def test_other_files_are_told() -> None:
    with pytest.raises(DamagedBundleError, match="is no TorchScript file"):
        check_torchscript(b.weights_file(), "t")
    with pytest.raises(BundleError, match="not a zip archive"):
        check_torchscript(b"hello", "t")


def test_code_that_is_no_code_is_told(sound: bytes) -> None:
    for code in (b"class (", b"\0", b"(" * 100_000, b"-" * 100_000 + b"1"):
        data = changed(sound, lambda name, content, code=code: code if name.endswith(".py") else content)
        with pytest.raises(DamagedBundleError, match="is no TorchScript code"):
            check_torchscript(data, "t")
