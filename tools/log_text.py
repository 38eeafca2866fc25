"""Plain text of Airflow 3's structured task logs.

Airflow's REST API gives a log as messages with fields; people, patterns and line numbers want lines.
A message is one line, or as many as its event has; a traceback follows in Python's own form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydantic import JsonValue

TRACEBACK = "Traceback (most recent call last):"


def render(content: Iterable[JsonValue]) -> str:
    """The whole log as text, one message after the other."""
    return "\n".join(line for message in content for line in message_lines(message))


def message_lines(message: JsonValue) -> Iterator[str]:
    """One message as the lines it is printed on."""
    if not isinstance(message, Mapping):
        yield _word(message)
        return
    event = _word(message.get("event"))
    timestamp = message.get("timestamp")
    if timestamp is None:
        yield event
    else:
        yield f"[{_word(timestamp)}] {_level(message)} -{' ' if event else ''}{event}"
    yield from _tracebacks(message.get("error_detail"))


def _level(message: Mapping[str, JsonValue]) -> str:
    return _word(message.get("level") or "info").upper()


def _word(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else str(value)


def _tracebacks(detail: JsonValue) -> Iterator[str]:
    """In Airflow's own order: the exception that failed the task first, then what caused it."""
    if isinstance(detail, list):
        for link in detail:
            if isinstance(link, Mapping):
                yield from _traceback(link)


def _traceback(link: Mapping[str, JsonValue]) -> Iterator[str]:
    frames = link.get("frames")
    if isinstance(frames, list) and frames:
        yield TRACEBACK
        for frame in frames:
            if isinstance(frame, Mapping):
                yield _frame(frame)
    yield f"{_word(link.get('exc_type'))}: {_word(link.get('exc_value'))}"
    notes = link.get("exc_notes")
    if isinstance(notes, list):
        yield from (_word(note) for note in notes)


def _frame(frame: Mapping[str, JsonValue]) -> str:
    file, line, name = (_word(frame.get(key)) for key in ("filename", "lineno", "name"))
    return f'  File "{file}", line {line}, in {name}'
