"""What arrives at the webhook: its signature and its shape."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from graph.domain import Door, FailureId, TaskRef
from graph.errors import EventInvalid, NotAuthentic

TOLERANCE = 300.0  # seconds a delivery's timestamp may be off, either way
NUL = b"\\u0000"  # as JSON has it: it knows no other way to write one
NAMES = ("airflow", "dag_id", "run_id", "task_id", "filename")


class TaskEvent(BaseModel):
    """One event of the listener plugin or of another tool. Unknown fields are ignored: plugins grow."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    event: Literal["task_instance_failed", "task_instance_recovered", "dag_import_error"]
    airflow: str = Field(default="default", min_length=1, max_length=200)
    dag_id: str = Field(default="", max_length=250)
    run_id: str = Field(default="", max_length=250)
    task_id: str = Field(default="", max_length=250)
    map_index: int = Field(default=-1, ge=-1, le=1_000_000)
    try_number: int = Field(default=1, ge=0, le=100_000)
    error: str = Field(default="", max_length=10_000)
    filename: str = Field(default="", max_length=1000)
    dropped: int = Field(default=0, ge=0)

    def failure(self) -> FailureId:
        """The identity of the failure it tells of. Raises `EventInvalid` when it names no task instance."""
        if not (self.dag_id and self.run_id and self.task_id):
            raise EventInvalid("dag_id, run_id and task_id must be given")
        task = TaskRef(dag_id=self.dag_id, run_id=self.run_id, task_id=self.task_id, map_index=self.map_index)
        return FailureId(airflow=self.airflow, task=task, try_number=self.try_number)


class StampedEvent(TaskEvent):
    """An event as it is read: the plugin, and its callback, stamp what they send; other tools need not."""

    sent_at: JsonValue = None

    @property
    def door(self) -> Door:
        """Which way it came."""
        return Door.WEBHOOK if self.sent_at is None else Door.LISTENER


def parse_event(body: bytes) -> StampedEvent:
    """The event in a delivery's body. Raises `EventInvalid` naming the field, never repeating its value.

    What the error text says is still as it came: whoever keeps it removes its secrets first.
    """
    try:
        event = StampedEvent.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise EventInvalid(f"{place}: {first['msg']}") from exc
    if NUL in body:
        for name in NAMES:
            if "\0" in getattr(event, name):
                raise EventInvalid(f"{name}: holds a NUL character")
    return event


def signature(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    """`v1,<base64>` by the Standard Webhooks scheme: HMAC-SHA256 over id, timestamp and raw body."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(signing_key(secret), signed, "sha256")).decode()


@lru_cache(maxsize=16)
def signing_key(secret: str) -> bytes:
    """The key a secret spells; after `whsec_` it is base64. Raises `binascii.Error` when that is none."""
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret.encode()


def check_signature(headers: Mapping[str, str], body: bytes, *, secrets: Sequence[str], now: datetime) -> str:
    """The delivery's id when one of the secrets signed it within the tolerance. Raises `NotAuthentic`."""
    webhook_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "")
    if not (webhook_id and timestamp and given):
        raise NotAuthentic("the headers webhook-id, webhook-timestamp and webhook-signature are required")
    if len(webhook_id) > 200 or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12):
        raise NotAuthentic("webhook-id or webhook-timestamp is malformed")
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE:
        raise NotAuthentic("the delivery's timestamp is too far from this server's clock")
    offered = [one.encode() for one in given.split()[:10]]
    for secret in secrets:
        wanted = signature(secret, webhook_id, timestamp, body).encode()
        if any(hmac.compare_digest(wanted, one) for one in offered):
            return webhook_id
    raise NotAuthentic("no signature matches")
