"""From raw log text to the lines worth reading: streamed, bounded in memory, safe on any bytes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import re2

WHOLE = 64_000  # characters; shorter logs are read in full
TAIL_LINES = 400
HOT_LINES = 2_500  # error-looking lines kept from a long log, the newest
HEAD_LINES = 40
LINE_CHARS = 4_000  # of an endless line, head and tail are kept
CHUNK = 1 << 20  # bytes
BLOCK = 1 << 16  # bytes that are looked through at once for error-looking lines
LOOKED = 2_000  # bytes of a line in which it may look like an error

_HOT = (
    r"error|exception|fail|fatal|denied|refus|timed? ?out|unable|cannot|could not|can't|not found|no such"
    r"|invalid|killed|exceed|missing|unavailable|abort|reject|forbidden|unauthori|traceback|caused by"
    r"|critical|warn|expired|too many|limit|quota|lock|conflict|violat|mismatch|unknown|exit|signal|retr"
    r"|panic|evict|preempt|oom|memory|no space|disk|reset by|closed|lost|status|does not|doesn't"
    r"|http|certificate"
    r"|  file \"|^ +at |^\tat |::(?:end)?group"
)
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CARET = re.compile(r"\s{2,}[~^]+\s*$")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]+")

_LEVELS = {
    "TRACE": "debug",
    "DEBUG": "debug",
    "INFO": "info",
    "NOTICE": "info",
    "NOTE": "info",
    "LOG": "info",
    "WARN": "warning",
    "WARNING": "warning",
    "ERROR": "error",
    "ERR": "error",
    "SEVERE": "error",
    "CRITICAL": "error",
    "FATAL": "error",
    "PANIC": "error",
    "EMERG": "error",
}
_LEVEL = r"(TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|SEVERE|CRITICAL|FATAL|PANIC)"
# Airflow 3: [2026-01-01T00:00:00Z] INFO - …; 2.x and 1.10: [2024-01-01, 00:00:00 UTC] {file.py:1} INFO - …
_AIRFLOW = re.compile(
    r"^\[\d{4}-\d\d-\d\d[T, ]+\d\d:\d\d:\d\d[^\]]{0,40}\]\s*"
    r"(?:\{+[^}]*\}+\s*)?(?:\[[^\]]*\]\s*)?(?:" + _LEVEL + r"\s*)?(?:-|:)?\s?"
)
_STAMP = re.compile(
    r"^(?:\[(?:base|[\w-]+)\] )?(?:(?:stdout|stderr) [FP] )?"
    r"\[?(?:\d{4}[-/]\d\d[-/]\d\d|\d\d[-/]\d\d[-/]\d\d(?:\d\d)?|[A-Z][a-z]{2} [ \d]\d)?[T ,]*"
    r"\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?\]?[ :-]*(?:(?:stdout|stderr) [FP] )?"
)
_ANY_LEVEL = re.compile(_LEVEL)
_FIRST_LEVEL = re.compile(r"[\[(<|]?\s*" + _LEVEL + r"(?=[\])>|:\s-]|$)")
# Linear in time: a line of nothing but dashes fits each part of the prefix in many ways.
_INNER_LEVEL = re2.compile(
    r"^(?:[\[(<|]?\s*[\w.$/-]{1,60}\s*[\])>|:]?[\s:|-]+){0,3}?[\[(<|]?\s*" + _LEVEL + r"(?:[\])>|:\s-]|$)"
)
#: structlog and its like write levels small, in brackets; .NET with a colon
_SMALL_LEVEL = re.compile(
    r"^\[ *(trace|debug|info|notice|warn(?:ing)?|error|critical|fatal|panic) *\]|^(warn|info): "
)
_KLOG = re.compile(r"^([IWEF])\d{4} \d\d:\d\d:\d\d")
_LOGFMT = re.compile(r"""\b(?:level|lvl|severity)["']?[=:]\s*["']?(\w+)""", re.IGNORECASE)
_KLOG_LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "error"}


class LogLine(NamedTuple):
    """One line: its number in the log, the text as printed, and what it says without prefixes."""

    number: int
    raw: str
    text: str
    level: str  #: debug, info, warning, error, or empty when the line names none
    prefixed: bool  #: printed by a logger of Airflow, so it starts a new record
    named: bool = False  #: the writer inside the task named the level itself


def clean(number: int, raw: str) -> LogLine:
    """Strip colours, Airflow's prefix and timestamps; find the level the innermost writer gave."""
    text = raw if len(raw) <= LINE_CHARS else f"{raw[: LINE_CHARS - 1000]} … {raw[-990:]}"
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if not text.isprintable():
        text = _UNPRINTABLE.sub(" ", text.replace("\t", "    ")).rstrip()
    level = ""
    prefixed = False
    if text.startswith("[") and (match := _AIRFLOW.match(text)):
        prefixed = True
        level = _LEVELS.get(match.group(1) or "", "")
        text = text[match.end() :]
    inner, text = _inner(text)
    return LogLine(number, raw, text, inner or level, prefixed, bool(inner))


