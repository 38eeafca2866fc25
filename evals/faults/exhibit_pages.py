"""The rows' exhibits in the report: each in a file of its own, and on the page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from pydantic import JsonValue

from evals.faults.results import Result

VERDICTS = ("policy_auto", "policy_ask", "policy_never")
LEDGER = ("attempt", "position", "action", "step", "key", "sent_at", "at")


def latest(results: Sequence[Result]) -> dict[str, Result]:
    """By fault, the last repetition that has something to show."""
    return {one.fault: one for one in sorted(results, key=lambda one: one.repetition) if one.exhibits}


def write_exhibits(results: Sequence[Result], folder: Path) -> None:
    """One file for each: what policy said as text, ledgers and worlds as JSON."""
    for name, text in _policy(results):
        (folder / f"{name}.txt").write_text(f"{text}\n", "utf-8")
    for fault, one in latest(results).items():
        if "ledger" in one.exhibits:
            name = "world" if "world" in one.exhibits else "ledger"
            text = json.dumps(one.exhibits, indent=1)
            (folder / f"{fault.lower()}_{name}.json").write_text(f"{text}\n", "utf-8")


def shown(results: Sequence[Result]) -> Iterator[str]:
    """Parts of the page; none when no row had anything to show."""
    explained = list(_policy(results))
    if explained:
        yield "<h2>How policy decided</h2>"
        for name, text in explained:
            yield f"<h3>{escape(name.removeprefix('policy_'))}</h3><pre>{escape(text)}</pre>"
    for fault, one in latest(results).items():
        if "airflow_event_log" in one.exhibits:
            yield f"<h2>{fault}: the ledger beside Airflow's own event log</h2>"
            yield from _written(one.exhibits)
        if "world" in one.exhibits:
            yield f"<h2>{fault}: the world before and after</h2>"
            yield from _world(one.exhibits["world"])


def _policy(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    found = {name: text for one in results for name, text in one.exhibits.items() if name in VERDICTS}
    for name in VERDICTS:
        if name in found:
            yield name, str(found[name])


def _written(exhibits: Mapping[str, JsonValue]) -> Iterator[str]:
    for name, words in (
        ("ledger", "Airmedic's ledger"),
        ("airflow_event_log", "Airflow's event log of the run"),
        ("tries", "the task's tries"),
    ):
        rows = exhibits.get(name)
        yield f"<p>{words}</p>{_table(rows if isinstance(rows, list) else [])}"


def _world(pictures: JsonValue) -> Iterator[str]:
    if not isinstance(pictures, dict):
        return
    before = pictures.get("before")
    for moment, picture in pictures.items():
        same = "byte for byte as before" if picture == before else "not as before"
        told = "" if moment == "before" else f" ({same})"
        laid_out = json.dumps(json.loads(str(picture)), indent=1)
        yield f"<p>{escape(moment)}{told}</p><details><summary>settings</summary>"
        yield f"<pre>{escape(laid_out)}</pre></details>"


def _table(rows: Sequence[JsonValue]) -> str:
    listed = [one for one in rows if isinstance(one, dict)]
    names = list(listed[0]) if listed else []
    names = [name for name in LEDGER if name in names] if "step" in names else names
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(one.get(name)))}</td>" for name in names) + "</tr>"
        for one in listed
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: JsonValue) -> str:
    if isinstance(value, dict):
        return str(value.get("name") or json.dumps(value))
    return "" if value is None else str(value)
