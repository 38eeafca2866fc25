"""One page of all benchmarks' figures, with a bar for each: plain HTML and SVG, nothing loaded."""

from __future__ import annotations

from html import escape
from itertools import groupby
from pathlib import Path

from pydantic import JsonValue

from evals.benchmarks.report import Report, Row

WIDTH = 320  # pixels of the longest bar
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin-bottom: 2rem }
td, th { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884 }
td:first-child, th:first-child { text-align: left }
.baseline { color: #777 } .no { color: #b00 } .yes { color: #080 }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd } }
"""


def _bar(row: Row, longest: float) -> str:
    length = max(1, round(WIDTH * row.value / longest)) if longest > 0 else 1
    fill = "#999" if row.baseline else "#3572b0"
    bar = f'<rect width="{length}" height="12" fill="{fill}"/>'
    return f'<svg width="{WIDTH}" height="12" role="img" aria-label="{row.value:.4g}">{bar}</svg>'


def _line(row: Row, longest: float) -> str:
    sign = {"higher": "≥", "lower": "≤"}.get(row.better, "")
    target = "" if row.target is None else f"{sign} {row.target:g}"
    word = {None: "", True: "yes", False: "no"}[row.met]
    kind = ' class="baseline"' if row.baseline else ""
    cells = (escape(row.name), f"{row.value:,.4g} {escape(row.unit)}", target)
    inner = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr{kind}>{inner}<td class="{word}">{word}</td><td>{_bar(row, longest)}</td></tr>'


def _table(report: Report) -> str:
    # Bars compare what has the same unit and stands together.
    lines = []
    for _, group in groupby(report.rows, key=lambda row: row.unit):
        rows = list(group)
        longest = max(row.value for row in rows)
        lines += [_line(row, longest) for row in rows]
    head = "<tr><th>figure</th><th>value</th><th>target</th><th>reached</th><th></th></tr>"
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    return f"<h2>{escape(report.title)}</h2><table>{head}{''.join(lines)}</table>{notes}"


def page(reports: list[Report], machine: dict[str, JsonValue]) -> str:
    """The whole page."""
    told = ", ".join(f"{name}: {value}" for name, value in machine.items())
    body = "".join(_table(one) for one in reports)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Airmedic: benchmarks</title>'
        f"<style>{STYLE}</style><h1>Benchmarks</h1><p>{escape(told)}</p>{body}</html>\n"
    )


def write_page(reports: list[Report], machine: dict[str, JsonValue], folder: Path) -> Path:
    """Write it beside the JSON."""
    path = folder / "index.html"
    path.write_text(page(reports, machine))
    return path