def _inner(text: str) -> tuple[str, str]:
    """Level and text as a program inside the task printed them."""
    if text[:1] in "IWEF" and (match := _KLOG.match(text)):
        return _KLOG_LEVELS[match.group(1)], text
    # A stamp needs a digit or a bracket up front; most lines have neither.
    if text[:1].isdigit() or text[:1] == "[" or text[:3].istitle():
        match = _STAMP.match(text)
        if match:
            text = text[match.end() :]
    head = text[:120]
    if _ANY_LEVEL.search(head) is not None:
        match = _FIRST_LEVEL.match(head) or _INNER_LEVEL.match(head)
        if match is not None:
            return _LEVELS[match.group(1)], text
    if head[:1] in "[wi" and (match := _SMALL_LEVEL.match(head)) is not None:
        return _LEVELS[(match.group(1) or match.group(2)).upper()], text
    if ("level" in head or "severity" in head or "lvl" in head) and (match := _LOGFMT.search(text[:600])):
        return _LEVELS.get(match.group(1).upper(), ""), text
    return "", text


class LineScanner:
    """Keeps head, tail and error-looking lines of a log of any size.

    Feed it bytes; it numbers every line and holds at most a few thousand of them.
    """

    def __init__(self) -> None:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        # To the end of the line: a line is found once.
        self._hot = re2.compile(rf"(?im)(?:{_HOT})[^\n]*".encode(), options)
        self._head: list[tuple[int, bytes]] = []
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=HOT_LINES)
        self._tail: deque[tuple[int, bytes]] = deque(maxlen=TAIL_LINES)
        self._number = 0
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the log."""
        piece = self._rest + chunk
        cut = piece.rfind(b"\n") + 1
        piece, self._rest = piece[:cut], piece[cut:]
        # An endless line is cut as it arrives, else it would be copied with every chunk.
        if len(self._rest) > CHUNK:
            self._rest = self._rest[: CHUNK // 2] + self._rest[-CHUNK // 4 :]
        count, first = piece.count(b"\n"), self._number + 1
        self._number += count
        if (wanted := min(count, HEAD_LINES - len(self._head))) > 0:
            self._head += _numbered(piece.split(b"\n", wanted)[:wanted], first)
        tail = min(count, TAIL_LINES)
        last = piece[:-1].rsplit(b"\n", tail)[-tail:] if tail else []
        self._tail.extend(_numbered(last, first + count - tail))
        self._keep_hot(piece, self._number)

    def _keep_hot(self, piece: bytes, number: int) -> None:
        """Look through it from its end, whose last line has this number, until it alone fills the buffer."""
        found: list[tuple[int, bytes]] = []
        end = len(piece)
        while end and len(found) < HOT_LINES:
            begin = piece.rfind(b"\n", 0, max(0, end - BLOCK)) + 1
            block = piece[begin:end]
            number -= block.count(b"\n")
            found = [*self._hot_of(block, number + 1), *found]
            end = begin
        self._kept.extend(found)

    def _hot_of(self, block: bytes, number: int) -> Iterator[tuple[int, bytes]]:
        """The error-looking ones among these lines, of which the first has this number."""
        at = 0
        for match in self._hot.finditer(block):
            seen, end = match.span()
            begin = block.rfind(b"\n", at, seen) + 1 or at
            number += block.count(b"\n", at, begin)
            at = begin
            if seen - begin < LOOKED:
                yield number, block[begin : min(end, begin + LINE_CHARS * 2)]

    def close(self) -> list[tuple[int, str]]:
        """The kept lines in order, decoded."""
        if self._rest:
            self.feed(b"\n")
        kept = dict(self._head)
        kept.update(self._kept)
        kept.update(self._tail)
        return [(number, decode(kept[number])) for number in sorted(kept)]

    @property
    def total(self) -> int:
        """Lines seen so far."""
        return self._number


def _numbered(lines: list[bytes], first: int) -> Iterator[tuple[int, bytes]]:
    return ((first + index, line[: LINE_CHARS * 2]) for index, line in enumerate(lines))


def decode(raw: bytes) -> str:
    """UTF-8, else UTF-16 when it looks so, else Latin-1: never an error."""
    if raw.count(b"\x00") > len(raw) // 3:
        raw = raw.replace(b"\x00", b"")
    try:
        return raw.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError:
        return raw.decode("latin-1").rstrip("\r")


def excerpt(text: str) -> list[tuple[int, str]]:
    """The lines of a log worth reading, numbered from 1."""
    if len(text) <= WHOLE:
        lines = text.split("\n")
        if lines and not lines[-1]:
            lines.pop()
        return [(number, line.rstrip("\r")) for number, line in enumerate(lines, 1)]
    scanner = LineScanner()
    for start in range(0, len(text), CHUNK):
        scanner.feed(text[start : start + CHUNK].encode("utf-8", "replace"))
    return scanner.close()


def excerpt_of(chunks: Iterable[bytes]) -> str:
    """A log of any size as text of bounded size: dropped stretches become empty lines.

    Line numbers survive, so evidence still counts in the original log.
    """
    scanner = LineScanner()
    for chunk in chunks:
        scanner.feed(chunk)
    parts: list[str] = []
    last = 0
    for number, line in scanner.close():
        parts.append("\n" * (number - last - 1) + line)
        last = number
    return "\n".join(parts)


def pointed_at(lines: Sequence[LogLine], position: int) -> bool:
    """A line of source code that a compiler or run time shows, with a caret below: it says nothing."""
    after = lines[position + 1 : position + 2]
    return bool(after) and after[0].number == lines[position].number + 1 and bool(_CARET.match(after[0].text))


def goes_on(lines: Sequence[LogLine], position: int) -> str:
    """The rest of a message that only begins in its line (`Error in f(x) :`) and is indented below it."""
    line, after = lines[position], lines[position + 1 : position + 2]
    if not after or not line.text.rstrip().endswith(":") or after[0].number != line.number + 1:
        return ""
    return after[0].text.strip() if after[0].text.startswith("  ") else ""
