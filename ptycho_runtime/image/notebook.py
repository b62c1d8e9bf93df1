"""What a notebook shows of a reconstruction: verdict, reasons, where it comes from, and the picture."""

from __future__ import annotations

import base64
import html
import io

from ptycho_runtime.files import printable
from ptycho_runtime.image.figure import VERDICT_COLOURS, figure
from ptycho_runtime.image.result import Reconstruction

_LONGEST = 400  # letters of one text


def to_html(result: Reconstruction) -> str:
    """Return a fragment of HTML: no scripts, no fetches, text of files escaped."""
    rows, columns = result.object.shape
    facts = {
        "scan": result.scan.name,
        "bundle": " ".join(filter(None, (result.origin.bundle, result.origin.bundle_sha256[:12]))),
        "object": f"{rows} × {columns} px"
        + (f", {result.scan.pixel_size_m * 1e9:.4g} nm each" if result.scan.pixel_size_m else ""),
        "patterns": f"{result.done} of {result.groups} groups on {result.device}, {result.timing.seconds:.2f} s",
        "flagged": str(int(result.trust.flagged.sum())),
    }
    lines = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts.items() if value)
    colour = "#{:02x}{:02x}{:02x}".format(*VERDICT_COLOURS[result.trust.verdict])
    partial = " (partial)" if result.partial else ""
    reasons = "".join(f"<li>{_text(reason)}</li>" for reason in result.trust.reasons)
    memory = io.BytesIO()
    figure(result).save(memory, format="PNG")
    picture = base64.b64encode(memory.getvalue()).decode()
    return (
        f'<div><p><strong style="color: {colour}">{result.trust.verdict}{partial}</strong></p>'
        + (f"<ul>{reasons}</ul>" if reasons else "")
        + f'<table>{lines}</table><img style="max-width: 100%" alt="amplitude, phase and trust" '
        + f'src="data:image/png;base64,{picture}"></div>'
    )


def _text(text: str) -> str:
    return html.escape(printable(text, _LONGEST))
