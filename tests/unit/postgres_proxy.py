"""A line to PostgreSQL that can be cut at a chosen moment."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

from psycopg import conninfo


class Proxy:
    """Listens on a port and passes on what it hears to the server's socket."""

    def __init__(self, path: str, database: str) -> None:
        self.cut_after: bytes | None = None  #: hang up when what was asked with these bytes has been answered
        self.cut_behind: bytes | None = None  #: pass on an answer up to these bytes, and hang up
        self.lingers = 0.0  #: seconds until it does
        self._path = path
        self._database = database
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    def of(cls, url: str) -> Self:
        known = conninfo.conninfo_to_dict(url)
        return cls(f"{known['host']}/.s.PGSQL.{known.get('port', 5432)}", str(known["dbname"]))

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/{self._database}?sslmode=disable&gssencmode=disable"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_raised: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Hang up on everybody and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Hang up on both ends of every connection."""
        for writer in list(self._open):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._path)
        self._open |= {writer, to_server}
        cut = asyncio.Event()

        async def ask() -> None:
            while asked := await reader.read(65536):
                if self.cut_after is not None and self.cut_after in asked:
                    cut.set()
                to_server.write(asked)
            to_server.close()

        async def answer() -> None:
            while answered := await from_server.read(65536):
                if cut.is_set():
                    break
                if self.cut_behind is not None and self.cut_behind in answered:
                    writer.write(answered[: answered.index(self.cut_behind) + len(self.cut_behind)])
                    await asyncio.sleep(self.lingers)
                    break
                writer.write(answered)
            to_server.close()
            writer.close()

        with suppress(ConnectionError):
            await asyncio.gather(ask(), answer())
        self._open -= {writer, to_server}
