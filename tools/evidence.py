"""What a log says about a failure: pieces of text with their weight as evidence.

A piece weighs more the closer it is to the end that failed: the innermost exception of the last chain first,
then what a failed child process printed, then earlier errors, warnings and plain lines. What the log shows
to have recovered weighs little.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from pydantic import JsonValue

from graph.domain import TaskLog
from tools.evidence_course import QUIET, Course, course_of, plain, started_at, went_well
from tools.evidence_lines import LogLine, clean, excerpt, goes_on, pointed_at
from tools.evidence_marks import Glance, Mark
from tools.evidence_text import words_of
from tools.evidence_traces import Chain, Frame, Raised, find_chains

Kind = Literal["exception", "line", "end"]
NEAR_LINES = 15
#: what a complaint below ERROR still weighs when this many lines of ordinary work follow it
_PROGRESS = (1.0, 0.85, 0.7, 0.6, 0.5)
LONG_AFTER = 5  #: lines of ordinary work after which a bare complaint, too, was left behind
LEFT_BEHIND = 0.7
BESIDE = 0.7  #: what a line counts that is beside the work, when the work went on after it
QUOTED_CODE = 0.4  #: what a line of source code counts that a message points at
LAST_WORDS = 8  #: a child that failed without an error often said why just before it ended
QUOTED = 4_000  # characters of a line

GOT_OVER = 0.35  #: what a complaint weighs about a thing that went well later
DEALT_WITH = 0.2  #: what a complaint weighs that tells in the same line what was done instead
CHILD_LINES = 30  #: a child's last exception stands this close to its exit code
QUIET_LINES = 50  #: plain lines further than this from the end are not evidence
_GLANCE = Glance()
_WRONG = frozenset({Mark.ERRORISH, Mark.BLUNT, Mark.RETRYING, Mark.NOT_SUCCESS})
_FRAME = frozenset({Mark.NOISE, Mark.STACK})  #: around what is said
_WRAPPER = re.compile(
    r"non-zero exit (?:code|status)|exit(?:ed)?(?: with)? (?:code|status)|returned a failure|container failed"
)

_REPEATS = re.compile(
    r"(?:\w+ - )?Failed to execute (?:job|task) "
)  #: names the exception that the chain shows


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of evidence: one exception, one line or the way the task ended."""

    kind: Kind
    line: int
    text: str
    weight: float
    final: bool = False  #: part of the failure that ended the task
    raised: Raised | None = None
    near: bool = False  #: within the last lines before the end
    errorish: bool = True  #: speaks of something wrong, by its level or its words
    recovered: bool = False  #: the log shows that it was got over
    aside: bool = False  #: about telling, measuring or cleaning up, beside the work
    after: int = 0  #: lines of ordinary work that follow before the end


@dataclass(slots=True)
class Evidence:
    """Everything the log says, ready for the knowledge base."""

    lines: dict[int, LogLine]
    pieces: list[Piece]
    chain: Chain | None = None  #: the exception chain that ended the task
    child: Chain | None = None  #: the last one that a failed child process printed
    end: int = 0  #: line of the failure's end; 0 when the log shows none
    total: int = 0
    order: list[LogLine] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """True when no line says anything beyond Airflow's own preamble."""
        return not self.pieces

    @property
    def user_frame(self) -> Frame | None:
        """The deepest frame in the user's own code, innermost exception first."""
        for raised in reversed(self.chain.raised if self.chain else []):
            for frame in reversed(raised.frames):
                if frame.of_user:
                    return frame
        return None

    @property
    def around(self) -> list[int]:
        """Where the failure stands: the innermost exception's line, and the last thing said before it."""
        header = self.chain.raised[-1].line if self.chain else 0
        begin = self.chain.first if self.chain else self.end + 1
        said = next((x.number for x in reversed(self.order) if x.number < begin and _says(x)), 0)
        return [number for number in (header, said) if number in self.lines]

    def says(self, line: LogLine) -> bool:
        """More than Airflow's own frame around the work."""
        return _says(line)

    def went_well_between(self, first: int, last: int) -> bool:
        """A line between these two tells that something was done or answered well."""
        between = (line for line in self.order if first < line.number < last)
        return any(
            plain(x) and not (m := _marks(x)) & _WRONG and (Mark.FINE in m or went_well(m)) for x in between
        )

    def printed(self, number: int) -> str:
        """The line as printed."""
        line = self.lines.get(number)
        return line.raw[:QUOTED] if line else ""


