"""The LangSmith path against a scripted local endpoint: nothing leaves this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from langsmith import Client

from evals.cases import EvalCase
from evals.langsmith_run import LangSmithUnavailable, experiment
from tools.knowledge import KnowledgeBase, KnowledgeDiagnostician

STAMP = "2026-03-02T04:10:01+00:00"
CASES = [
    EvalCase.model_validate(
        {"id": "a", "log": "No space left on device", "root_cause": "storage_exhausted", "transient": False}
    ),
    EvalCase.model_validate({"id": "b", "log": "", "root_cause": "unknown", "transient": False}),
]


class Script(ThreadingHTTPServer):
    """Keeps a dataset, its examples and what was said of them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.dataset: dict[str, Any] | None = None
        self.examples: dict[str, dict[str, Any]] = {}
        self.feedback: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.broken = False


class Handler(BaseHTTPRequestHandler):
    """Answers as LangSmith's API does, as far as an experiment needs it."""

    server: Script

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _answer(self, body: object, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self) -> None:
        body = self._body()
        path = self.path.split("?")[0]
        self.server.calls.append(f"{self.command} {path}")
        if self.server.broken:
            self._answer({"detail": "down"}, 500)
        elif path == "/info":
            self._answer({"version": "0.12", "instance_flags": {"dataset_examples_multipart_enabled": False}})
        elif path.startswith("/datasets"):
            self._datasets(body)
        elif path.startswith("/examples"):
            self._examples(body)
        elif path.startswith("/sessions"):
            sent = json.loads(body or b"{}")
            known = {k: sent[k] for k in ("id", "name", "start_time", "reference_dataset_id") if sent.get(k)}
            base = {"id": str(uuid4()), "name": "x", "tenant_id": str(uuid4()), "start_time": STAMP}
            self._answer({**base, "reference_dataset_id": str(uuid4()), **known})
        elif path.startswith("/feedback"):
            self.server.feedback.append(json.loads(body or b"{}"))
            self._answer({"id": str(uuid4())})
        else:
            self._answer({})

    def _datasets(self, body: bytes) -> None:
        if self.command == "POST":
            sent = json.loads(body)
            self.server.dataset = {**sent, "id": str(sent.get("id") or uuid4()), "created_at": STAMP}
            self._answer(self.server.dataset)
        elif self.path.startswith("/datasets?"):
            self._answer([self.server.dataset] if self.server.dataset else [])
        else:
            self._answer(self.server.dataset)

    def _examples(self, body: bytes) -> None:
        if self.command == "GET":
            self._answer(list(self.server.examples.values()))
            return
        sent = json.loads(body)
        dataset = (self.server.dataset or {}).get("id")
        for one in sent if isinstance(sent, list) else [sent]:
            held = {**self.server.examples.get(str(one["id"]), {}), **one}
            self.server.examples[str(one["id"])] = {**held, "dataset_id": dataset, "created_at": STAMP}
        self._answer(list(self.server.examples.values()) if self.command == "POST" else {"count": len(sent)})

    do_GET = do_POST = do_PATCH = do_PUT = do_HEAD = _handle


@contextmanager
def scripted() -> Iterator[tuple[Script, Client]]:
    script = Script()
    thread = threading.Thread(target=script.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{script.server_address[1]}"
    client = Client(api_url=url, api_key="test", auto_batch_tracing=False)
    try:
        yield script, client
    finally:
        client.cleanup()
        script.shutdown()
        script.server_close()


@pytest.fixture(scope="module")
def diagnostician() -> KnowledgeDiagnostician:
    return KnowledgeDiagnostician(KnowledgeBase.load())


async def test_an_experiment_scores_every_case(diagnostician: KnowledgeDiagnostician) -> None:
    with scripted() as (script, client):
        name = await experiment(client, "airmedic-test", CASES, diagnostician)
        assert name.startswith("airmedic-test")
        assert len(script.examples) == len(CASES)
        keys = {(f.get("key"), f.get("score")) for f in script.feedback}
        assert ("root_cause", 1.0) in keys or ("root_cause", True) in keys
        again = await experiment(client, "airmedic-test", CASES, diagnostician)
        assert again != name
        assert len(script.examples) == len(CASES), "a second run updates, it does not double"


async def test_a_broken_langsmith_is_told(diagnostician: KnowledgeDiagnostician) -> None:
    with scripted() as (script, client):
        script.broken = True
        with pytest.raises(LangSmithUnavailable):
            await experiment(client, "airmedic-test", CASES, diagnostician)
