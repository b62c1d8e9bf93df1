"""The figure where matplotlib is not installed: the same panels side by side, with scale bar and colour bars."""

from __future__ import annotations

import textwrap
from typing import IO, TYPE_CHECKING

import numpy as np

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.image.figure import MAP, VERDICT_COLOURS, mixed
from ptycho_runtime.image.paper.page import Page, Panel

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw

_SIDE_PX = 560  # of a panel's longer side
_GAP_PX, _BAR_PX, _LABEL_PX = 40, 22, 110
_FONT_PX, _LINE_PX = 17, 22
_GREY = np.array([(0, 0, 0), (255, 255, 255)], float)
# Begins and ends with the same colour.
_CYCLE = np.array([(226, 217, 226), (98, 118, 186), (48, 20, 55), (178, 83, 79), (226, 217, 226)], float)
_POINTS = {"grey": _GREY, "cyclic": _CYCLE, "sequential": MAP, "trust": MAP}
_NOTHING = (235, 238, 242)


# What the font has no letters for.
_LETTERS = str.maketrans({"µ": "u", "×": "x", "±": "+-", "π": "pi", "−": "-"})


def draw(page: Page) -> Picture:
    """Return the figure of a page."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_PX)
    width, height = page.x[1] - page.x[0], page.y[1] - page.y[0]
    zoom = _SIDE_PX / max(width, height)
    size = max(round(width * zoom), 1), max(round(height * zoom), 1)
    step = size[0] + _BAR_PX + _LABEL_PX + _GAP_PX
    rows = (len(page.panels) + 1) // 2
    page_width = 2 * step + _GAP_PX
    title = textwrap.wrap(page.title.translate(_LETTERS), page_width // 9)
    caption = textwrap.wrap(page.caption.translate(_LETTERS), page_width // 9)
    top = _LINE_PX * (len(title) + 2)
    line = size[1] + 3 * _LINE_PX
    picture = Image.new("RGB", (page_width, top + rows * line + _LINE_PX * (len(caption) + 1)), "white")
    pen = ImageDraw.Draw(picture)
    pen.font = font
    for number, text in enumerate(title):
        pen.text((_GAP_PX, 8 + number * _LINE_PX), text, fill="black")
    verdict = page.verdict.removesuffix(" (partial)")
    pen.text((_GAP_PX, 8 + len(title) * _LINE_PX), page.verdict, fill=VERDICT_COLOURS[verdict])
    for number, panel in enumerate(page.panels):
        left, upper = _GAP_PX + (number % 2) * step, top + (number // 2) * line
        pen.text((left, upper), panel.title.translate(_LETTERS), fill="black")
        upper += _LINE_PX
        picture.paste(Image.fromarray(_pixels(panel)).resize(size, Image.Resampling.NEAREST), (left, upper))
        if panel.colours == "trust":
            for x, y in (page.flagged - [page.x[0], page.y[0]]) * zoom:
                pen.line((left + x - 4, upper + y - 4, left + x + 4, upper + y + 4), fill=(0, 220, 255), width=2)
                pen.line((left + x - 4, upper + y + 4, left + x + 4, upper + y - 4), fill=(0, 220, 255), width=2)
        _scale_bar(pen, page, left, upper + size[1], zoom)
        _colour_bar(picture, pen, panel, (left + size[0] + 8, upper, size[1]))
    for number, text in enumerate(caption):
        pen.text((_GAP_PX, top + rows * line + number * _LINE_PX), text, fill="black")
    return picture


def _pixels(panel: Panel) -> np.ndarray:
    """Return a panel's colours, (rows, columns, 3) uint8."""
    known = np.isfinite(panel.values)
    level = (np.where(known, panel.values, panel.low) - panel.low) / (panel.high - panel.low)
    pixels = mixed(_POINTS[panel.colours], level)
    pixels[~known] = _NOTHING
    found: np.ndarray = pixels.astype(np.uint8)
    return found


def _scale_bar(pen: ImageDraw, page: Page, left: int, low: int, zoom: float) -> None:
    """Draw a bar of round length in the lower left corner of a panel."""
    length = page.bar * zoom
    label = page.bar_label.translate(_LETTERS)
    wide = max(length, pen.textlength(label))
    pen.rectangle((left + 6, low - 40, left + 18 + wide, low - 6), fill="white")
    pen.rectangle((left + 12, low - 16, left + 12 + length, low - 11), fill="black")
    pen.text((left + 12, low - 38), label, fill="black")


def _colour_bar(picture: Picture, pen: ImageDraw, panel: Panel, place: tuple[int, int, int]) -> None:
    """Draw a panel's colours from high to low, with both values and the unit."""
    from PIL import Image

    left, upper, height = place
    bar = mixed(_POINTS[panel.colours], np.linspace(1, 0, height))[:, None].astype(np.uint8)
    picture.paste(Image.fromarray(np.ascontiguousarray(bar)).resize((_BAR_PX, height)), (left, upper))
    right = left + _BAR_PX + 6
    pen.text((right, upper), f"{panel.high:.3g}", fill="black")
    pen.text((right, upper + height - _LINE_PX), f"{panel.low:.3g}", fill="black")
    for number, word in enumerate(textwrap.wrap(panel.unit, 12)):
        pen.text((right, upper + height // 3 + number * _LINE_PX), word, fill="black")


def save(picture: Picture, file: IO[bytes], provenance: dict[str, str]) -> None:
    """Write a figure as PNG, with the mark of this project and what made it."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    for name, value in {"Software": CREATOR, **provenance}.items():
        text.add_text(name, value.encode("ascii", "backslashreplace").decode())
    picture.save(file, format="PNG", pnginfo=text)
