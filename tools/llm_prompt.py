"""The prompt: what is shown to a language model, how it is fenced, and how much of it fits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from graph.domain import Diagnosis, RootCause
from tools.diagnosis import Case, Context
from tools.redaction import redact

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

LINE_LENGTH = 240  # characters shown of one line
AROUND = 6  # lines shown before and after each line of evidence
TAIL = 25  # lines from the end

_WORDS = re.compile(r"[A-Za-z]+|[0-9]+|\s+|[!-/:-@\[-`{-~]+|[^\x00-\x7f]+|.")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?")
_OPAQUE = re.compile(r"\b(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{16,})\b", re.IGNORECASE)
_TELLING = re.compile(
    r"(?i)error|exception|fail|refused|denied|timed? ?out|killed|fatal|cannot|unable|not found"
)


def prompt_text(name: str) -> str:
    """A prompt from `nodes/prompts/`."""
    return (files("nodes") / "prompts" / name).read_text("utf-8")


def text_of(message: BaseMessage) -> str:
    """A message's text."""
    return message.content if isinstance(message.content, str) else str(message.content)


def estimate_tokens(text: str) -> int:
    """Upper estimate of a text's tokens, without a tokenizer: those are downloaded when first used.

    Words cost a token per six letters, opaque runs of mixed case one per two, digits one per three, marks one
    per two in a row, other scripts one per byte.
    """
    total = 0
    for match in _WORDS.finditer(text):
        word = match.group()
        if not word.isascii():
            total += len(word.encode())
        elif word.isspace():
            total += word.count("\n") + (len(word) > 1)
        elif word.isalpha():
            mixed = word[1:] != word[1:].lower() and word != word.upper()
            total += -(-len(word) // (2 if mixed else 6))
        else:
            total += -(-len(word) // (3 if word.isdigit() else 2))
    return total


def shown_lines(text: str, knowledge: Diagnosis, budget: int) -> dict[int, str]:
    """The decisive lines that fit: around the evidence, then the end, then lines that tell of failure."""
    lines = text.split("\n")
    shown: dict[int, str] = {}
    for number in _by_weight(lines, knowledge):
        if number in shown or not 1 <= number <= len(lines):
            continue
        cost = estimate_tokens(inert(lines[number - 1])) + 4
        if cost > budget:
            break
        budget -= cost
        shown[number] = lines[number - 1]
    return dict(sorted(shown.items()))


def _by_weight(lines: Sequence[str], knowledge: Diagnosis) -> Iterator[int]:
    anchors = [line.line for line in knowledge.evidence]
    yield from anchors
    last = len(lines) - next((index for index, line in enumerate(reversed(lines)) if line.strip()), 0)
    yield from range(last, last - 8, -1)
    for distance in range(1, AROUND + 1):
        for anchor in anchors:
            yield from (anchor - distance, anchor + distance)
    yield from range(last - 8, last - TAIL, -1)
    yield from (
        number for number in range(last, max(0, last - 2000), -1) if _TELLING.search(lines[number - 1])
    )


def fenced(lines: dict[int, str]) -> str:
    """Numbered lines. What strangers wrote is data: no line can close the fence or look like ours."""
    return "\n".join(f"L{number}| {inert(text)}" for number, text in lines.items())


def inert(line: str) -> str:
    """A line made inert and short: no control characters, no marks, no long ids, which prove nothing."""
    text = "".join(char if char.isprintable() else " " for char in line)
    text = _OPAQUE.sub("<id>", _TIME.sub("<time>", text))
    text = text.replace("<<<", "< <").replace(">>>", "> >")
    return text if len(text) <= LINE_LENGTH else text[: LINE_LENGTH - 60] + " … " + text[-57:]


def describe(case: Case, knowledge: Diagnosis) -> str:
    """What Airflow and the knowledge base say, a line each."""
    parts: list[str] = []
    if case.task is not None:
        task = case.task
        parts.append(f"task: operator {task.operator or '?'}, try {task.try_number} of {task.max_tries + 1}")
        if task.duration is not None:
            parts.append(f"duration: {task.duration:.0f} s")
    parts += _context_lines(case.context)
    parts.append(f"knowledge base: {_candidate(knowledge)}")
    parts += [f"ruled out: {drop.root_cause.value}: {drop.why[:120]}" for drop in knowledge.ruled_out[:4]]
    return "\n".join(inert(redact(part)) for part in parts)


def _candidate(knowledge: Diagnosis) -> str:
    if knowledge.root_cause is RootCause.UNKNOWN:
        return "does not know"
    lasting = "transient" if knowledge.transient else "not transient"
    return f"{knowledge.root_cause.value} ({lasting}), confidence {knowledge.confidence:.2f}"


def _context_lines(context: Context) -> Iterator[str]:
    if context.history:
        states = [snapshot.state for snapshot in context.history]
        yield f"last runs of this task, newest first: {', '.join(states[:8])}"
    if context.tries:
        yield f"earlier tries: {', '.join(snapshot.state for snapshot in context.tries[-5:])}"
    if context.siblings:
        dags = {sibling.task.dag_id for sibling in context.siblings}
        yield f"failed in the same minutes: {len(context.siblings)} tasks of {len(dags)} DAGs"
    for task in context.upstream[:5]:
        rows = (
            f", rows out {task.report.rows_out}" if task.report and task.report.rows_out is not None else ""
        )
        yield f"upstream {task.task_id}: {task.state}{rows}"
    latest = context.dag.latest_version if context.dag else None
    if latest is not None and context.dag_version_of_last_success not in (None, latest):
        yield "the DAG's code changed since its last success"
    if context.pool is not None:
        pool = context.pool
        yield f"pool: {pool.occupied} of {pool.slots} slots taken, {pool.queued} queued"
    if trace := context.import_failure.strip():
        yield "the DAG file does not import: " + trace.split("\n")[-1]
    yield from (f"a person says: {note.text}" for note in context.notes[-3:])
