"""Plots as inline SVG, without a library: they stand in the report and need nothing to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH = 900
NAMES = 190  # pixels for the names at the left
VALUES = 110  # pixels for the values at the right
LINE = 20  # pixels a bar takes
BAR, FAINT, LIMIT = "#3467d6", "#e9eef7", "#b3261e"
FONT = "font-family='system-ui, sans-serif' font-size='12'"


def bars(values: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars: name, length, and what is written behind it."""
    most = max((value for _, value, _ in values), default=0) or 1
    room = WIDTH - NAMES - VALUES
    parts = []
    for number, (name, value, words) in enumerate(values):
        top = number * LINE
        long = max(value, 0) / most * room
        parts.append(f"<rect x='{NAMES}' y='{top + 3}' width='{room}' height='{LINE - 6}' fill='{FAINT}'/>")
        parts.append(f"<rect x='{NAMES}' y='{top + 3}' width='{long:.1f}' height='{LINE - 6}' fill='{BAR}'/>")
        parts.append(f"<text x='{NAMES - 8}' y='{top + 14}' text-anchor='end'>{escape(name)}</text>")
        parts.append(f"<text x='{NAMES + room + 8}' y='{top + 14}'>{escape(words)}</text>")
    return _svg(len(values) * LINE + 4, parts)


def dots(values: Sequence[tuple[str, float | None]], *, limit: float) -> str:
    """One dot for each value on a common scale, and a line at the limit."""
    known = [(name, value) for name, value in values if value is not None]
    most = max([limit, *(value for _, value in known)]) * 1.1
    room, height = WIDTH - 60, 90
    at = 30 + limit / most * room
    parts = [
        f"<line x1='30' x2='{30 + room}' y1='60' y2='60' stroke='#9aa5b5'/>",
        f"<line x1='{at:.1f}' x2='{at:.1f}' y1='12' y2='66' stroke='{LIMIT}' stroke-dasharray='4 3'/>",
        f"<text x='{at:.1f}' y='10' text-anchor='middle' fill='{LIMIT}'>{limit:g} s</text>",
    ]
    for number, (name, value) in enumerate(known):
        x, y = 30 + value / most * room, 24 + number % 4 * 9
        title = f"<title>{escape(name)}: {value:.3f} s</title>"
        parts.append(f"<circle cx='{x:.1f}' cy='{y}' r='4' fill='{BAR}' fill-opacity='.65'>{title}</circle>")
    for step in range(6):
        x = 30 + step / 5 * room
        parts.append(f"<text x='{x:.0f}' y='78' text-anchor='middle'>{step / 5 * most:.2f}</text>")
    return _svg(height, parts)


def _svg(height: int, parts: Sequence[str]) -> str:
    size = f"viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}'"
    return f"<svg {size} {FONT} role='img'>{''.join(parts)}</svg>"