def read(log: TaskLog) -> Evidence:
    """Weigh the pieces of one log."""
    lines = _inherit([clean(number, raw) for number, raw in excerpt(log.text)])
    evidence = Evidence(lines={line.number: line for line in lines}, pieces=[], order=lines)
    evidence.total = lines[-1].number if lines else 0
    chains = find_chains(lines)
    _enrich(evidence, chains, log.content)
    evidence.end = _end_of(lines, chains)
    final = _final_chain(chains, evidence.end, lines)
    evidence.chain = final
    started = started_at(lines)
    evidence.child = _of_child([c for c in chains if c.last > started], final)
    for chain in chains:
        last = chain is final or chain is evidence.child
        evidence.pieces += _chain_pieces(chain, last, lines, started)
    inside = {n for chain in chains for r in chain.raised for n in range(r.first, r.last + 1)}
    evidence.pieces += _line_pieces([line for line in lines if line.number not in inside], evidence)
    return evidence


def _inherit(lines: list[LogLine]) -> list[LogLine]:
    """A record may span lines: those without a prefix carry the level of the record they continue."""
    level = ""
    number = 0
    for position, line in enumerate(lines):
        if line.prefixed:
            level = line.level if line.level == "error" else ""
        elif level and not line.level and line.number == number + 1:
            lines[position] = line._replace(level=level)
        number = line.number
    return lines


def _end_of(lines: Sequence[LogLine], chains: Sequence[Chain]) -> int:
    """The line at which the task is known to have failed; the last line when the log just stops."""
    for line in reversed(lines):
        if Mark.END in _marks(line):
            return line.number
    if chains:
        return chains[-1].last
    return lines[-1].number if lines else 0


def _final_chain(chains: Sequence[Chain], end: int, lines: Sequence[LogLine]) -> Chain | None:
    """The chain printed with `Task failed`, else the last one near the end."""
    numbers = {line.number: line for line in lines}
    for chain in reversed(chains):
        before = [numbers[n].text for n in range(chain.first - 2, chain.first + 1) if n in numbers]
        if any("Task failed with exception" in t or "Failed to execute" in t for t in before):
            return chain
    if chains and (end - chains[-1].last) < 60:
        return chains[-1]
    return None


def _of_child(chains: Sequence[Chain], final: Chain | None) -> Chain | None:
    """The exception that a failed child process printed last: it, not the wrapper, is the failure."""
    if final is None or not _WRAPPER.search(final.raised[-1].message):
        return None
    return next((c for c in reversed(chains) if 0 < final.first - c.last <= CHILD_LINES), None)


def _chain_pieces(chain: Chain, final: bool, lines: Sequence[LogLine], started: int) -> list[Piece]:
    """One piece per exception; the innermost weighs most."""
    pieces = []
    count = len(chain.raised)
    recovered = not final and _recovers(lines, chain.last)
    for position, raised in enumerate(chain.raised):
        inner = position == count - 1
        weight = 1.0 if final else 0.8
        if not inner:
            weight -= 0.07
        if not final and chain.last < started:
            weight *= 0.25
        elif not final and _went_on(lines, chain.last):
            weight *= 0.6
        if recovered:
            weight *= 0.4
        elif (
            raised.level in ("warning", "info", "debug") and not final and not lines_are_child(lines, raised)
        ):
            weight *= 0.75
        pieces.append(Piece("exception", raised.line, raised.render(), weight, final, raised))
    return pieces


