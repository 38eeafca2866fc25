"""uvicorn inside a process that has a life of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class EmbeddedServer(uvicorn.Server):
    """uvicorn that leaves the process's signals to whoever embeds it.

    Its own way with them would end the process before what stands beside the server has closed.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield
