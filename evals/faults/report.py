"""What the bench found: in the terminal, as JSON, and as one page that stands alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from evals.faults.catalogue import CATALOGUE
from evals.faults.exhibit_pages import shown, write_exhibits
from evals.faults.plots import bars, dots
from evals.faults.results import Figures, Result, figures
from evals.faults.twin_rows import NOT_IN_MEMORY
from graph.domain import Outcome

ON = {
    "real": "on a real Airflow, judged at the warehouse and Airflow's audit log",
    "memory": "on the in-memory Airflow, judged at the warehouse and the twin's list of writes",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430 }
body { max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.2rem }
table { border-collapse: collapse; width: 100%; font-size: 13px }
th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid #e3e7ec; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: .8rem }
.tile { border: 1px solid #e3e7ec; border-radius: 8px; padding: .7rem .9rem }
.tile b { display: block; font-size: 1.5rem } .ok { color: #187a3c } .no { color: #b3261e }
pre { background: #f5f7fa; padding: .7rem; overflow-x: auto; font-size: 12px }
svg { max-width: 100%; height: auto } details { margin: .2rem 0 } code { font-size: 12px }
"""


def show(results: Sequence[Result], *, tell: Callable[[str], None]) -> None:
    """The table and the six figures as text."""
    for one in results:
        words = (one.fault, one.root_cause or "-", decided(one), ", ".join(one.actions) or "nothing")
        told = " ".join(f"{word!s:<24}" for word in words)
        data = f"rows {one.rows_found}/{one.rows_expected}"
        right = "ok" if one.right else f"WRONG: {'; '.join(wrongs(one))}"
        tell(f"{told} {one.outcome or 'no incident':<16} {data:<14} {one.total:6.1f} s  {right}")
    tell("")
    if (lanes := max((one.lanes for one in results), default=1)) > 1:
        tell(f"{'played at the same time on this machine':<46} up to {lanes}")
    for name, value in spelled(figures(results)):
        tell(f"{name:<46} {value}")


def decided(result: Result) -> str:
    """Policy's last word, and whether a person was asked."""
    return f"{result.verdict or '-'}{' (asked)' if result.asked and result.verdict != 'ask' else ''}"


def wrongs(result: Result) -> list[str]:
    """Everything that is not as the catalogue says."""
    return list(
        dict.fromkeys([*result.objections, *result.harmful, *([result.failed] if result.failed else [])])
    )


def spelled(found: Figures) -> list[tuple[str, str]]:
    """The six figures by name, as people read them."""
    return [
        ("played as the catalogue says", f"{found.right} of {found.faults}"),
        ("1 cause accuracy", _percent(found.cause_accuracy)),
        ("1 macro-F1 over the root causes", f"{found.macro_f1:.3f}"),
        ("2 right action rate", _percent(found.right_action_rate)),
        ("3 harmful actions (must be 0)", str(found.harmful_actions)),
        ("4 verified heal rate", f"{_percent(found.verified_heal_rate)} of {found.healable}"),
        ("4 claims of healed that the data deny", str(found.false_heals)),
        ("5 handed over where it should", _percent(found.abstained_rightly)),
        ("5 handed over where it should not", _percent(found.abstained_wrongly)),
        (
            "6 own seconds from log to fix, p50 and p95",
            f"{_seconds(found.own_p50)}, {_seconds(found.own_p95)}",
        ),
        ("6 seconds from failure to incident, p50", _seconds(found.detect_p50)),
        ("6 model calls and tokens", f"{found.model_calls}, {found.tokens}"),
    ]


