"""A program that fails without a word: its exit status says why, where its manual gives it a meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from pydantic import Field

from graph.domain import Remediation, RootCause
from tools.evidence import Evidence, Piece
from tools.knowledge.entries import FOLDER, CauseDefaults, Entry, Strict, read_file
from tools.knowledge.ranking import Candidate, Hit, only_wraps

NAME = "_exit_statuses.yaml"
STRENGTH = 0.86  #: an entry called `strong`: a script may end with a number of its own
LEAD = 0.75  #: score of what a status says, where only wrappers speak
HINT = 0.55  #: the same, of a status that others use for something else
COMMON = 10  #: statuses below it mean something else to each program: the failed one must be known
END_LINES = 40  #: the status is told of this close to the end
ANY = "any"

_STATUS = re.compile(
    r"(?i)\b(?:exit(?:ed|s)?|return(?:ed)?)(?: with)?(?: an?)?(?: non-zero)?[ _](?:code|status)\b"
    r"\D{0,4}(\d{1,3})\b"
)
_RUNS = re.compile(r"\b(?:Running|Executing) command: (.+)", re.DOTALL)
_CALLED = re.compile(r"\bCommand '(.+)' returned non-zero exit status", re.DOTALL)
#: a program that says who it is: `curl: (28) …`, `sshd[17]: …`
_BY_NAME = re.compile(r"([a-z][\w.-]{0,30})(?:\[\d+\])?: \S")
#: what scripts print of a program they ran: `ldapadd rc=65`, `rsync exit status 23`
_PRINTED = re.compile(
    r"\b([a-z][\w.-]{0,40})[ :]+(?:rc|exit|exited|returned|status|exit (?:code|status)) ?[ =:]? ?(\d{1,3})\b"
)
_TRACED = re.compile(r"^\++ (\S.*)")  #: what `set -x` prints of each command
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")  #: a word of a list as Python prints it
_ESCAPED = re.compile(r"\\(.)")
_BETWEEN = re.compile(r"&&|\|\||[;|&\n(){}]")
_SET = re.compile(r"^\w+=")
#: run what follows them
_WRAPPERS = frozenset(
    {"command", "env", "exec", "ionice", "nice", "nohup", "stdbuf", "sudo", "time", "timeout"}
)
_AMOUNT = re.compile(r"^\d+(?:\.\d+)?[smhd]?$")
#: do no work that fails with a number of its own
_SHELL = frozenset(
    {"!", ".", ":", "[", "[[", "cd", "date", "do", "done", "echo", "else", "esac", "exit", "export", "fi"}
    | {"for", "if", "local", "mkdir", "printf", "read", "set", "shopt", "sleep", "source", "test", "then"}
    | {"trap", "true", "ulimit", "umask", "unset", "until", "while"}
)
_SHELLS = frozenset({"bash", "dash", "ksh", "sh", "zsh"})


class Meaning(Strict):
    """What some statuses of one program say."""

    status: tuple[int, ...] = Field(min_length=1)
    cause: RootCause
    says: str
    transient: bool | None = None
    hint: bool = False  #: others use this number, too, or it means more than one thing


class _File(Strict):
    """`_exit_statuses.yaml`."""

    programs: dict[str, tuple[Meaning, ...]]


class ExitStatuses:
    """What the manuals of programs say about the numbers they end with."""

    def __init__(
        self, programs: Mapping[str, Sequence[Meaning]], causes: Mapping[RootCause, CauseDefaults]
    ) -> None:
        self._causes = causes
        self._known = {
            (program, status): meaning
            for program, meanings in programs.items()
            for meaning in meanings
            for status in meaning.status
        }
        self._programs = frozenset(programs)

    @classmethod
    def load(
        cls, causes: Mapping[RootCause, CauseDefaults], extra_folder: Path | None = None
    ) -> ExitStatuses:
        """The shipped ones; a program in the user's own file takes the place of the shipped one."""
        programs = read_file(FOLDER / NAME, _File).programs
        own = extra_folder / NAME if extra_folder is not None else None
        if own is not None and own.exists():
            programs = {**programs, **read_file(own, _File).programs}
        return cls(programs, causes)

    def apply(self, evidence: Evidence, candidates: list[Candidate]) -> list[Candidate]:
        """Let the status speak where nothing but wrappers do."""
        top = candidates[0] if candidates else None
        if top is not None and (
            top.cause is not RootCause.EXTERNAL_JOB_FAILED or top.why or not only_wraps(top)
        ):
            return candidates
        found = self._printed(evidence) or self._ended(evidence)
        if found is None:
            return candidates
        program, status, meaning, line = found
        name = f"exit status {status}" if program == ANY else f"exit status {status} of {program}"
        vague = program == ANY or meaning.hint
        if vague and not _silent(evidence):
            return candidates
        score = HINT if vague else LEAD
        piece = Piece("end", line, evidence.printed(line), score, final=True)
        hit = Hit(piece, self._entry(program, meaning), (), score)
        others = [one for one in candidates if one.cause is not meaning.cause]
        why = f"{name}: {meaning.says}"
        return [
            Candidate(meaning.cause, max(score, *(o.score for o in others), 0.0), [hit], why=why),
            *others,
        ]

    def _printed(self, evidence: Evidence) -> tuple[str, int, Meaning, int] | None:
        """The program whose status the script itself told of, in one of its last lines."""
        for line in reversed(evidence.order[-END_LINES:]):
            for name, status in _PRINTED.findall(line.text):
                meaning = self._known.get((name, int(status))) if name != ANY else None
                if meaning is not None and not evidence.went_well_between(line.number, evidence.end):
                    return name, int(status), meaning, line.number
        return None

    def _ended(self, evidence: Evidence) -> tuple[str, int, Meaning, int] | None:
        """The program that the task ended with."""
        if (told := _status(evidence)) is None:
            return None
        status, line = told
        found = self._meaning(list(_commands(evidence)), status) or self._spoke(evidence, status)
        return (found[0], status, found[1], line) if found is not None else None

    def _spoke(self, evidence: Evidence, status: int) -> tuple[str, Meaning] | None:
        """The program that spoke up last by its own name, when it ends so and others do not."""
        if status < COMMON:
            return None
        for line in reversed(evidence.order[-END_LINES:]):
            if (spoke := _BY_NAME.match(line.text)) and spoke[1] in self._programs:
                meaning = self._known.get((spoke[1], status))
                return (spoke[1], meaning) if meaning is not None else None
        return None

    def _meaning(self, commands: Sequence[str], status: int) -> tuple[str, Meaning] | None:
        """The program among these that the status is known of; None when it could be another's."""
        programs = list(dict.fromkeys(program for text in commands for program in _programs(text)))
        known = [one for one in programs if (one, status) in self._known]
        if not known:
            general = self._known.get((ANY, status))
            return (ANY, general) if general and self._programs.isdisjoint(programs) else None
        causes = {self._known[one, status].cause for one in known}
        strangers = not self._programs.issuperset(programs)
        if len(causes) > 1 or (status < COMMON and strangers):
            return None
        return known[-1], self._known[known[-1], status]

    def _entry(self, program: str, meaning: Meaning) -> Entry:
        held = self._causes[meaning.cause]
        transient = held.transient if meaning.transient is None else meaning.transient
        ranked = [Remediation.RETRY] if transient else []
        ranked += [one for one in (held.remediation, *held.alternatives) if one not in ranked]
        return Entry(
            name=f"exit/{program}",
            cause=meaning.cause,
            strength=STRENGTH,
            transient=transient,
            remediation=ranked[0],
            alternatives=tuple(ranked[1:]),
            wait=held.wait,
            says=held.says,
            unless=(),
        )


