"""The bench report as a picture."""

from __future__ import annotations

import io

from exporters.bench.report import BenchReport
from ptycho_runtime.drawing import import_matplotlib


def plot_png(report: BenchReport) -> bytes:
    """Return a PNG: times as fast as eager, and share of the matrix-multiply limit, by batch size; a row of panels a device."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    devices = report.devices() or ["cpu"]
    figure = Figure(figsize=(13.5, 4.8 * len(devices)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{report.name}: {report.threads} thread{'s' * (report.threads > 1)}")
    panels = figure.subplots(len(devices), 2, squeeze=False)
    places = {batch: number for number, batch in enumerate(report.batches())}
    for device, (speed, limit) in zip(devices, panels, strict=True):
        names = report.contenders(device)
        for number, name in enumerate(names):
            nudge = (number - (len(names) - 1) / 2) * 0.5 / len(names)  # so that error bars do not hide one another
            # Ten colours, then the same with dashes.
            colour, marker, line = (
                f"C{number % 10}",
                "ods^v"[number // 10 % 5],
                ("-", "--", ":", "-.")[number // 10 % 4],
            )
            ratios = {b: r for b in places if (r := report.ratio(name, b, device)) is not None}
            if ratios:
                medians = [r.median for r in ratios.values()]
                errors = [[r.median - r.low for r in ratios.values()], [r.high - r.median for r in ratios.values()]]
                x = [places[b] + nudge for b in ratios]
                speed.errorbar(x, medians, errors, marker=marker, linestyle=line, capsize=3, label=name, color=colour)
            shares = {b: s for b in places if (s := report.limit_share(name, b, device)) is not None}
            if shares:
                x = [places[b] + nudge for b in shares]
                limit.plot(x, list(shares.values()), marker=marker, linestyle=line, label=name, color=colour)
        speed.axhline(1.0, color="0.6", linewidth=0.8)
        limit.axhline(1.0, color="0.6", linewidth=0.8)
        limit.yaxis.set_major_formatter(PercentFormatter(1.0))
        for axes, title in (
            (speed, "times as fast as eager (quartiles)"),
            (limit, "share of the matrix-multiply limit"),
        ):
            axes.set(title=f"{device}: {title}", xlabel="batch (groups)", ylim=(0.0, None))
            axes.set_xticks(list(places.values()), [str(batch) for batch in places])
            axes.grid(alpha=0.3)
        if names:
            limit.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
