"""The command mode: what was understood is answered; what was not is said to be so. No model takes part."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from graph.domain import Status
from graph.errors import AirmedicError
from server.chat import deeds, looks, reads
from server.chat.desk import Desk
from server.chat.resolve import numbered
from server.chat.say import Said, Unclear, line
from server.chat.words import COMMANDS, Asked, Verb, read
from server.listing import IncidentQuery
from tools.requested import Wish

Read = Callable[[Desk, str], Awaitable[Said]]

READS: Mapping[Verb, Read] = MappingProxyType(
    {
        Verb.STATUS: looks.status,
        Verb.METRICS: looks.metrics,
        Verb.INCIDENTS: looks.incidents,
        Verb.FAILED: looks.failed,
        Verb.CHANGED: looks.changed,
        Verb.HISTORY: looks.history,
        Verb.SOURCE: looks.source,
        Verb.POOLS: looks.pools,
        Verb.PROBE: looks.probe,
        Verb.SHOW: reads.show,
        Verb.WHY: reads.why,
        Verb.LOG: reads.log,
        Verb.TIMELINE: reads.timeline,
        Verb.PLAN: reads.plan,
    }
)
EXAMPLES = (
    "what failed last night? · why did load fail? · show me the log lines · is the source back? · retry it"
)
NOT_UNDERSTOOD = (
    "I did not understand that. No language model takes part here: this is the command mode, which"
    f" understands commands and simple questions.\nTry: {EXAMPLES}\n/help lists the commands."
)


async def answer(desk: Desk) -> Said:
    """The answer to the message, by commands and the grammar alone."""
    asked = read(desk.message)
    try:
        return Said(NOT_UNDERSTOOD) if asked is None else await carry_out(desk, asked)
    except Unclear as exc:
        return exc.said
    except AirmedicError as exc:
        return Said(f"that did not work: {line(str(exc)) or type(exc).__name__}")


async def carry_out(desk: Desk, asked: Asked) -> Said:
    """One understood message. Raises `Unclear` and what the service raises."""
    verb, rest = asked.verb, asked.rest
    if (reader := READS.get(verb)) is not None:
        return await reader(desk, rest)
    match verb:
        case Verb.APPROVE | Verb.EDIT | Verb.REJECT | Verb.ANSWER:
            return await deeds.answer(desk, verb, rest)
        case Verb.RETRY:
            return await deeds.retry(desk, rest, strict=True, confirm=False)
        case Verb.PAUSE:
            return await deeds.switch(desk, rest, Wish.PAUSE, strict=True, confirm=False)
        case Verb.UNPAUSE:
            return await deeds.switch(desk, rest, Wish.UNPAUSE, strict=True, confirm=False)
        case Verb.CONSENT:
            return await consent(desk)
        case _:
            return help_text(desk)


async def consent(desk: Desk) -> Said:
    """Words that sound like an approval approve nothing."""
    head = "Plain words approve nothing: press the button of the question, or say /approve N."
    if desk.focus is not None:
        record = await numbered(desk, desk.focus)
        if record.status is Status.WAITING_DECISION:
            told = reads.said_of(record, desk)
            return Said(f"{head}\n{told.text}", links=told.links, asks=told.asks)
    asking = IncidentQuery(statuses=(Status.WAITING_DECISION,))
    found = await desk.service.store.listing.page(asking, cursor=None, limit=5)
    links = [one.id for one in found.items]
    told_all = f"These ask: {', '.join(f'#{one}' for one in links)}" if links else "Nothing asks now."
    return Said(f"{head}\n{told_all}", links=links)


def help_text(desk: Desk) -> Said:
    """Every command, and what can be asked in plain words."""
    model = desk.service.settings.llm_model
    head = (
        "A language model answers plain words; what begins with / is a command and goes past it."
        if model is not None
        else "No language model is configured: this is the command mode, for commands and simple questions."
    )
    listed = [f"/{verb.value} {args}".rstrip() + f"  {words}" for verb, (args, words) in COMMANDS.items()]
    return Said("\n".join([head, *listed, f"Questions, for example: {EXAMPLES}"]))
