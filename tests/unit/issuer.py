"""An OpenID Connect issuer on a local socket, with real keys that can be rotated."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

AUDIENCE = "airmedic"


class Issuer:
    """Signs tokens, and tells its public keys to whoever asks."""

    def __init__(self) -> None:
        self.url = ""
        self.up = True
        self.asked: list[str] = []
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.configuration: dict[str, Any] = {}
        self.more_keys: list[dict[str, Any]] = []
        self.rotate("first")

    def rotate(self, kid: str) -> None:
        """From now on only this key."""
        self.keys = {kid: rsa.generate_private_key(public_exponent=65537, key_size=2048)}

    def token(self, *, header: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> str:
        """A token as the issuer makes it, but for what the test changes; None takes a claim out."""
        (kid, ours), now = next(iter(self.keys.items())), int(time.time())
        told = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "u-17",
            "iat": now,
            "exp": now + 300,
            "preferred_username": "ada",
            "roles": ["operator"],
            **claims,
        }
        told = {name: value for name, value in told.items() if value is not None}
        made = {"kid": kid, "alg": "RS256", **(header or {})}
        return jwt.encode(told, key or ours, algorithm=made["alg"], headers=made)

    def _document(self, path: str) -> dict[str, Any] | None:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.configuration}
        if path == "/keys":
            ours = [
                {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}
                for kid, key in self.keys.items()
            ]
            return {"keys": [*self.more_keys, *ours]}
        return None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer."""
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        self.asked.append(path)
        found = self._document(path) if self.up else None
        body = json.dumps(found or {}).encode()
        status = b"200 OK" if found is not None else b"503 Gone"
        writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (status, len(body)))
        writer.write(body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def open_issuer() -> AsyncIterator[Issuer]:
    """An issuer that answers until the end of the block."""
    issuer = Issuer()
    server = await asyncio.start_server(issuer.answer, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield issuer
