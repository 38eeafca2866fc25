"""The depth of JSON, looked at without parsing it; the time that many bodies are given by one timer."""

from __future__ import annotations

import asyncio
import time

import pytest

from server.access.limits import BODY_LIMIT, is_too_deep
from server.access.time_limit import TimeLimit


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        pytest.param(b"[" * 33, True, id="one too many"),
        pytest.param(b"[" * 32 + b"]" * 32, False, id="just at the limit"),
        pytest.param(b"[]" * 500, False, id="many side by side"),
        pytest.param(b'{"a":' * 40, True, id="objects count too"),
        pytest.param(b'{"a": "' + b"[" * 500 + b'"}', False, id="brackets in a text do not count"),
        pytest.param(b'{"a": "\\"' + b"[" * 500 + b'"}', False, id="nor after an escaped quote"),
        pytest.param(b'"\\\\"' + b"[" * 33, True, id="an escaped backslash ends no text"),
        pytest.param(b'"' + b"[" * 500, True, id="an open text hides nothing"),
        pytest.param(b'"' + b"[" * 500 + b"\\", True, id="nor with a last backslash"),
        pytest.param(b'["[' * 20 + b'"]' * 20, False, id="texts inside arrays"),
    ],
)
def test_depth(body: bytes, deep: bool) -> None:
    assert is_too_deep(body) is deep


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b'\\"', id="escaped quotes"),
        pytest.param(b'"', id="quotes"),
        pytest.param(b"\\", id="backslashes"),
        pytest.param(b"[]", id="brackets"),
        pytest.param(b'"\\', id="texts that never end"),
    ],
)
def test_no_body_takes_long_to_look_at(piece: bytes) -> None:
    """One pass, whatever was sent: a pattern that tries again from each quote takes minutes for this."""
    body = (b"[" * 33 + b'"' + piece * BODY_LIMIT)[:BODY_LIMIT]

    started = time.perf_counter()
    is_too_deep(body, limit=BODY_LIMIT)

    assert time.perf_counter() - started < 1


async def test_each_of_many_has_the_same_time() -> None:
    limit, late = TimeLimit(0.5), []

    async def read(seconds: float, name: str) -> None:
        try:
            with limit:
                await asyncio.sleep(seconds)
        except TimeoutError:
            late.append(name)
        await asyncio.sleep(0)  # whoever was late goes on: it answers

    first = [asyncio.create_task(read(seconds, f"first {seconds}")) for seconds in (5, 0, 5)]
    await asyncio.sleep(0.4)
    second = [asyncio.create_task(read(seconds, f"second {seconds}")) for seconds in (5, 0.05)]

    await asyncio.wait_for(asyncio.gather(*first), timeout=2)
    assert late == ["first 5", "first 5"]
    assert not second[0].done()
    await asyncio.wait_for(asyncio.gather(*second), timeout=2)
    assert late == ["first 5", "first 5", "second 5"]


async def test_who_is_cancelled_meanwhile_stays_cancelled() -> None:
    limit = TimeLimit(60)

    async def read() -> None:
        with limit:
            await asyncio.sleep(60)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    reading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reading
