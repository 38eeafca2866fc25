"""Answers about the whole and about Airflow: lists, times, status, pools, probes, sources."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Literal, cast

from graph.domain import Facts, RunSnapshot, Status
from graph.errors import AirflowRefused, AirmedicError, NotFound
from server.chat.desk import Desk
from server.chat.resolve import dag_in, incident_in, known_names, numbered
from server.chat.say import Said, Unclear, clean, clock, ended, line, one_line
from server.chat.times import Window, window_of
from server.chat.words import incident_number, line_range, names_in
from server.listing import COUNTED, IncidentQuery
from server.record import IncidentRecord, LogQuery
from server.routes.control import read_switches
from server.routes.overview import WINDOWS
from tools.probes import Probe, Probes, parse_probes

LISTED = 15
READ = 1000  # lines of the agent log that one answer counts
SOURCE_LINES = 80
RUNS = 10
DAY = timedelta(days=1)
STATUSES = {
    "open": tuple(one for one in Status if one not in (Status.CLOSED, Status.ESCALATED)),
    "closed": (Status.CLOSED,),
    "ask": (Status.WAITING_DECISION,),
    "wait": (Status.WAITING_DECISION,),
    "pending": (Status.WAITING_DECISION,),
    "need": (Status.WAITING_DECISION, Status.ESCALATED),
    "escalated": (Status.ESCALATED,),
}


async def status(desk: Desk, rest: str) -> Said:
    """How things stand."""
    service = desk.service
    switches = await read_switches(service)
    counts = await service.store.status_counts()
    mode = "shadow mode: it decides and records, and touches nothing" if switches.shadow else "healing is on"
    lines = [f"{mode}{'; the kill switch is on: nothing is written' if switches.paused else ''}"]
    for part in await desk.pulse.parts():
        lines.append(
            f"{part.name}: {'well' if part.ok else 'unwell'}{f' ({part.detail})' if part.detail else ''}"
        )
    going = sum(n for one, n in counts.items() if one not in (Status.CLOSED, Status.ESCALATED))
    asking, people = counts.get(Status.WAITING_DECISION, 0), counts.get(Status.ESCALATED, 0)
    lines.append(f"incidents: {going} open, {asking} of them ask for a decision, {people} with people")
    asked = await service.store.listing.page(
        IncidentQuery(statuses=(Status.WAITING_DECISION,)), cursor=None, limit=LISTED
    )
    lines += [one_line(one, desk.zone) for one in asked.items]
    return Said(clean("\n".join(lines)), links=[one.id for one in asked.items])


async def incidents(desk: Desk, rest: str) -> Said:
    """A list, filtered by the words."""
    words = rest.casefold()
    statuses = tuple(dict.fromkeys(one for word, found in STATUSES.items() if word in words for one in found))
    names = await known_names(desk, " ".join(n for n in names_in(rest) if n.casefold() not in FILTERS))
    window = window_of(rest, now=desk.now, zone=desk.zone)
    query = IncidentQuery(
        statuses=statuses,
        dags=names.dags,
        tasks=names.tasks,
        since=window.since if window else None,
        until=window.until if window else None,
    )
    return await _listed(desk, query, "incidents", none="no incident fits")


FILTERS = frozenset({*STATUSES, "asking", "asks", "waits", "needs"})


async def _listed(desk: Desk, query: IncidentQuery, head: str, *, none: str) -> Said:
    listing = desk.service.store.listing
    found = await listing.page(query, cursor=None, limit=LISTED)
    if not found.items:
        return Said(none)
    count = await listing.count(query)
    many = f"more than {COUNTED}" if count > COUNTED else str(count)
    shown = f", the newest {LISTED} of them" if count > LISTED else ""
    lines = [f"{many} {head}{shown}:", *(one_line(one, desk.zone) for one in found.items)]
    return Said("\n".join(lines), links=[one.id for one in found.items])


async def failed(desk: Desk, rest: str) -> Said:
    """What failed in a time: the incidents, and what Airflow lists beside them."""
    window = window_of(rest, now=desk.now, zone=desk.zone) or _last_day(desk)
    names = await known_names(desk, _without_time(rest))
    query = IncidentQuery(since=window.since, until=window.until, dags=names.dags, tasks=names.tasks)
    when = f"{window.words} ({clock(window.since, desk.zone)} to {clock(window.until, desk.zone)})"
    found = await _listed(desk, query, f"incidents {when}", none=f"no incident {when}")
    try:
        listed = await desk.service.airflow.failures_since(window.since, limit=500)
        still = [one for one in listed if one.end is not None and one.end < window.until]
        many = "at least 500" if len(listed) == 500 else str(len(still))
        told = f"Airflow shows {many} task instances that failed then and still stand failed"
    except AirmedicError:
        told = "Airflow does not answer now, so this is from Airmedic's own records alone"
    return Said(f"{found.text}\n{told}", links=found.links)


def _last_day(desk: Desk) -> Window:
    return Window(since=desk.now - DAY, until=desk.now, words="in the last 24 hours")


def _without_time(text: str) -> str:
    return " ".join(one for one in names_in(text))


async def changed(desk: Desk, rest: str) -> Said:
    """What happened in a time: incidents that came and ended, what was decided, done and switched."""
    window = window_of(rest, now=desk.now, zone=desk.zone)
    if window is None:
        window = window_of("since yesterday", now=desk.now, zone=desk.zone) or _last_day(desk)
    query = LogQuery(since=window.since, until=window.until, newest=True)
    events, more = await desk.service.store.log_page(query, cursor=0, limit=READ)
    counts = Counter(one.name for one in events)
    outcomes = Counter(
        str(one.data["outcome"]) for one in events if one.name == "ended" and isinstance(one.data, dict)
    )
    lines = [f"{window.words} ({clock(window.since, desk.zone)} to {clock(window.until, desk.zone)}):"]
    lines.append(f"{counts['opened']} incidents opened, {counts['ended']} ended")
    lines += [f"  {count} {name.replace('_', ' ')}" for name, count in outcomes.most_common()]
    lines.append(f"{counts['fix_applied']} fixes applied, {counts['fix_undone']} given up")
    lines.append(f"{counts['asked']} questions to people, {counts['answered']} answered")
    for one in reversed([one for one in events if one.name in TELLING][:LISTED]):
        data = one.data if isinstance(one.data, dict) else {}
        words = "; ".join(f"{name} {value}" for name, value in data.items() if value not in (None, ""))
        lines.append(f"{clock(one.at, desk.zone)}  {one.name.replace('_', ' ')}: {line(words)}")
    if more is not None:
        lines.append(f"only the last {READ} lines of the agent log were counted")
    links = [one.incident_id for one in events if one.name == "opened" and one.incident_id is not None]
    return Said("\n".join(lines), links=links[:LISTED])


TELLING = frozenset({"control", "early_warning", "warning_over", "requested"})


async def history(desk: Desk, rest: str) -> Said:
    """How a task ended in its last runs."""
    names = await known_names(desk, rest) if incident_number(rest) is None else None
    links: list[int] = []
    if names is not None and names.dags and not names.tasks:
        runs = await desk.service.airflow.recent_runs(names.dags[0], limit=RUNS)
        told = [_run_line(one, desk) for one in runs]
        return Said("\n".join([f"last runs of {names.dags[0]!r}:", *(told or ["none"])]))
    if names is not None and len(names.dags) == 1 and len(names.tasks) == 1:
        dag_id, task_id = names.dags[0], names.tasks[0]
    else:
        record = await incident_in(desk, rest)
        dag_id, task_id, links = record.task.dag_id, record.task.task_id, [record.id]
    try:
        found = await desk.service.airflow.history(dag_id, task_id, limit=RUNS)
    except NotFound as exc:
        raise Unclear(f"Airflow knows no task {task_id!r} in {dag_id!r}") from exc
    lines = [f"last instances of {dag_id}.{task_id}, newest first:"]
    for one in found:
        when = clock(one.start, desk.zone) if one.start else "not started"
        took = f", {one.duration:.0f} s" if one.duration is not None else ""
        lines.append(f"{when}  {one.task.run_id}: {one.state}, try {one.try_number}{took}")
    return Said(clean("\n".join(lines)), links=links)


def _run_line(run: RunSnapshot, desk: Desk) -> str:
    when = clock(run.start, desk.zone) if run.start else "not started"
    return line(f"{when}  {run.run_id}: {run.state}")


async def source(desk: Desk, rest: str) -> Said:
    """A DAG's source, redacted as everything from Airflow is."""
    dag = await dag_in(desk, rest, strict=False)
    try:
        lines = (await desk.service.airflow.dag_source(dag.dag_id)).splitlines()
    except AirflowRefused as exc:
        raise Unclear(f"Airflow does not show the source of {dag.dag_id!r}") from exc
    first, last = line_range(rest) or (1, SOURCE_LINES)
    last = min(last, first + SOURCE_LINES - 1, len(lines))
    shown = [f"{number:>5} | {clean(lines[number - 1])[:300]}" for number in range(first, last + 1)]
    return Said("\n".join([f"{dag.dag_id}: {len(lines)} lines", *shown]))


