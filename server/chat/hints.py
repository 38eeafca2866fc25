"""How a message that has begun could go on: commands, incidents, DAGs. From the store alone: it is fast."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from graph.domain import DomainType, Status
from server.chat.say import line, one_line
from server.chat.words import COMMANDS, Verb
from server.listing import IncidentQuery
from server.record import IncidentLine
from server.service import Service

MOST = 12
UTC = ZoneInfo("UTC")
QUESTIONS = (
    "what failed last night?",
    "what changed since yesterday?",
    "what waits for me?",
    "why did it fail?",
    "show me the log lines",
    "is the source back?",
    "what would you do?",
    "retry it",
)
ON_ASKING = frozenset({Verb.APPROVE, Verb.EDIT, Verb.REJECT, Verb.ANSWER})
ON_DAGS = frozenset({Verb.PAUSE, Verb.UNPAUSE, Verb.SOURCE})
ON_INCIDENTS = frozenset({Verb.SHOW, Verb.WHY, Verb.LOG, Verb.TIMELINE, Verb.PLAN, Verb.HISTORY, Verb.RETRY})


class Hint(DomainType):
    """One way to go on. `text` replaces what was typed."""

    text: str
    detail: str


async def hints(service: Service, typed: str) -> list[Hint]:
    """At most a dozen."""
    if not typed.startswith("/"):
        words = typed.casefold().strip()
        return [Hint(text=one, detail="") for one in QUESTIONS if not words or one.startswith(words)]
    name, space, rest = typed[1:].partition(" ")
    if not space:
        return [
            Hint(text=f"/{verb.value} " if args else f"/{verb.value}", detail=f"{args}  {words}".strip())
            for verb, (args, words) in COMMANDS.items()
            if verb.value.startswith(name.casefold())
        ][:MOST]
    verb = next((one for one in COMMANDS if one.value == name.casefold()), None)
    if verb is None or " " in rest:
        return []
    return (await _arguments(service, verb, rest))[:MOST]


async def _arguments(service: Service, verb: Verb, begun: str) -> list[Hint]:
    if verb in ON_DAGS:
        lines = await _lines(service, IncidentQuery())
        dags = dict.fromkeys(one.task.dag_id for one in lines)
        return [Hint(text=f"/{verb.value} {dag}", detail="") for dag in dags if dag.startswith(begun)]
    if verb in ON_ASKING:
        lines = await _lines(service, IncidentQuery(statuses=(Status.WAITING_DECISION,)))
    elif verb in ON_INCIDENTS:
        lines = await _lines(service, IncidentQuery())
        if verb is Verb.RETRY:
            lines = [one for one in lines if one.status is Status.ESCALATED]
    else:
        return []
    number = begun.removeprefix("#")
    return [
        Hint(text=f"/{verb.value} {one.id}", detail=line(one_line(one, UTC)))
        for one in lines
        if str(one.id).startswith(number)
    ]


async def _lines(service: Service, query: IncidentQuery) -> Sequence[IncidentLine]:
    return list((await service.store.listing.page(query, cursor=None, limit=50)).items)