def _went_on(lines: Sequence[LogLine], after: int) -> bool:
    """Plain progress follows for a while: whatever was raised did not end the task."""
    following = lines[_position(lines, after) :]
    told = (x for x in following if x.level in ("info", "") and x.prefixed and Mark.NOISE not in _marks(x))
    return next(islice(told, 12, None), None) is not None


def _position(lines: Sequence[LogLine], after: int) -> int:
    """Where the lines after this number begin."""
    return bisect_right(lines, after, key=lambda line: line.number)


def lines_are_child(lines: Sequence[LogLine], raised: Raised) -> bool:
    """A child's traceback is printed at INFO by Airflow; that level says nothing."""
    return raised.level in ("info", "debug") and any(
        line.prefixed for line in lines if line.number == raised.line
    )


def _recovers(lines: Sequence[LogLine], after: int) -> bool:
    """A sign of success follows within the next lines."""
    following = lines[_position(lines, after) : _position(lines, after + 400)]
    return any(_is_success(line) for line in following)


def _marks(line: LogLine) -> frozenset[int]:
    return _GLANCE.at(line.text)


def _is_success(line: LogLine) -> bool:
    return plain(line) and went_well(_marks(line))


def _line_pieces(lines: Sequence[LogLine], evidence: Evidence) -> list[Piece]:
    """Single lines, weighed by level, by distance to the end, and by whether things went well after."""
    marks = [_marks(line) for line in lines]
    course = course_of(lines, marks, evidence.end)
    pieces = []
    for position, (line, mark) in enumerate(zip(lines, marks, strict=True)):
        distance = course.end - position - course.stacked[position]
        if distance < 0 and evidence.chain is not None and Mark.ERRORISH in mark:
            distance = LAST_WORDS  # what a task printed may be flushed after Airflow told of its failure
        quiet = mark <= QUIET and plain(line) and distance > QUIET_LINES
        if quiet or Mark.NOISE in mark or not line.text.strip():
            continue
        if evidence.chain is not None and Mark.END in mark and _REPEATS.match(line.text):
            continue
        weight = _weigh(line, mark, distance, course.after[position], course)
        kind: Kind = "end" if Mark.END in mark else "line"
        near = 0 <= distance <= NEAR_LINES
        errorish = Mark.ERRORISH in mark or not plain(line)
        if errorish and pointed_at(lines, position):
            errorish, weight = False, weight * QUOTED_CODE
        text = words_of(line.text, counters=Mark.NONE_BAD in mark)
        if errorish and (more := goes_on(lines, position)):
            text = f"{text}\n{more}"
        over = line.number in course.got_over or (Mark.RECOVERS in mark and Mark.GIVES_UP not in mark)
        aside = Mark.ASIDE in mark
        pieces.append(
            Piece(
                kind,
                line.number,
                text,
                weight,
                near=near,
                errorish=errorish,
                recovered=over,
                aside=aside,
                after=course.after[position],
            )
        )
    return pieces


def _weigh(line: LogLine, mark: frozenset[int], distance: int, after: int, course: Course) -> float:
    weight = _line_weight(line, Mark.ERRORISH in mark)
    gives_up = Mark.GIVES_UP in mark
    if Mark.ERRORISH not in mark and plain(line) and not 0 <= distance <= LAST_WORDS:
        weight *= 0.75
    weight += 0.1 if 0 <= distance <= NEAR_LINES else -0.1 if distance > 300 else 0.0
    if line.number < course.success and not gives_up and (line.level == "warning" or Mark.RETRYING in mark):
        weight *= 0.35
    elif Mark.RETRYING in mark and not gives_up and line.number < course.progress:
        weight *= 0.4
    if not gives_up and (line.level == "warning" or (line.level != "error" and Mark.BLUNT not in mark)):
        weight *= _PROGRESS[min(after, len(_PROGRESS) - 1)]
    elif not gives_up and after > LONG_AFTER:
        weight *= LEFT_BEHIND
    if Mark.ASIDE in mark and after:
        weight *= BESIDE
    if Mark.RECOVERS in mark and not gives_up:
        weight *= DEALT_WITH if line.level != "error" else 0.5
    elif line.level != "error" and Mark.PASSED in mark:
        weight *= 0.4
    if line.number < course.later and line.level != "error" and Mark.BLUNT in mark:
        weight *= 0.9
    if line.number in course.got_over:
        weight *= GOT_OVER
    if line.number < course.started:
        weight *= 0.25
    return max(0.05, min(weight, 0.95))


