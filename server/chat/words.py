"""What a person's words ask for: commands, and a small grammar of questions. Pure; it never guesses a deed.

Deeds are recognised only where the whole message is one: "retry it", "pause the dag orders until nine".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from graph.domain import DomainType

LONGEST = 4000  # characters
LONGEST_QUESTION = 300


class Verb(StrEnum):
    """What can be asked of the chat."""

    HELP = "help"
    STATUS = "status"
    METRICS = "metrics"
    INCIDENTS = "incidents"
    FAILED = "failed"
    CHANGED = "changed"
    SHOW = "show"
    WHY = "why"
    LOG = "log"
    TIMELINE = "timeline"
    HISTORY = "history"
    SOURCE = "source"
    POOLS = "pools"
    PROBE = "probe"
    PLAN = "plan"
    APPROVE = "approve"
    EDIT = "edit"
    REJECT = "reject"
    ANSWER = "answer"
    RETRY = "retry"
    PAUSE = "pause"
    UNPAUSE = "resume"
    CONSENT = "consent"  #: free text that sounds like an approval: it never is one


# command → what follows it, and what it does
COMMANDS: Mapping[Verb, tuple[str, str]] = MappingProxyType(
    {
        Verb.STATUS: ("", "how things stand"),
        Verb.INCIDENTS: ("[open|asking|closed] [dag] [since yesterday]", "list incidents"),
        Verb.FAILED: ("[last night|today|since yesterday]", "what failed in a time"),
        Verb.CHANGED: ("[since yesterday]", "what happened in a time"),
        Verb.SHOW: ("N", "everything about incident N, and what it asks"),
        Verb.WHY: ("N | dag [task]", "the cause, its evidence, what was ruled out"),
        Verb.LOG: ("N [first-last]", "lines of the failed try's log"),
        Verb.TIMELINE: ("N", "what happened to it, in order"),
        Verb.HISTORY: ("N | dag task", "how the task ended in its last runs"),
        Verb.SOURCE: ("dag [first-last]", "the DAG's source"),
        Verb.POOLS: ("", "pools and how full they are"),
        Verb.PROBE: ("[host]", "whether the configured dependencies answer"),
        Verb.PLAN: ("N", "what Airmedic would do, and what policy says of it"),
        Verb.METRICS: ("[day|week|month]", "figures of a window"),
        Verb.APPROVE: ("N [version]", "approve the plan you were shown"),
        Verb.EDIT: ("N argument=value …", "approve it with other arguments"),
        Verb.REJECT: ("N reason", "reject the plan you were shown"),
        Verb.ANSWER: ("N words", "tell Airmedic what you know; it diagnoses again"),
        Verb.RETRY: ("N | dag task [run]", "ask for another try of a failed task"),
        Verb.PAUSE: ("dag [until nine]", "ask for a DAG to be paused"),
        Verb.UNPAUSE: ("dag", "ask for a DAG to be unpaused"),
        Verb.HELP: ("", "this list"),
    }
)
ALIASES = {
    "unpause": Verb.UNPAUSE,
    "logs": Verb.LOG,
    "incident": Verb.SHOW,
    "?": Verb.HELP,
    "dag": Verb.SOURCE,
}


class Asked(DomainType):
    """One message, understood. `rest` holds the words that name what it is about."""

    verb: Verb
    rest: str = ""
    command: bool = False  #: spelled as a command


def read(message: str) -> Asked | None:
    """What the message asks for; None when it is not understood."""
    text = " ".join(message[:LONGEST].split())
    if text.startswith("/"):
        return _command(text)
    plain = text.strip().rstrip("?!.").strip()
    if len(plain) > LONGEST_QUESTION:
        return None
    for pattern, verb in PATTERNS:
        if (found := pattern.fullmatch(plain)) is not None:
            return Asked(verb=verb, rest=(found.groupdict().get("rest") or "").strip())
    return None


def _command(text: str) -> Asked | None:
    name, _, rest = text[1:].partition(" ")
    known = {one.value: one for one in COMMANDS} | ALIASES
    verb = known.get(name.casefold())
    return None if verb is None else Asked(verb=verb, rest=rest.strip(), command=True)


def _p(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


SHOW_ME = r"(?:(?:show|give|get|read|list)(?: me)?(?: the| your| all| any)?)"
REST = r"(?P<rest>.*)"
QUESTIONS: tuple[tuple[Verb, str], ...] = (
    (Verb.HELP, r"help|what can (?:you|i) (?:do|ask|say).{0,20}|how does this work|hi|hello|hey"),
    (
        Verb.PLAN,
        r"what (?:would|will|can|could|should|do) (?:you|we|i) (?:do|suggest|propose|recommend)" + REST,
    ),
    (Verb.PLAN, rf"(?:what is|what's|{SHOW_ME})(?: the| your)? (?:plan|fix|proposal|suggestion){REST}"),
    (
        Verb.PROBE,
        r"(?:is|are|did)(?: the| our)? (?P<rest>.*?) ?(?:back(?: up| online)?|up|reachable|alive|available"
        r"|online|come back|down|answering)(?: again| now| yet)?",
    ),
    (
        Verb.PROBE,
        rf"(?:check|test|probe)(?: the)? (?:connection|source|database|host|probes?|dependenc\w+){REST}",
    ),
    (
        Verb.FAILED,
        r"(?:what|which)(?:'s| is| has| tasks?| dags?| pipelines?| runs?| all)*"
        rf" (?:failed|fails|failing|broke|broken|went wrong|crashed){REST}",
    ),
    (
        Verb.FAILED,
        rf"(?:any|are there(?: any)?|{SHOW_ME})(?: new)? (?:failures|errors|problems){REST}",
    ),
    (
        Verb.TIMELINE,
        rf"(?:{SHOW_ME} (?:timeline|steps)(?: of| for)?|what have you done (?:to|with|about|on|for)){REST}",
    ),
    (
        Verb.CHANGED,
        rf"(?:what|what's|anything)(?: is| has| have)? (?:changed|new|different|happened|happening){REST}",
    ),
    (Verb.CHANGED, rf"(?:what did (?:you|i)|did i) (?:do|miss){REST}"),
    (Verb.LOG, rf"{SHOW_ME} log(?:s| lines?)?(?: lines?)?(?: of| for| from)?{REST}"),
    (Verb.LOG, rf"(?:what does|what's in|what is in)(?: the)? logs?(?: say| of| for)*{REST}"),
    (Verb.HISTORY, rf"{SHOW_ME} (?:task )?history(?: of| for)?{REST}"),
    (
        Verb.HISTORY,
        r"how (?:did|does|has) (?P<rest>.+?) (?:do|run|end|done|been doing|usually end)"
        r"(?: lately| before| so far)?",
    ),
    (Verb.SOURCE, rf"{SHOW_ME} (?:dag )?(?:source|code)(?: code)?(?: of| for)?{REST}"),
    (Verb.POOLS, rf"(?:{SHOW_ME} |how (?:full )?are (?:the )?)?pools"),
    (Verb.METRICS, rf"(?:{SHOW_ME} )?(?:metrics|figures|numbers|statistics|stats){REST}"),
    (Verb.METRICS, rf"(?:how many|what is the success rate|how well){REST}"),
    (
        Verb.STATUS,
        rf"(?:how (?:are|do) (?:things|we|you|pipelines|the pipelines).{{0,20}}|(?:{SHOW_ME} )?status"
        r"|is everything (?:ok|fine|well|all right).{0,20}|how is it going|what is going on|what's up)",
    ),
    (
        Verb.INCIDENTS,
        rf"(?:{SHOW_ME}|what are|which are)(?: the| all)?"
        r"(?P<rest>(?: open| closed| asking| waiting)? ?incidents?\b.*)",
    ),
    (
        Verb.INCIDENTS,
        r"(?:what|which|who|anything)(?: is| are)?"
        r"(?P<rest> (?:open|waiting|waits|asking|asked|pending|needs?)\b.*)",
    ),
    (
        Verb.SHOW,
        r"(?:(?:show|open|tell me about|describe|explain)(?: me)?(?: the)?(?: incident)? ?|incident )?"
        r"(?P<rest>#?\d+)",
    ),
    (Verb.WHY, rf"(?:what is|what's) (?:wrong|the matter|the problem|the cause|up)(?: with| of| in)?{REST}"),
    (Verb.WHY, rf"(?:why|how come|explain why|tell me why|what caused){REST}"),
    (Verb.SHOW, r"(?:tell me about|describe|explain|show)(?: me)?(?P<rest> .+)"),
)


def _questions() -> list[tuple[re.Pattern[str], Verb]]:
    return [(_p(f"(?:{pattern})"), verb) for verb, pattern in QUESTIONS]


POLITE = r"(?:please |can you |could you |would you |will you |pls |now |ok,? |airmedic,? )*"
LATER = r"(?: please| now)?"
# The first that matches the whole message decides. Deeds first: each is anchored at both ends.
PATTERNS: tuple[tuple[re.Pattern[str], Verb], ...] = (
    (
        _p(
            POLITE
            + r"(?:un-?pause|resume|switch on|turn on)(?: the)?(?: dag| pipeline)?(?P<rest>(?: \S+){0,3}?)"
            + LATER
        ),
        Verb.UNPAUSE,
    ),
    (
        _p(
            POLITE
            + r"(?:pause|suspend)(?: the)?(?: dag| pipeline)?"
            + r"(?P<rest>(?: \S+){0,2}?(?:,? (?:until|till|for) .{1,40})?)"
            + LATER
        ),
        Verb.PAUSE,
    ),
    (
        _p(
            POLITE
            + r"(?:retry|re-?run|clear|restart)(?: the)?(?: task| failed task)?"
            + r"(?P<rest>(?: \S+){0,6}?)(?: again)?"
            + LATER
        ),
        Verb.RETRY,
    ),
    (_p(POLITE + r"(?:run|try)(?: the)?(?: task)?(?P<rest>(?: \S+){0,6}?) again" + LATER), Verb.RETRY),
    (
        _p(
            r"(?:yes|yep|yeah|ok|okay|sure|go|go on|go ahead|do it|do that|approved?|confirm(?:ed)?|lgtm"
            r"|sounds good|make it so|(?:i )?approve .{0,80}|yes.{0,40})"
        ),
        Verb.CONSENT,
    ),
    *_questions(),
)

NUMBER = re.compile(r"(?<![\w.\-/:])#?(\d{1,9})(?![\w.\-/:])")
RANGE = re.compile(r"(?:lines? )?\b(\d{1,7})\s*(?:-|–|\.\.|to)\s*(\d{1,7})\b", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{1,249}(?:\[\d+\])?")
# A run's name may hold what a task's may not: manual__2026-03-01T03:00:00+00:00
RUN = re.compile(r"\b(?:manual|scheduled|backfill|asset_triggered|dataset_triggered)__\S+|\brun_[\w.:+\-]+")


def incident_number(text: str) -> int | None:
    """The incident that a text names."""
    found = NUMBER.search(RANGE.sub(" ", text))
    return int(found.group(1)) if found else None


def line_range(text: str) -> tuple[int, int] | None:
    """The lines that a text names: `10-20`."""
    found = RANGE.search(text)
    if found is None:
        return None
    first, last = int(found.group(1)), int(found.group(2))
    return (first, last) if 1 <= first <= last else None


def names_in(text: str, *, every: bool = False) -> tuple[str, ...]:
    """What may be names of DAGs and tasks, in order; `dag.task` gives its parts too."""
    found: list[str] = []
    for match in NAME.finditer(RUN.sub(" ", text)):
        name = match.group().rstrip(".-").split("[")[0]
        found.append(name)
        if "." in name:
            found += [part for part in name.split(".") if len(part) > 1]
    return tuple(
        dict.fromkeys(one for one in found if (every or one.casefold() not in COMMON) and not one.isdigit())
    )


def run_in(text: str) -> str | None:
    """The run that a text names."""
    found = RUN.search(text)
    return found.group().rstrip(".,?!") if found else None


WORDS_OF_ENGLISH = """
it that this the a an of in on at to for from with and or is was did does do has have had fail failed
fails failing failure failures break broke broken error errors task tasks dag dags pipeline pipelines run
runs incident incidents last night today yesterday tomorrow since week month day days hour hours minute
minutes morning ago until till again now please me my you your we our why what which when show log logs
line lines says said say retry rerun clear restart pause unpause resume suspend stop approve reject list
how are things nine eight seven six five four three two one ten eleven twelve noon tonight it's whats
what's source host connection database db server service api up back down reachable there still not any
all open closed waiting asking asked first lately about would could should will can new plan fix know so
happen happened
"""
# Never taken for names in a sentence; in a command they may be some.
COMMON = frozenset(WORDS_OF_ENGLISH.split())