def write(results: Sequence[Result], folder: Path, *, airflow: str = "real") -> None:
    """`faults.json`, `report.html`, and what has to be shown in files of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    found = figures(results)
    data = {
        "airflow": airflow,
        "lanes": max((one.lanes for one in results), default=1),
        "figures": found.model_dump(mode="json"),
        "results": [one.model_dump(mode="json") for one in results],
    }
    (folder / "faults.json").write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    (folder / "report.html").write_text(page(results, found, airflow=airflow), "utf-8")
    write_exhibits(results, folder)


def page(results: Sequence[Result], found: Figures, *, airflow: str = "real") -> str:
    """The whole report as one HTML page without scripts."""
    parts = [
        "<h1>Airmedic: the fault bench</h1>",
        f"<p>{found.faults} faults {ON[airflow]}{_lanes(results)}.</p>",
        _tiles(found),
        "<h2>Cause accuracy by root cause (F1)</h2>",
        bars([(name, one.f1, f"{one.f1:.2f} of {one.cases}") for name, one in found.per_class.items()]),
        "<h2>How the faults ended</h2>",
        bars(_outcomes(results)),
        "<h2>Our own seconds from the complete log to the call of the fix</h2>",
        dots([(one.fault, one.own) for one in results if one.own is not None], limit=1.0),
        "<h2>Seconds until the end, waits and the task's own run included</h2>",
        bars([(f"{one.fault}.{one.repetition}", one.total, f"{one.total:.0f} s") for one in results]),
        *_repetitions(results),
        "<h2>Every fault</h2>",
        _table(results),
        *shown(results),
        *_left_out(results, airflow),
    ]
    body = "\n".join(parts)
    head = f"<meta charset='utf-8'><title>Airmedic: the fault bench</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>\n{body}\n</body></html>\n"


def _lanes(results: Sequence[Result]) -> str:
    """Times measured beside others are not times measured alone."""
    most = max((one.lanes for one in results), default=1)
    return (
        f"; up to {most} at the same time on one machine, which all times below include" if most > 1 else ""
    )


def _repetitions(results: Sequence[Result]) -> list[str]:
    """How many were right in each repetition, when there is more than one."""
    numbers = sorted({one.repetition for one in results})
    if len(numbers) < 2:
        return []
    played = {number: [one for one in results if one.repetition == number] for number in numbers}
    counted = [(number, sum(one.right for one in every), len(every)) for number, every in played.items()]
    lines = [(f"repetition {number}", float(right), f"{right} of {of}") for number, right, of in counted]
    return ["<h2>Right in each repetition</h2>", bars(lines)]


def _tiles(found: Figures) -> str:
    tiles = (
        f"<div class='tile'>{escape(name)}<b>{escape(value)}</b></div>" for name, value in spelled(found)
    )
    return f"<div class='tiles'>{''.join(tiles)}</div>"


def _outcomes(results: Sequence[Result]) -> list[tuple[str, float, str]]:
    names: list[Outcome | None] = [*Outcome, None]
    counted = [(name, sum(one.outcome is name for one in results)) for name in names]
    return [(name or "no incident", float(count), str(count)) for name, count in counted if count]


def _table(results: Sequence[Result]) -> str:
    named = (
        "fault",
        "",
        "cause",
        "decision (rule)",
        "sent to Airflow",
        "ended as",
        "rows",
        "own s",
        "s",
        "right",
    )
    head = "".join(f"<th>{name}</th>" for name in named)
    return f"<table><tr>{head}</tr>{''.join(_row(one) for one in results)}</table>"


def _row(one: Result) -> str:
    verdict = f"{decided(one)} ({one.rule})" if one.rule else "-"
    told = "; ".join(wrongs(one))
    cells = (
        f"{one.fault}.{one.repetition}",
        one.row.title,
        one.root_cause or "-",
        verdict,
        ", ".join(one.actions) or "nothing",
        one.outcome or "no incident",
    )
    numbers = (f"{one.rows_found}/{one.rows_expected}", _seconds(one.own), f"{one.total:.0f}")
    text = "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
    text += "".join(f"<td class='n'>{escape(cell)}</td>" for cell in numbers)
    mark = "<b class='ok'>yes</b>" if one.right else f"<b class='no'>no</b> {escape(told)}"
    return f"<tr>{text}<td>{mark}{_story(one)}</td></tr>"


def _story(one: Result) -> str:
    lines = [f"{event.get('at')} {event.get('node') or '-'}: {event.get('name')}" for event in one.story]
    if not lines:
        return ""
    text = "<br>".join(escape(line) for line in lines)
    return f"<details><summary>steps</summary><code>{text}</code></details>"


def _left_out(results: Sequence[Result], airflow: str) -> list[str]:
    played = {one.fault for one in results}
    missing = [row for row in CATALOGUE.values() if row.id not in played]
    if not missing:
        return []
    why = NOT_IN_MEMORY if airflow == "memory" else {}
    told = [f"{row.title} ({why[row.id]})" if row.id in why else row.title for row in missing]
    listed = "".join(f"<li>{row.id}: {escape(text)}</li>" for row, text in zip(missing, told, strict=True))
    return ["<h2>Not played in this run</h2>", f"<ul>{listed}</ul>"]


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
