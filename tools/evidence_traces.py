"""Exceptions out of log lines: Python tracebacks with their chains, Java stacks, single headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tools.evidence_lines import LogLine

MESSAGE_LINES = 500  #: a pod is printed whole
MESSAGE_CHARS = 12_000

_TRACEBACK = re.compile(r"^[\s|+-]*(?:Exception Group )?Traceback \(most recent call last\):?")
_FRAME = re.compile(r'^[\s|]*File "([^"]+)", line (\d+)(?:, in (.+))?')
_HEADER = re.compile(
    r"^[\s|+-]*((?:[A-Za-z_][\w$]*\.)*[A-Za-z_][\w$]*(?:<[^>]*>)?)(?::\s?(.*)|\s*)$", re.DOTALL
)
_SEPARATOR = re.compile(
    r"^[\s|]*(The above exception was the direct cause|During handling of the above exception)"
)
_JAVA_HEAD = re.compile(
    r"^(?:.*?\b(?:Exception in thread \"[^\"]*\"|Caused by:|Suppressed:|Uncaught exception[^:]*:) )?\s*"
    r"((?:[a-z_][\w$]*\.)+[A-Z][\w$]*(?:Exception|Error|Throwable|Failure|Exit)?)(?::\s?(.*)|\s*)$"
)
_JAVA_FRAME = re.compile(r"^\s*at [\w$.<>/]+\(.*\)?|^\s*\.\.\. \d+ (?:more|common frames)")
_CAUSED = re.compile(r"^\s*Caused by: ")
_RULER = re.compile(r"^[\s|]*[~^]+\s*$")
#: what stands before each line of an exception group's members, once for each group they are in
_OF_GROUP = re.compile(r"^(?:[ \t]*\|)+ ?")
#: between the members of an exception group
_MEMBER = re.compile(r"^[\s|]*\+(?:-\+)?-{4,}(?: (?:\d+|\.\.\.) -{4,})?\s*$")
_END_OF_MESSAGE = re.compile(
    r"^(?:Command exited|Traceback|::|Output:|Bash command|\+-+|\[?SQL: |\(Background on this error)"
)
LIBRARY = re.compile(
    r"site-packages|dist-packages|/lib/python\d|<frozen|<string>|importlib|/lib64/python|\\lib\\|"
    r"/python\d\.\d+/(?!.*dags)|airflow/(sdk|providers|models|operators)"
)


@dataclass(frozen=True, slots=True)
class Frame:
    """One step of a stack."""

    file: str
    line: int
    function: str
    code: str = ""

    @property
    def of_user(self) -> bool:
        """Not a library's file."""
        return LIBRARY.search(self.file) is None

    @property
    def library(self) -> str:
        """Path below the packages folder, or the standard library's module: short and stable."""
        tail = re.split(r"(?:site|dist)-packages/|/lib/python\d[\d.]*/", self.file)[-1]
        return tail.removesuffix(".py") if tail != self.file else tail.rsplit("/", 1)[-1]


