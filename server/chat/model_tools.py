"""What a language model may use in the chat: everything that reads, and one tool that passes on a request.

The request's target is never the model's: it is read from the person's own message, and the person confirms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graph.errors import AirmedicError
from server.chat import deeds
from server.chat.commands import READS
from server.chat.desk import Desk
from server.chat.say import Said, Unclear, line
from server.chat.words import Verb, read
from tools.llm_prompt import estimate_tokens, inert
from tools.redaction import redact
from tools.requested import Wish

ASK_FOR = "ask_for"
LONGEST_ARGUMENT = 300
MOST_CALLS = 4  # of one reply
RESULT_TOKENS = 2500

DESCRIBED: Mapping[Verb, str] = {
    Verb.STATUS: "how Airmedic, Airflow and the incidents stand now",
    Verb.METRICS: "figures; about: day, week or month",
    Verb.INCIDENTS: "list incidents; about: open, asking or closed, a dag or task, a time",
    Verb.FAILED: "what failed; about: a time ('last night', 'last 3 hours'), a dag or task",
    Verb.CHANGED: "what happened in a time; about: the time",
    Verb.SHOW: "where an incident stands and what it asks; about: its number, or dag and task",
    Verb.WHY: "cause, evidence and what was ruled out; about: an incident's number, or dag and task",
    Verb.LOG: "log lines of an incident; about: its number and perhaps a range like 10-40",
    Verb.TIMELINE: "what happened to an incident, in order; about: its number",
    Verb.HISTORY: "how a task ended in its last runs; about: an incident's number, or dag and task",
    Verb.SOURCE: "a DAG's source; about: the dag and perhaps a range of lines",
    Verb.POOLS: "pools and how full they are",
    Verb.PROBE: "whether configured dependencies answer; about: a host, an incident's number, or nothing",
    Verb.PLAN: "what Airmedic would do about an incident and what policy says; about: its number",
}
ASKING: Mapping[Wish, re.Pattern[str]] = {
    Wish.RETRY: re.compile(r"\b(?:retry|re-?run|restart|clear|again)\b", re.IGNORECASE),
    Wish.PAUSE: re.compile(r"\b(?<!un)(?<!un-)(?:pause|suspend)\b", re.IGNORECASE),
    Wish.UNPAUSE: re.compile(r"\b(?:un-?pause|resume)\b", re.IGNORECASE),
}
UNWILLING = re.compile(
    r"\b(?:not|never|don'?t|without|instead|if|when|unless|should|would|what|why|how)\b", re.IGNORECASE
)
VERBS = {Wish.RETRY: Verb.RETRY, Wish.PAUSE: Verb.PAUSE, Wish.UNPAUSE: Verb.UNPAUSE}


class _About(BaseModel):
    model_config = ConfigDict(extra="forbid")

    about: str = Field("", max_length=LONGEST_ARGUMENT)


class _What(BaseModel):
    """No target: that is read from the person's words."""

    model_config = ConfigDict(extra="forbid")

    what: Literal["retry", "pause", "unpause"]


def specs() -> list[dict[str, object]]:
    """The tools, in the form the endpoint wants."""
    about = {"about": {"type": "string", "maxLength": LONGEST_ARGUMENT}}
    what = {"what": {"type": "string", "enum": [one.value for one in Wish]}}
    told = "pass on what the person asks for in this message; its target is read from their words"
    listed = [_spec(verb.value, words, about) for verb, words in DESCRIBED.items()]
    return [*listed, _spec(ASK_FOR, told, what)]


def _spec(name: str, description: str, properties: Mapping[str, object]) -> dict[str, object]:
    parameters = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


async def run(desk: Desk, name: str, args: Mapping[str, Any]) -> Said:
    """What a tool says. Whatever is wrong with the call is said, and nothing is done."""
    try:
        if name == ASK_FOR:
            return await _ask_for(desk, _What.model_validate(dict(args)))
        verb = next((one for one in READS if one.value == name), None)
        if verb is None:
            return Said(f"there is no tool {line(name, longest=40)!r}")
        return await READS[verb](desk, _About.model_validate(dict(args)).about)
    except ValidationError:
        return Said(f"{line(name, longest=40)}: these arguments do not fit; nothing was done")
    except Unclear as exc:
        return exc.said
    except AirmedicError as exc:
        return Said(f"that did not work: {line(str(exc)) or type(exc).__name__}")


async def _ask_for(desk: Desk, asked: _What) -> Said:
    wish = Wish(asked.what)
    understood = read(desk.message)
    if understood is not None and understood.verb is VERBS[wish]:
        # The person's whole message says so by the grammar: policy's word stands.
        return await _pass_on(desk, wish, understood.rest, plain=True)
    if ASKING[wish].search(desk.message) is None or UNWILLING.search(desk.message) is not None:
        raise Unclear(
            f"the person's message does not plainly ask to {wish.value}; nothing was done. "
            f"They can say: /{VERBS[wish].value} …"
        )
    return await _pass_on(desk, wish, ASKING[wish].sub(" ", desk.message), plain=False)


async def _pass_on(desk: Desk, wish: Wish, words: str, *, plain: bool) -> Said:
    if wish is Wish.RETRY:
        return await deeds.retry(desk, words, strict=plain, confirm=not plain)
    return await deeds.switch(desk, words, wish, strict=plain, confirm=not plain)


def fenced(text: str) -> str:
    """A tool's words as the model reads them: redacted, inert, within its share of tokens."""
    kept, budget = [], RESULT_TOKENS
    for one in map(inert, redact(text).split("\n")):
        budget -= estimate_tokens(one) + 1
        if budget < 0:
            kept.append("…")
            break
        kept.append(one)
    return "<<<\n" + "\n".join(kept) + "\n>>>"
