"""A scripted OpenAI-compatible endpoint: a real HTTP server on 127.0.0.1 that answers what a test wrote down.

    with ScriptedOpenAI(Completion('{"root_cause": "unknown"}'), Status(429)) as server:
        ModelSettings(base_url=server.base_url, ...)

Replies are given in order; when they are used up the last one repeats. Requests are recorded.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Completion:
    """A chat completion. `tool_calls` holds pairs of a name and its arguments."""

    content: str | None = ""
    tool_calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    refusal: str | None = None
    finish_reason: str = ""
    usage: tuple[int, int] | None = (1000, 50)


@dataclass(frozen=True)
class Status:
    """An HTTP error, in OpenAI's form unless `body` says otherwise."""

    code: int
    message: str = "scripted"
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """Any body with status 200; a `declared` length beyond it is a stream that is cut."""

    body: bytes
    declared: int | None = None
    content_type: str = "application/json"


@dataclass(frozen=True)
class Hang:
    """No answer until the server is closed, or the seconds are over."""

    seconds: float = 30.0


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    text: str


Reply = Completion | Status | Raw | Hang
Script = Reply | Callable[[Recorded], Reply]


class ScriptedOpenAI:
    """The endpoint; use it as a context manager."""

    def __init__(self, *script: Script) -> None:
        self._script = script or (Completion(),)
        self._lock = threading.Lock()
        self.requests: list[Recorded] = []
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"scripted": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        """What goes into the client's settings."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_reply(self, request: Recorded) -> Reply:
        """Record a request and give the reply that is due."""
        with self._lock:
            self.requests.append(request)
            step = self._script[min(len(self.requests), len(self._script)) - 1]
        return step(request) if callable(step) else step


class _Handler(BaseHTTPRequestHandler):
    scripted: ScriptedOpenAI

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        request = Recorded(self.path, dict(self.headers), json.loads(text), text)
        reply = self.scripted.next_reply(request)
        match reply:
            case Hang(seconds):
                self.scripted.closing.wait(seconds)
                self.close_connection = True
            case Status(code, message, body, headers):
                error = {"error": {"message": message, "type": "scripted", "code": None}}
                self._send(code, json.dumps(error).encode() if body is None else body, headers=headers)
            case Raw(body, declared, content_type):
                self._send(200, body, declared=declared, content_type=content_type)
            case Completion() if request.body.get("stream"):
                self._send(200, streamed(reply), content_type="text/event-stream")
            case Completion():
                self._send(200, json.dumps(_completion(reply, request.body.get("model", ""))).encode())

    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": "scripted", "object": "model"}]}
        self._send(200, json.dumps(models).encode())

    def _send(
        self,
        code: int,
        body: bytes,
        *,
        declared: int | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body) if declared is None else declared))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: a test's output is the test's."""


def _completion(reply: Completion, model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.content, "refusal": reply.refusal}
    if reply.tool_calls:
        message["tool_calls"] = [
            {
                "id": f"call_{index}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(args)},
            }
            for index, (name, args) in enumerate(reply.tool_calls)
        ]
    reason = reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")
    answer: dict[str, Any] = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
    }
    if reply.usage is not None:
        sent, received = reply.usage
        answer["usage"] = {
            "prompt_tokens": sent,
            "completion_tokens": received,
            "total_tokens": sent + received,
        }
    return answer


def streamed(reply: Completion, *, pieces: int = 4) -> bytes:
    """The same completion as server-sent events, its text in pieces."""
    text = reply.content or ""
    size = max(1, -(-len(text) // pieces))
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[at : at + size]} for at in range(0, len(text), size)]
    if reply.refusal:
        deltas.append({"refusal": reply.refusal})
    for index, (name, args) in enumerate(reply.tool_calls):
        function = {"name": name, "arguments": json.dumps(args)}
        call = {"index": index, "id": f"call_{index}", "type": "function", "function": function}
        deltas.append({"tool_calls": [call]})
    reason = reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")
    base = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
    chunks: list[dict[str, Any]] = [
        {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if reply.usage is not None:
        sent, received = reply.usage
        usage = {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}
        chunks.append({**base, "choices": [], "usage": usage})
    lines = [f"data: {json.dumps(one)}\n\n" for one in chunks]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()