async def pools(desk: Desk, rest: str) -> Said:
    """Pools and how full they are."""
    found = await desk.service.airflow.pools()
    lines = [
        f"{one.name}: {one.occupied} of {'unlimited' if one.slots < 0 else one.slots} slots taken, "
        f"{one.queued} queued, {one.scheduled} wait for a slot"
        for one in found
    ]
    return Said(clean("\n".join(lines)) or "Airflow shows no pool")


async def probe(desk: Desk, rest: str) -> Said:
    """Whether the configured dependencies answer. No other place is ever asked."""
    known = parse_probes(desk.service.settings.probes)
    if not known:
        return Said("no dependency is configured to be asked; an administrator names them in AIRMEDIC_PROBES")
    chosen, about = await _chosen_probes(desk, rest, known)
    if not chosen:
        return Said(
            f"none of the configured dependencies fits; there are {', '.join(one.url for one in known)}"
        )
    lines = []
    for one in chosen[:LISTED]:
        reading = await Probes((one,)).look([one.host])
        if reading is not None:
            lines.append(
                f"{reading.probe}: {'answers' if reading.up else 'does not answer'} ({line(reading.detail)})"
            )
    return Said("\n".join(lines), links=about)


async def _chosen_probes(desk: Desk, rest: str, known: tuple[Probe, ...]) -> tuple[list[Probe], list[int]]:
    words = {one.casefold() for one in rest.replace(",", " ").replace(":", " ").split()}
    named = [one for one in known if one.host.casefold() in words]
    if named or names_in(rest):
        return named, []
    number = incident_number(rest) or desk.focus
    if number is None:
        return list(known), []
    record = await numbered(desk, number)
    hosts = await _hosts(desk, record)
    about = [one for one in known if one.host.casefold() in hosts]
    return about or list(known), [record.id]