def _silent(evidence: Evidence) -> bool:
    """Nothing was complained of but the end itself."""
    spoken = (one for one in evidence.pieces if one.kind == "line" and one.errorish and not one.recovered)
    return all(_STATUS.search(piece.text) for piece in spoken)


def _status(evidence: Evidence) -> tuple[int, int] | None:
    """The status that the task ended with, and the line that tells of it."""
    for line in reversed(evidence.order[-END_LINES:]):
        if (found := _STATUS.search(line.text)) and 0 < int(found[1]) < 256:
            return int(found[1]), line.number
    return None


def _commands(evidence: Evidence) -> Iterator[str]:
    """What was run: the last command that a shell traced, else what Airflow or Python says it ran."""
    for line in reversed(evidence.order):
        if traced := _TRACED.match(line.text):
            yield traced[1]
            return
    for line in reversed(evidence.order):
        if told := _CALLED.search(line.text) or _RUNS.search(line.text):
            yield _script(told[1].strip())
            return


def _script(told: str) -> str:
    """The command as a shell would read it, of a list the script that its shell runs."""
    if not told.startswith("["):
        return told
    if not told.endswith("]"):
        return ""  # cut off
    words = [_ESCAPED.sub(r"\1", (one or other).replace("\\n", "\n")) for one, other in _QUOTED.findall(told)]
    if not words:
        return ""
    if PurePosixPath(words[0]).name in _SHELLS and len(words) > 2 and words[1].startswith("-"):
        return words[-1]
    return words[0]


def _programs(script: str) -> Iterator[str]:
    """The programs it runs, without those that do no work of their own."""
    for part in _BETWEEN.split(re.sub(r"\\\n|\d?>&\d|'[^'\n]*'|\"[^\"\n]*\"", " ", script)):
        wrapped = False
        for word in part.split():
            if _SET.match(word) or (wrapped and (word.startswith("-") or _AMOUNT.match(word))):
                continue
            name = PurePosixPath(word).name
            if name in _WRAPPERS:
                wrapped = True
                continue
            if name in ("then", "do", "else", "if", "!"):
                continue
            if name not in _SHELL and re.match(r"\w", name):
                yield name
            break
