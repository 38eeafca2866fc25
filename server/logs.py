"""structlog, set up once per process: JSON lines to a rotating file, readable lines to the terminal.

Whatever passes through here is redacted, uvicorn's own lines too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from graph.errors import SettingsInvalid
from tools.redaction import redact
from tools.terminal import inert

FILE_SIZE = 10_000_000  # bytes before the file is rotated
FILES_KEPT = 5
DEPTH = 6  # nesting of a logged value that is looked into
QUIET = ("httpx", "httpcore", "aiosqlite", "alembic", "urllib3", "apscheduler", "asyncio")


def redact_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Remove secrets from every text in a log event."""
    for key, value in event.items():
        event[key] = _redacted(value, DEPTH)
    return event


def _redacted(value: object, depth: int) -> object:
    if isinstance(value, str):
        return redact(value)
    if depth == 0 or value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {key: _redacted(one, depth - 1) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(one, depth - 1) for one in value]
    return value


def inert_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What a stranger's text holds must not drive the terminal; the file keeps it, spelled out as JSON."""
    return {key: inert(value) if isinstance(value, str) else value for key, value in event.items()}


def _shared() -> list[Processor]:
    """What happens to every event, ours and the libraries'. Traces become text before redaction.

    Ours come through here once, before they are handed to the file and the terminal.
    """
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(allow=()),
        structlog.processors.format_exc_info,
        redact_values,
    ]


def _handler(handler: logging.Handler, renderer: Sequence[Processor]) -> logging.Handler:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler.setFormatter(formatter)
    return handler


def _open_file(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return RotatingFileHandler(path, maxBytes=FILE_SIZE, backupCount=FILES_KEPT, encoding="utf-8")
    except OSError as exc:
        raise SettingsInvalid(
            f"AIRMEDIC_LOG_FILE names {str(path)!r}, which cannot be written: {exc}"
        ) from exc


@contextmanager
def open_logs(log_file: Path | None, *, terminal: TextIO | None, level: int = logging.INFO) -> Iterator[None]:
    """Log through structlog until the end of the block; then put back what was."""
    handlers: list[logging.Handler] = []
    if log_file is not None:
        handlers.append(_handler(_open_file(log_file), [structlog.processors.JSONRenderer(default=str)]))
    if terminal is not None:
        colours = terminal.isatty()
        lines = structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=24, sort_keys=False)
        handlers.append(_handler(logging.StreamHandler(terminal), [inert_values, lines]))
    root = logging.getLogger()
    before, before_level = list(root.handlers), root.level
    root.handlers[:] = handlers
    root.setLevel(level)
    quiet = {name: logging.getLogger(name).level for name in QUIET}
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
        root.handlers[:] = before
        root.setLevel(before_level)
        for name, was in quiet.items():
            logging.getLogger(name).setLevel(was)
        for handler in handlers:
            handler.close()
