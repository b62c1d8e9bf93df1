"""What streams hold is taken as it is or refused by name; the scale of a run is settled before its first frame."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptycho_runtime.errors import OutputError, ScanError
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.live.journal import Journal
from ptycho_runtime.live.replay import probe_fields
from ptycho_runtime.live.run import DEAD, LiveOptions
from ptycho_runtime.live.scale import exactly_again, known_scale, scale_of_window
from ptycho_runtime.live.sources.codecs import CODECS, decoded, encoded
from ptycho_runtime.live.sources.ntndarray import attribute_position, frame_of, positions_of, probe_of
from ptycho_runtime.live.sources.plan import read_plan
from ptycho_runtime.live.sources.swmr import FollowSource
from ptycho_runtime.live.store import Store
from ptycho_runtime.live.values import FaultError, Frame

EXPORT = Export(Path("wts.zip"), {}, 32, 1, "amplitude", "half_n_over_rms", None, "J", -1.0)


def ntndarray(values: Any, sizes: tuple[int, ...], codec: str = "", parameters: Any = None, **fields: Any) -> Any:
    stamp = SimpleNamespace(secondsPastEpoch=100, nanoseconds=500_000_000)
    return SimpleNamespace(
        value=values,
        dimension=[SimpleNamespace(size=size) for size in sizes],
        codec=SimpleNamespace(name=codec, parameters=parameters),
        uncompressedSize=fields.pop("uncompressed", 0),
        uniqueId=7,
        dataTimeStamp=stamp,
        timeStamp=stamp,
        attribute=[SimpleNamespace(name=name, value=value) for name, value in fields.items()],
    )


VALUES = np.arange(15, dtype=np.uint16).reshape(3, 5) * 1000


def test_an_image_is_rows_of_columns_with_its_id_time_and_attributes() -> None:
    frame = frame_of(ntndarray(VALUES.ravel(), (5, 3), x=1.5, y=2, note="a"))
    assert frame is not None
    assert np.array_equal(frame.values, VALUES)
    assert (frame.id, frame.time_s, frame.attributes) == (7, 100.5, {"x": 1.5, "y": 2, "note": "a"})
    assert attribute_position(frame, ("x", "y")).xy_px.tolist() == [[1.5, 2.0]]
    assert np.isnan(attribute_position(frame, ("x", "z")).xy_px[0, 1])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_codecs_give_back_what_was_compressed(codec: str, dtype: str) -> None:
    values = np.random.default_rng(0).poisson(3, (233, 140)).astype(dtype)
    packed = encoded(values, codec)
    assert packed.dtype == np.uint8
    code = {"uint8": 5, "uint16": 6, "int32": 3, "float32": 9}[dtype]
    frame = frame_of(ntndarray(packed, (140, 233), codec, code))
    assert frame is not None
    assert frame.values.dtype == dtype
    assert np.array_equal(frame.values, values)


@pytest.mark.parametrize("codec", CODECS)
def test_bytes_that_are_cut_or_of_another_size_are_a_fault(codec: str) -> None:
    packed = encoded(VALUES, codec)
    for data, count in ((packed[: len(packed) // 2], 15), (packed, 14), (packed, 400), (np.zeros(40, np.uint8), 15)):
        with pytest.raises(FaultError):
            decoded(data, codec, np.dtype(np.uint16), count)


def test_codec_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(FaultError, match="codec 'jpeg'; expected lz4, bslz4, blosc or none"):
        frame_of(ntndarray(VALUES.ravel(), (5, 3), "jpeg", 6))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (ntndarray(VALUES.ravel(), (5, 3, 2)), r"axes \[5, 3, 2\]; expected"),
        (ntndarray(VALUES.ravel(), (5, 4)), "has 15 numbers; expected 20"),
        (ntndarray(np.zeros(15, bool), (5, 3)), "holds bool; expected counts or amplitudes"),
        (ntndarray(np.zeros(9, np.uint8), (5, 3), "lz4"), "does not say its type"),
        (ntndarray(VALUES.ravel(), (1 << 20, 1 << 20)), "expected"),
    ],
)
def test_what_is_no_image_is_a_fault(value: Any, message: str) -> None:
    with pytest.raises(FaultError, match=message):
        frame_of(value)


def test_array_without_axes_is_no_frame() -> None:
    assert frame_of(ntndarray(None, ())) is None
    assert frame_of(ntndarray(VALUES.ravel(), (5, 3, 1))) is not None


def test_probes() -> None:
    rng = np.random.default_rng(0)
    probe = (rng.normal(size=(3, 8, 8)) + 1j * rng.normal(size=(3, 8, 8))).astype(np.complex64)
    fields = probe_fields(probe)
    sizes = tuple(axis["size"] for axis in fields["dimension"])
    assert np.array_equal(probe_of(ntndarray(fields["value"][1], sizes)), probe)
    for values, axes in (
        (fields["value"][1], (2, 8, 24)),
        (fields["value"][1][:-1], sizes),
        (np.full(384, np.nan, np.float32), sizes),
    ):
        with pytest.raises(FaultError, match="expected float32 of"):
            probe_of(ntndarray(values, axes))


def test_tables_of_positions() -> None:
    found = positions_of({"ID": [1, 2], "x": [0.5, 1.5], "y": [2.5, 3.5]})
    assert found is not None
    assert found.ids is not None
    assert (found.ids.tolist(), found.xy_px.tolist()) == ([1, 2], [[0.5, 2.5], [1.5, 3.5]])
    assert positions_of({"id": None, "x": None, "y": None}) is None
    with pytest.raises(FaultError, match="expected x, y and id or time"):
        positions_of({"x": [1], "y": [1]})
    with pytest.raises(FaultError, match="expected as many in each"):
        positions_of({"id": [1, 2], "x": [1], "y": [1]})


def test_plans(tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    path.write_text("# motors\nid, x, y\n4,1.5,2\n9,3,4\n")
    plan = read_plan(path)
    assert plan.ids is not None
    assert (plan.ids.tolist(), plan.xy_px.tolist()) == ([4, 9], [[1.5, 2.0], [3.0, 4.0]])
    for text, message in (
        ("a,b\n1,2\n", "expected a first line id,x,y or x,y"),
        ("x,y\n1,two\n", "holds what is no number"),
        ("x,y\n1,nan\n", "one that is no number"),
        ("x,y\n", "0 positions"),
        ("id,x,y\n1,2,3\n1,4,5\n", "has an id twice"),
    ):
        path.write_text(text)
        with pytest.raises(ScanError, match=message):
            read_plan(path)


def test_scale_is_given_then_of_a_reference_then_frozen_then_of_a_window() -> None:
    energy = np.random.default_rng(0).uniform(1000.0, 3000.0, 64)
    given = known_scale(EXPORT, 0.5, energy, "ref.h5")
    assert given is not None
    assert (given.factor, str(given)) == (0.5, "input_scale_factor 0.5, as given")
    reference = known_scale(EXPORT, None, energy, "ref.h5")
    assert reference is not None
    assert reference.factor == pytest.approx(16 / np.sqrt(energy.mean()), rel=1e-12)
    assert "of the reference scan ref.h5" in str(reference)
    assert known_scale(EXPORT, None, None) is None
    window = scale_of_window(EXPORT, energy)
    assert window.factor == reference.factor
    assert window.uncertainty == pytest.approx(0.5 * energy.std() / energy.mean() / 8)


def test_uncertainty_of_a_window_is_what_windows_scatter_by() -> None:
    rng = np.random.default_rng(1)
    found = [scale_of_window(EXPORT, rng.uniform(1000.0, 3000.0, 64)) for _ in range(400)]
    factors = np.array([scale.factor for scale in found])
    assert factors.std() / factors.mean() == pytest.approx(np.mean([scale.uncertainty for scale in found]), rel=0.15)


def test_the_command_that_makes_it_exactly() -> None:
    used = scale_of_window(EXPORT, np.array([900.0]))
    text = exactly_again(used, used.factor / 1.05, Path("wts.zip"))
    assert "+5 % from that of all frames" in text
    assert f"reconstruct wts.zip SCAN --input-scale {used.factor / 1.05:.9g}" in text
    assert exactly_again(used, used.factor, Path("wts.zip")) == ""


def test_frames_that_no_detector_gives() -> None:
    options = LiveOptions()
    assert options.check(Frame(1, 0.0, np.zeros((2, 2), np.uint16))) == DEAD
    assert options.check(Frame(1, 0.0, np.ones((2, 2), np.float32))) == ""
    for values, message in (
        (np.array([[1, -1]], np.int32), "negative values"),
        (np.array([[1.0, np.nan]], np.float32), "NaN or infinity"),
        (np.array([[1.0, np.inf]], np.float32), "NaN or infinity"),
    ):
        with pytest.raises(FaultError, match=f"frame 5 holds {message}"):
            options.check(Frame(5, 0.0, values))
    masked = LiveOptions(bad=np.array([[False, True]]))
    assert masked.check(Frame(1, 0.0, np.array([[1, -1]], np.int32))) == ""


def test_disk_that_refuses_is_a_fault(tmp_path: Path) -> None:
    store = Store(1, 1 << 20, tmp_path / "missing")
    store.put(1, VALUES)
    with pytest.raises(FaultError, match=r"cannot be written to disk .* --spool-folder"):
        store.put(2, VALUES)


def test_journal_takes_no_folder_that_is_not_its_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "o.h5")
    journal.folder.mkdir()
    (journal.folder / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is no journal of ptycho-runtime"):
        journal.begin()
    journal.remove()
    assert (journal.folder / "mine.txt").read_text() == "mine"


def test_positions_of_a_file_that_are_no_pixels(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["diff3d"], file["xcoords"], file["ycoords"] = np.ones((2, 4, 4)), np.zeros(2), np.zeros(2)
        file["ycoords"].attrs["units"] = "um"
        with pytest.raises(FaultError, match=r"s\.h5: ycoords is in um; expected pixels; give --positions plan\.csv"):
            FollowSource(tmp_path / "s.h5")._datasets(file)
