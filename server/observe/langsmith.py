"""LangSmith's own tracing, with everything redacted before it leaves this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import langsmith

from tools.redaction import redact_json

FLUSH = 5.0  # seconds that the last runs have at the end


def clean(content: dict[str, Any]) -> dict[str, Any]:
    """Inputs, outputs, metadata or an error, without secrets."""
    redacted = redact_json(content)
    assert isinstance(redacted, dict)
    return redacted


@asynccontextmanager
async def open_langsmith() -> AsyncIterator[langsmith.Client]:
    """Until the block ends, every LangSmith tracer of this process sends through a client that redacts.

    LangChain makes tracers by itself wherever the variables are set; all of them use the default client.
    """
    client = langsmith.Client(anonymizer=clean)
    langsmith.configure(client=client)
    try:
        yield client
    finally:
        langsmith.configure(client=None)
        await asyncio.to_thread(client.close, FLUSH)