@dataclass(slots=True)
class Raised:
    """One exception as the log shows it."""

    type: str
    message: str
    line: int  #: of its header
    first: int  #: line where its block begins
    last: int
    frames: list[Frame] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    depth: int = 0  #: 0 is the outermost of its chain
    level: str = ""

    @property
    def short(self) -> str:
        """The class name alone."""
        return self.type.rsplit(".", 1)[-1]

    @property
    def of_user(self) -> bool:
        """The task's own code raised it: it sums up what others told it."""
        return bool(self.frames) and self.frames[-1].of_user

    @property
    def header(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    def render(self) -> str:
        """What patterns see: header, notes, the raising library and its source line."""
        parts = [self.header, *self.notes]
        if self.frames:
            last = self.frames[-1]
            parts.append(f"@raised {last.library} {last.function}")
            libraries = dict.fromkeys(f.library for f in self.frames[:-1] if not f.of_user)
            inner = [f for f in self.frames if not f.of_user]
            if inner and not last.of_user:
                parts.append("@via " + " ".join(libraries))
            if last.code:
                parts.append(f"@code {last.code}")
        return "\n".join(parts)


@dataclass(slots=True)
class Chain:
    """Exceptions that belong together, outermost first."""

    raised: list[Raised]

    @property
    def first(self) -> int:
        return min(r.first for r in self.raised)

    @property
    def last(self) -> int:
        return max(r.last for r in self.raised)


def find_chains(lines: Sequence[LogLine]) -> list[Chain]:
    """All chains of a log, in the order printed."""
    chains: list[Chain] = []
    index = 0
    while index < len(lines):
        text = lines[index].text
        if "Traceback (most" in text and _TRACEBACK.match(text):
            chain, index = _python_chain(lines, index)
        elif _starts_java(lines, index):
            chain, index = _java_chain(lines, index)
        else:
            index += 1
            continue
        if chain.raised:
            for depth, raised in enumerate(chain.raised):
                raised.depth = depth
            chains.append(chain)
    return chains


def _python_chain(lines: Sequence[LogLine], index: int) -> tuple[Chain, int]:
    """Consecutive tracebacks: with separators innermost first, as Airflow 3 prints them outermost first."""
    found: list[Raised] = []
    separated = False
    while index < len(lines) and _TRACEBACK.match(lines[index].text):
        raised, index = _traceback(lines, index)
        if raised is not None:
            found.append(raised)
        probe = index
        while probe < len(lines) and probe < index + 4 and _is_filler(lines[probe].text):
            separated = separated or _SEPARATOR.match(lines[probe].text) is not None
            probe += 1
        if probe >= len(lines) or not _TRACEBACK.match(lines[probe].text):
            break
        if not separated and lines[probe].prefixed and not lines[index - 1].prefixed:
            break
        index = probe
    return Chain(list(reversed(found)) if separated else found), index


def _is_filler(text: str) -> bool:
    return not text.strip(" |") or _SEPARATOR.match(text) is not None or _MEMBER.match(text) is not None


def _traceback(lines: Sequence[LogLine], start: int) -> tuple[Raised | None, int]:
    """One `Traceback` block: frames, then `Type: message`, which may span lines."""
    index = start + 1
    frames: list[Frame] = []
    while index < len(lines):
        text = lines[index].text
        if match := _FRAME.match(text):
            frames.append(Frame(match.group(1), int(match.group(2)), match.group(3) or ""))
        elif _OF_GROUP.sub("", text)[:1] in (" ", "\t", "|") and frames:
            if not _RULER.match(text) and not frames[-1].code:
                last = frames[-1]
                frames[-1] = Frame(last.file, last.line, last.function, _OF_GROUP.sub("", text).strip()[:200])
        elif text.lstrip().startswith("[Previous line repeated"):
            pass
        else:
            break
        index += 1
    if index >= len(lines):
        return None, index
    head = lines[index]
    match = _HEADER.match(head.text)
    if match is None:
        return None, index
    message, end = _message(lines, index, match.group(2) or "")
    raised = Raised(match.group(1), message, head.number, lines[start].number, lines[end - 1].number, frames)
    raised.level = lines[start].level or (lines[start - 1].level if start else "")
    return raised, end


def _message(lines: Sequence[LogLine], index: int, first: str) -> tuple[str, int]:
    """The message from its first line on; it ends where the next record begins."""
    in_child = lines[index].prefixed
    limit = 5 if in_child else MESSAGE_LINES
    parts = [first]
    index += 1
    while index < len(lines) and len(parts) <= limit:
        line = lines[index]
        if line.prefixed != in_child or _TRACEBACK.match(line.text) or _SEPARATOR.match(line.text):
            break
        if _MEMBER.match(line.text):
            break
        sql = line.text.startswith(("[SQL: ", "(Background")) and not in_child
        noted = in_child and line.raw != line.text and line.level == "info"
        if not sql and (noted or _END_OF_MESSAGE.match(line.text)):
            break
        parts.append(line.text)
        index += 1
    return "\n".join(parts).strip()[:MESSAGE_CHARS], index


def _starts_java(lines: Sequence[LogLine], index: int) -> bool:
    """A header like `a.b.CException: …` whose next lines hold a stack frame or a cause."""
    text = lines[index].text
    if "." not in text or not _JAVA_HEAD.match(text):
        return False
    follow = [lines[i].text for i in range(index + 1, min(index + 6, len(lines)))]
    return any(_JAVA_FRAME.match(t) or _CAUSED.match(t) for t in follow)


def _java_chain(lines: Sequence[LogLine], index: int) -> tuple[Chain, int]:
    """A Java stack and its `Caused by:` parts, outermost first."""
    found: list[Raised] = []
    while index < len(lines):
        match = _JAVA_HEAD.match(lines[index].text)
        if match is None or (found and not _CAUSED.match(lines[index].text)):
            break
        start = index
        parts = [match.group(2) or ""]
        index += 1
        while index < len(lines) and not _JAVA_FRAME.match(lines[index].text):
            if _CAUSED.match(lines[index].text) or len(parts) > MESSAGE_LINES:
                break
            parts.append(lines[index].text)
            index += 1
        while index < len(lines) and _JAVA_FRAME.match(lines[index].text):
            index += 1
        number = lines[start].number
        message = "\n".join(parts).strip()[:MESSAGE_CHARS]
        found.append(Raised(match.group(1), message, number, number, lines[index - 1].number))
        found[-1].level = lines[start].level
    return Chain(found), index