async def _hosts(desk: Desk, record: IncidentRecord) -> set[str]:
    """What the failure is about: it may choose among the configured places, never add one."""
    facts = record.diagnosis.facts if record.diagnosis is not None else Facts()
    hosts = [facts.host]
    if facts.conn_id:
        with suppress(AirflowRefused):
            hosts.append((await desk.service.airflow.connection(facts.conn_id)).host)
    return {one.casefold() for one in hosts if one}


async def metrics(desk: Desk, rest: str) -> Said:
    """Figures of a window."""
    name = next((one for one in WINDOWS if one in rest.casefold()), "day")
    length, step = WINDOWS[name]
    window = cast(Literal["day", "week", "month"], name)
    found = await desk.overview.summary(window, length=length, step=step)
    agent = found.agent
    lines = [f"the last {name}: {found.pipeline.incidents} incidents, {agent.open} of them still open"]
    lines += [f"  {count} {ended(outcome)}" for outcome, count in agent.outcomes.items()]
    if agent.heal_rate is not None:
        lines.append(f"healed: {agent.heal_rate:.0%} of what could have been")
    if found.pipeline.success_rate is not None:
        lines.append(f"{found.pipeline.success_rate:.0%} of the pipelines' last runs succeeded")
    for label, spread in (("to detect", agent.detect), ("to recover", agent.recover)):
        if spread.p50 is not None:
            lines.append(f"{label}: {spread.p50:.0f} s (median of {spread.count})")
    lines += [f"cause {cause.value}: {count}" for cause, count in found.pipeline.causes.items()]
    return Said("\n".join(lines))