def _says(line: LogLine) -> bool:
    """More than Airflow's own frame around the work."""
    told = bool(line.text.strip()) and "Task failed with" not in line.text
    return told and _marks(line).isdisjoint(_FRAME)


def _line_weight(line: LogLine, errorish: bool) -> float:
    if line.level == "error":
        return 0.85
    if line.level == "warning":
        return 0.65 if errorish else 0.55
    if line.named:  # the program itself calls it information
        return 0.4 if errorish else 0.25
    return 0.7 if errorish else 0.4


def _enrich(evidence: Evidence, chains: list[Chain], content: Sequence[dict[str, JsonValue]]) -> None:
    """Take from Airflow 3's structure what its text leaves out: exit codes, signals, notes, groups."""
    for event in content:
        for key in ("exit_code", "signal"):
            if isinstance(event.get(key), int):
                _add_end(evidence, event)
        detail = event.get("error_detail")
        if isinstance(detail, list):
            for item in detail:
                if isinstance(item, dict):
                    _add_notes(evidence, chains, item)


def _add_end(evidence: Evidence, event: dict[str, JsonValue]) -> None:
    """The way the process ended, at the line that tells of it."""
    said = str(event.get("event", ""))
    number = next((n for n in reversed(evidence.lines) if said and said[:60] in evidence.lines[n].text), 0)
    facts = " ".join(f"{k}={event[k]}" for k in ("exit_code", "signal", "signal_name") if k in event)
    evidence.pieces.append(Piece("end", number or max(evidence.total, 1), f"{said} {facts}", 0.9, final=True))


def _add_notes(evidence: Evidence, chains: list[Chain], item: dict[str, JsonValue]) -> None:
    """Notes and members of an exception group belong to the exception of the same type and message."""
    kind, message = str(item.get("exc_type", "")), str(item.get("exc_value", ""))
    notes = [str(n) for n in item["exc_notes"]] if isinstance(item.get("exc_notes"), list) else []  # type: ignore[union-attr]
    first = message.split("\n", 1)[0]
    match = next(
        (r for c in reversed(chains) for r in c.raised if r.short == kind and r.message.startswith(first)),
        None,
    )
    if match is None:
        number = next(
            (n for n in reversed(evidence.lines) if f"{kind}: {first}"[:80] in evidence.lines[n].text), 0
        )
        if not number:
            return
        match = Raised(kind, message, number, number, number)
        chains.append(Chain([match]))
    match.notes += notes
    match.message = message[:12_000] or match.message
    if not match.frames and isinstance(item.get("frames"), list):
        match.frames = [
            Frame(str(f.get("filename", "")), int(str(f.get("lineno") or 0)), str(f.get("name", "")))
            for f in item["frames"]  # type: ignore[union-attr]
            if isinstance(f, dict)
        ]
    members = item.get("exceptions")
    for group in members if isinstance(members, list) else []:
        for inner in group if isinstance(group, list) else [group]:
            if isinstance(inner, dict):
                match.notes.append(f"{inner.get('exc_type')}: {inner.get('exc_value')}")


def read_import_failure(trace: str) -> list[Piece]:
    """The stack trace of a DAG file that does not import, as evidence outside the log (line 0)."""
    if not trace:
        return []
    lines = [clean(number, raw) for number, raw in enumerate(trace.splitlines(), 1)]
    chains = find_chains(lines)
    if not chains:
        return [Piece("line", 0, trace[:3_000], 1.0, final=True)]
    return [Piece("exception", 0, raised.render(), 1.0, final=True) for raised in chains[-1].raised]
