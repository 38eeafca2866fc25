"""Airflow 3's own log files: one JSON object a line, as they lie in its log folder.

The REST API and Airflow's pages print such a message as one line, or more with a traceback. So they are read
here too; what is answered counts in the lines of the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from pydantic import JsonValue

from graph.domain import Diagnosis, TaskLog
from tools.json_text import json_of
from tools.log_text import message_lines
from tools.redaction import redact, redact_json

LOOKED_AT = 20  # lines that tell what kind of file it is
MOST = 0.8  # of them at the least are such messages


@dataclass(frozen=True)
class ReadLog:
    """A log, redacted, and the line of the file that each of its lines stands on."""

    log: TaskLog
    numbers: tuple[int, ...] = ()  #: empty when they are the same

    def counted(self, diagnosis: Diagnosis) -> Diagnosis:
        """The diagnosis with the file's line numbers."""
        if not self.numbers:
            return diagnosis
        evidence = [one.model_copy(update={"line": self._number(one.line)}) for one in diagnosis.evidence]
        ruled_out = [one.model_copy(update={"why": self._words(one.why)}) for one in diagnosis.ruled_out]
        changes = {
            "evidence": tuple(evidence),
            "ruled_out": tuple(ruled_out),
            "context": tuple(self._words(one) for one in diagnosis.context),
            "summary": re.sub(r"\(line \d+ ", lambda found: self._words(found.group()), diagnosis.summary),
        }
        return diagnosis.model_copy(update=changes)

    def _number(self, line: int) -> int:
        return self.numbers[line - 1] if 0 < line <= len(self.numbers) else line

    def _words(self, text: str) -> str:
        return re.sub(r"\bline (\d+)\b", lambda found: f"line {self._number(int(found.group(1)))}", text)


def read_log(text: str) -> ReadLog:
    """Any log as it is given: Airflow 3's JSON lines as Airflow prints them, all else as it stands."""
    lines = text.split("\n")
    if not _is_structured(lines):
        return ReadLog(TaskLog(text=redact(text)))
    printed: list[str] = []
    numbers: list[int] = []
    content: list[dict[str, JsonValue]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        message = _message(line)
        if message is not None:
            content.append(message)
        said = "\n".join(message_lines(message) if message is not None else (line,)).split("\n")
        printed += said
        numbers += [number] * len(said)
    clean = [one for one in map(redact_json, content) if isinstance(one, dict)]
    return ReadLog(TaskLog(text=redact("\n".join(printed)), content=tuple(clean)), tuple(numbers))


def _is_structured(lines: list[str]) -> bool:
    seen = list(islice((line for line in lines if line.strip()), LOOKED_AT))
    return bool(seen) and sum(_message(line) is not None for line in seen) >= MOST * len(seen)


def _message(line: str) -> dict[str, JsonValue] | None:
    """The message on this line, when it is one of Airflow's."""
    if not line.startswith("{"):
        return None
    try:
        found = json_of(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found and "timestamp" in found else None
