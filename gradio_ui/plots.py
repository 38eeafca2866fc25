"""The plots, as Vega-Lite: one can hover and zoom. The browser draws times in the reader's zone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from gradio_ui.wording import OUTCOME, plain, standing
from graph.domain import Outcome
from server.schemas import AgentEventOut, IncidentOut
from server.schemas_overview import BucketOut, SummaryOut

Spec = dict[str, Any]

# Of the same weight on light and on dark paper.
COLOURS = {"good": "#1f9e8f", "warn": "#d99a1c", "bad": "#cf4a50", "busy": "#4b86cc", "calm": "#8fa0a2"}
PALETTE = (
    *("#4b86cc", "#d99a1c", "#1f9e8f", "#cf4a50", "#8a6fc2"),
    *("#6f9f3a", "#c26f9b", "#8fa0a2"),
)
LANES = 12  # pipelines with a lane of their own
CAUSES = 7
FIXES = {"fix_applied": ("Fix applied", "busy"), "fix_undone": ("Fix given up", "calm")}
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
FONT = "ui-sans-serif, system-ui, sans-serif"
QUIET, LINE = "#7d8f92", "#8fa0a240"
CONFIG: Spec = {
    "font": FONT,
    "axis": {
        "labelColor": QUIET,
        "labelFontSize": 12,
        "domain": False,
        "tickColor": LINE,
        "gridColor": LINE,
        "labelPadding": 6,
    },
    "legend": {"labelColor": QUIET, "labelFontSize": 12, "offset": 12},
    "view": {"stroke": None},
}
TIME_AXIS: Spec = {"title": None, "labelOverlap": True, "tickCount": 6, "grid": False}


def _base(height: int, rows: list[Spec]) -> Spec:
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": height,
        "background": None,
        "data": {"values": rows},
        "autosize": {"type": "fit", "contains": "padding"},
        "config": CONFIG,
    }


def _zoom(summary: SummaryOut) -> Spec:
    """Scrolling and dragging move the stretch that is shown; it begins as the whole window."""
    since, until = _ms(summary.since), _ms(summary.until)
    span = [since, until + (until - since) // 60]  # what happened just now is not cut at the edge
    select = {"type": "interval", "encodings": ["x"]}
    return {"name": "zoom", "select": select, "bind": "scales", "value": {"x": span}}


def _colour(field: str, domain: Sequence[str], colours: Sequence[str]) -> Spec:
    return {
        "field": field,
        "type": "nominal",
        "scale": {"domain": list(domain), "range": list(colours)},
        "legend": {
            "title": None,
            "orient": "top",
            "columns": {"expr": "width < 300 ? 1 : width < 700 ? 3 : 6"},
            "symbolType": "circle",
        },
    }


def story_plot(incidents: Sequence[IncidentOut], fixes: Iterable[AgentEventOut], summary: SummaryOut) -> Spec:
    """Failures and fixes over time, a lane for each pipeline. Scrolling zooms, dragging moves."""
    lanes = [dag for dag, _ in Counter(one.task.dag_id for one in incidents).most_common(LANES)]
    rows = [_failure(one, lanes) for one in incidents]
    known = {one.id: one for one in incidents}
    rows += [_fix(one, known, lanes) for one in fixes if one.name in FIXES and one.incident_id in known]
    kinds = {str(row["what"]): COLOURS[str(row.pop("tone"))] for row in rows}
    order = [*lanes, *({str(row["lane"]) for row in rows} - set(lanes))]
    spec = _base(max(140, 30 * len(order) + 60), rows)
    spec["params"] = [_zoom(summary)]
    spec["mark"] = {"type": "point", "filled": True, "clip": True, "opacity": 0.9}
    spec["encoding"] = {
        "x": {"field": "at", "type": "temporal", "axis": TIME_AXIS},
        "y": {
            "field": "lane",
            "type": "nominal",
            "sort": order,
            "axis": {"title": None, "labelLimit": 150, "grid": True},
        },
        "color": _colour("what", list(kinds), list(kinds.values())),
        "shape": {
            "field": "kind",
            "type": "nominal",
            "scale": {"domain": ["failure", "fix"], "range": ["circle", "triangle-up"]},
            "legend": None,
        },
        "size": {"condition": {"test": "datum.kind === 'fix'", "value": 50}, "value": 130},
        "tooltip": [
            {"field": "what", "title": " "},
            {"field": "incident", "title": "incident"},
            {"field": "task", "title": "task"},
            {"field": "cause", "title": "cause"},
            {"field": "at", "type": "temporal", "title": "at", "format": "%b %d, %H:%M:%S"},
        ],
    }
    return spec


def _failure(one: IncidentOut, lanes: Sequence[str]) -> Spec:
    words, tone = standing(one)
    cause = plain(one.root_cause.value) if one.root_cause is not None else "not diagnosed yet"
    return {
        "kind": "failure",
        "what": words,
        "tone": tone,
        "at": _ms(one.failed_at or one.opened_at),
        "lane": _lane(one.task.dag_id, lanes),
        "incident": f"#{one.id}",
        "task": _inert(one.task.task_id),
        "cause": cause,
    }


def _fix(event: AgentEventOut, known: dict[int, IncidentOut], lanes: Sequence[str]) -> Spec:
    words, tone = FIXES[event.name]
    return {**_failure(known[event.incident_id or 0], lanes), "kind": "fix", "what": words, "tone": tone} | {
        "at": _ms(event.at)
    }


def _lane(dag_id: str, lanes: Sequence[str]) -> str:
    return _inert(dag_id) if dag_id in lanes else "all others"


def _inert(words: str) -> str:
    """Names as data: a link in a tooltip needs a scheme, a template needs braces."""
    return "".join(char if char.isprintable() else "?" for char in words)[:80]


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def outcomes_plot(summary: SummaryOut) -> Spec:
    """How what was opened in each stretch of the window ended."""
    rows = [
        {"at": _ms(bucket.start), "end": _end(bucket, summary), "what": OUTCOME[one][0], "count": count}
        for bucket in summary.series
        for one, count in bucket.outcomes.items()
    ]
    rows += [
        {"at": _ms(bucket.start), "end": _end(bucket, summary), "what": STILL, "count": still}
        for bucket in summary.series
        if (still := bucket.opened - sum(bucket.outcomes.values())) > 0
    ]
    domain = [*(OUTCOME[one][0] for one in Outcome), STILL]
    colours = [OUTCOME_COLOURS[one] for one in Outcome] + [COLOURS["busy"]]
    seen = {str(row["what"]) for row in rows}
    kept = [(name, colour) for name, colour in zip(domain, colours, strict=True) if name in seen]
    return _bars(rows, [name for name, _ in kept], [colour for _, colour in kept], summary)


STILL = "Still open"
OUTCOME_COLOURS = {
    Outcome.HEALED: COLOURS["good"],
    Outcome.RECOVERED_UNVERIFIED: "#7cc5bb",
    Outcome.SELF_RECOVERED: COLOURS["calm"],
    Outcome.NOT_HEALED: COLOURS["bad"],
    Outcome.ESCALATED: COLOURS["warn"],
    Outcome.EXPIRED: "#e39a9d",
    Outcome.DISMISSED: "#c0cbcc",
    Outcome.JOINED: "#dbe2e2",
}


def causes_plot(summary: SummaryOut) -> Spec:
    """Which causes came when."""
    ranked = sorted(summary.pipeline.causes, key=lambda one: -summary.pipeline.causes[one])
    top = ranked[:CAUSES]
    rows = []
    for bucket in summary.series:
        named = {plain(one.value): bucket.causes.get(one, 0) for one in top}
        rest = sum(count for one, count in bucket.causes.items() if one not in top)
        for what, count in {**named, **({"All others": rest} if rest else {})}.items():
            if count:
                end = _end(bucket, summary)
                rows.append({"at": _ms(bucket.start), "end": end, "what": what, "count": count})
    domain = [plain(one.value) for one in top] + (["All others"] if len(ranked) > CAUSES else [])
    return _bars(rows, domain, PALETTE[: len(domain)], summary)


def _end(bucket: BucketOut, summary: SummaryOut) -> int:
    return _ms(bucket.start) + int(summary.step * 1000)


def _bars(rows: list[Spec], domain: Sequence[str], colours: Sequence[str], summary: SummaryOut) -> Spec:
    spec = _base(220, rows)
    spec["params"] = [_zoom(summary)]
    spec["mark"] = {"type": "bar", "clip": True, "orient": "vertical"}
    tall = {"title": None, "tickMinStep": 1, "format": "d", "tickCount": 4}
    spec["encoding"] = {
        "x": {"field": "at", "type": "temporal", "axis": TIME_AXIS},
        "x2": {"field": "end"},
        "y": {"field": "count", "type": "quantitative", "axis": tall, "stack": "zero"},
        "color": _colour("what", domain, colours),
        "tooltip": [
            {"field": "what", "title": " "},
            {"field": "count", "title": "incidents"},
            {"field": "at", "type": "temporal", "title": "from", "format": "%b %d, %H:%M"},
        ],
    }
    return spec


def is_empty(spec: Spec) -> bool:
    """Whether there is nothing to draw."""
    return not spec["data"]["values"]
