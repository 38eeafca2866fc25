"""How the work went, as a log's lines tell: where it began, went on, went well, and what was said last."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tools.evidence_lines import LogLine
from tools.evidence_marks import Mark

MOST_THINGS = 300
_THING = re.compile(
    r"https?://[\w./:-]+|(?<![\w.])/[\w.-]+(?:/[\w.-]+)*|\b[\w-]+(?:\.[\w-]+)*:\d{2,5}\b|\b[a-zA-Z][\w]*-\d+\b"
    r"|\b(?:page|chunk|part|shard|worker|partition|item|replica|broker|peer|host|node) #?\d[\w-]*"
    r"|\b[a-zA-Z][\w-]*(?:\.[a-zA-Z][\w-]*){1,}\b"
)
#: a line without any of these names no such thing; far quicker to see
_SIGN = re.compile(
    r"/[\w.-]|:\d\d|-\d|\.[a-zA-Z]|(?:page|chunk|part|shard|worker|partition|item|replica|broker|peer|host"
    r"|node) #?\d|https?:"
)
SOON = 3  #: lines after a complaint in which the same matter is told of as fine
_WORDS = re.compile(r"[a-z]{4,}")
#: words that say how it went, not what about
_ANYWHERE = re.compile(
    r"after|again|attempt|batch|been|connection|debug|done|error|failed|failure|false|file|from"
    r"|have|host|info|into|level|line|name|next|null|page|part|records|retry|retrying|rows|second"
    r"|seconds|stage|status|step|table|that|this|time|true|using|value|warn|warning|were|will|with"
)
SLIGHT = frozenset({Mark.NONE_BAD, Mark.FINE})  #: tells nothing of how the work goes
QUIET = SLIGHT | {Mark.STACK}  #: nor of anything that went wrong by itself


@dataclass(frozen=True, slots=True)
class Course:
    """How the work went, as its lines tell."""

    end: int  #: position of the line at which it ended
    success: int  #: line of the last sign of success
    progress: int  #: last line of ordinary work
    started: int
    after: list[int]  #: for each position, the lines of ordinary work that follow
    stacked: list[int]  #: and the lines of stacks that follow before the end
    got_over: frozenset[int] = frozenset()  #: lines whose host, file or item is told of as fine later
    later: int = 0  #: complaints before this line were followed by ordinary work and then by others


def course_of(lines: Sequence[LogLine], marks: Sequence[frozenset[int]], end: int) -> Course:
    """Read the course of the work off its lines and their marks."""
    success = progress = 0
    position_of_end = len(lines)
    for position, line in enumerate(lines):
        if line.number > end:
            position_of_end = position - 1
            break
        if line.number < end and plain(line):
            success = line.number if went_well(marks[position]) else success
            progress = line.number if line.text.strip() and marks[position] <= SLIGHT else progress
    after = _progress_after(lines, marks, position_of_end)
    later = _last_complaints(lines, marks, position_of_end)
    over = _got_over(lines, marks, position_of_end)
    stacked = _stacked_after(marks, position_of_end)
    return Course(position_of_end, success, progress, started_at(lines), after, stacked, over, later)


def _got_over(lines: Sequence[LogLine], marks: Sequence[frozenset[int]], end: int) -> frozenset[int]:
    """Complaints about a thing of which a later line says that it went well."""
    fine: set[str] = set()
    unread: list[str] = []  # lines that went well and were not asked yet what they are about
    lately: list[int] = []
    over = set()
    for position in range(min(end, len(lines)) - 1, -1, -1):
        line, mark = lines[position], marks[position]
        if Mark.ERRORISH in mark or Mark.BLUNT in mark or Mark.RETRYING in mark:
            if plain_end(mark):
                continue
            same = line.level != "error" and _same_matter(lines, position, lately)
            things = _things(line.text) if not same and (fine or unread) else set()
            while things and unread and len(fine) < MOST_THINGS:
                fine |= _things(unread.pop())
            if same or not fine.isdisjoint(things):
                over.add(line.number)
        elif Mark.FINE in mark and Mark.STACK not in mark and plain(line):
            unread.append(line.text)
            if Mark.CLOSING not in mark:
                lately.append(position)
    return frozenset(over)


def _matter(text: str) -> frozenset[str]:
    """The words of a line that may name what it is about."""
    return frozenset(word for word in _WORDS.findall(text[:120].lower()) if not _ANYWHERE.fullmatch(word))


def _same_matter(lines: Sequence[LogLine], position: int, lately: Sequence[int]) -> bool:
    """One of the next lines tells that the same matter went well: `lock held`, `lock acquired`."""
    soon = [other for other in lately[-SOON:] if other - position <= SOON]
    words = _matter(lines[position].text) if soon else frozenset()
    return any(words & _matter(lines[other].text) for other in soon)


def plain_end(mark: frozenset[int]) -> bool:
    """The line is of the end itself, or tells that nothing more was tried."""
    return Mark.END in mark or Mark.GIVES_UP in mark


def _things(text: str) -> set[str]:
    """What a line is about: hosts, paths, addresses, numbered items."""
    if _SIGN.search(text) is None:
        return set()
    found = (match for match in _THING.finditer(text[:400]))
    return {match.group().lower() for match in found if not text.startswith(": line ", match.end())}


def _last_complaints(lines: Sequence[LogLine], marks: Sequence[frozenset[int]], end: int) -> int:
    """Line at which the ordinary work last went on before the complaints nearest the end."""
    complained = False
    for position in range(min(end, len(lines)) - 1, -1, -1):
        mark = marks[position]
        if Mark.NOISE in mark or Mark.END in mark:
            continue
        if Mark.BLUNT in mark and not (Mark.RECOVERS in mark or Mark.PASSED in mark):
            complained = True
        elif complained and mark <= SLIGHT and plain(lines[position]) and lines[position].prefixed:
            return lines[position].number
    return 0


def _progress_after(lines: Sequence[LogLine], marks: Sequence[frozenset[int]], end: int) -> list[int]:
    """For each line, how many lines of ordinary work follow before the end."""
    counts = [0] * len(lines)
    seen = 0
    for position in range(len(lines) - 1, -1, -1):
        counts[position] = seen
        line = lines[position]
        if (
            position < end
            and marks[position] <= SLIGHT
            and plain(line)
            and line.prefixed
            and line.text[:1].strip()
        ):
            seen += 1
    return counts


def _stacked_after(marks: Sequence[frozenset[int]], end: int) -> list[int]:
    """For each line, how many lines of stacks follow before the end."""
    counts = [0] * len(marks)
    seen = 0
    for position in range(len(marks) - 1, -1, -1):
        counts[position] = seen
        seen += position < end and Mark.STACK in marks[position]
    return counts


def started_at(lines: Sequence[LogLine]) -> int:
    """Line at which the task's own work began: what Airflow printed while starting did not end it.

    Airflow 3 may start a task several times (a slow DAG parse) before it runs.
    """
    begin = 0
    opened = False
    for position, line in enumerate(lines):
        if line.text.startswith("::group::Pre Execute"):
            opened = True
        elif opened and line.text.startswith("::endgroup::"):
            opened = False
            rest = [x for x in lines[position + 1 : position + 200] if not x.text.startswith("::")]
            begin = line.number if rest else begin
    return begin


def plain(line: LogLine) -> bool:
    """The line names no warning and no error."""
    return line.level in ("info", "debug", "")


def went_well(marks: frozenset[int]) -> bool:
    """A sign of success, not negated."""
    return Mark.SUCCESS in marks and Mark.NOT_SUCCESS not in marks and Mark.ERRORISH not in marks
