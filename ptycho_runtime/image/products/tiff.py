"""TIFF: amplitude and phase as two pages with names and pixel size, as OME-TIFF, which Fiji, napari and most viewers read."""

from __future__ import annotations

import io
from typing import IO
from xml.etree import ElementTree

import numpy as np

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.files import printable
from ptycho_runtime.image.products.values import amplitude_and_phase, comments, pixel_m, provenance
from ptycho_runtime.image.result import Reconstruction

SOFTWARE_TAG = 305
PAGES = ("amplitude", "phase (rad)")
_DESCRIPTION_TAG, _X_RESOLUTION_TAG, _Y_RESOLUTION_TAG, _PAGE_NAME_TAG, _RESOLUTION_UNIT_TAG = 270, 282, 283, 285, 296
_CENTIMETRE = 3
_CENTIMETRE_M = 0.01
_LONGEST = 100_000  # letters of one text in the description
_OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def write(result: Reconstruction, file: IO[bytes]) -> None:
    """Write two float32 pages: amplitude and phase (rad), NaN where nothing was measured."""
    from PIL import Image
    from PIL.TiffImagePlugin import AppendingTiffWriter

    memory = io.BytesIO()
    tags: dict[int, object] = {SOFTWARE_TAG: CREATOR}
    size = pixel_m(result)
    if size is not None:
        tags[_RESOLUTION_UNIT_TAG] = _CENTIMETRE
        tags[_X_RESOLUTION_TAG], tags[_Y_RESOLUTION_TAG] = (_CENTIMETRE_M / side for side in size)
    with AppendingTiffWriter(memory) as pages:
        for number, (name, values) in enumerate(zip(PAGES, amplitude_and_phase(result), strict=True)):
            own = {_PAGE_NAME_TAG: name} | ({} if number else {_DESCRIPTION_TAG: description(result)})
            Image.fromarray(values).save(pages, format="TIFF", tiffinfo=tags | own)
            pages.newFrame()
    file.write(memory.getvalue())


def description(result: Reconstruction) -> str:
    """Return OME-XML, ASCII: names of the pages, the pixel's size where it is known, comments and provenance."""
    rows, columns = result.object.shape
    root = ElementTree.Element("OME", {"xmlns": _OME, "Creator": CREATOR})
    image = ElementTree.SubElement(root, "Image", {"ID": "Image:0", "Name": _text(result.scan.name)})
    ElementTree.SubElement(image, "Description").text = _text(comments(result))
    size = pixel_m(result)
    physical = {} if size is None else _physical(size)
    pixels = ElementTree.SubElement(
        image,
        "Pixels",
        {"ID": "Pixels:0", "DimensionOrder": "XYCZT", "Type": "float", "SizeX": str(columns), "SizeY": str(rows)}
        | {"SizeC": str(len(PAGES)), "SizeZ": "1", "SizeT": "1"}
        | physical,
    )
    for number, name in enumerate(PAGES):
        ElementTree.SubElement(pixels, "Channel", {"ID": f"Channel:0:{number}", "Name": name, "SamplesPerPixel": "1"})
    for number in range(len(PAGES)):
        ElementTree.SubElement(pixels, "TiffData", {"IFD": str(number), "FirstC": str(number), "PlaneCount": "1"})
    ElementTree.SubElement(image, "AnnotationRef", {"ID": "Annotation:0"})
    annotations = ElementTree.SubElement(root, "StructuredAnnotations")
    annotation = ElementTree.SubElement(annotations, "MapAnnotation", {"ID": "Annotation:0", "Namespace": CREATOR})
    value = ElementTree.SubElement(annotation, "Value")
    for key, text in provenance(result).items():
        ElementTree.SubElement(value, "M", {"K": key}).text = _text(text)
    document: bytes = ElementTree.tostring(root)
    return document.decode()


def _physical(size_m: tuple[float, float]) -> dict[str, str]:
    found = {}
    for axis, side in zip("XY", size_m, strict=True):
        found[f"PhysicalSize{axis}"], found[f"PhysicalSize{axis}Unit"] = f"{np.float64(side) * 1e6:.9g}", "µm"
    return found


def _text(text: str) -> str:
    """Return text of files as XML can hold it."""
    return printable(text, _LONGEST)
