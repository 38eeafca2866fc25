"""Unknown errors are read by their words: a subject, and what is said of it."""

from __future__ import annotations

import pytest

from graph.domain import RootCause
from tools.evidence import Piece
from tools.knowledge import entries
from tools.knowledge.lexicon import Lexicon


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load(entries.load().causes)


def read(lexicon: Lexicon, text: str) -> dict[RootCause, float]:
    return {e.cause: e.strength for e in lexicon.read(Piece("line", 1, text, 0.9))}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("FluxThrottlingException: slow down", RootCause.RATE_LIMITED),
        ("daily quota for project p is exhausted", RootCause.RATE_LIMITED),
        ("AVAILABLE_FLUX_CAPACITY_EXCEEDED", RootCause.CAPACITY_UNAVAILABLE),
        ("not enough free nodes to place the job", RootCause.CAPACITY_UNAVAILABLE),
        ("the password you gave is incorrect", RootCause.AUTHENTICATION_FAILED),
        ("role loader lacks permission to read the vault", RootCause.PERMISSION_DENIED),
        ("the peer closed the connection", RootCause.NETWORK_UNREACHABLE),
        ("flux backend is down for maintenance", RootCause.UPSTREAM_UNAVAILABLE),
        ("could not verify the certificate of the peer", RootCause.TLS_ERROR),
        ("the statement timed out", RootCause.TIMEOUT),
        ("ran out of memory while sorting", RootCause.OUT_OF_MEMORY),
        ("scratch volume is full", RootCause.STORAGE_EXHAUSTED),
        ("the agent was preempted", RootCause.WORKER_LOST),
        ("the lock is held by session 9", RootCause.LOCK_CONTENTION),
        ("column order_ref was renamed", RootCause.SCHEMA_DRIFT),
        ("cannot convert value 'n/a' to decimal", RootCause.TYPE_MISMATCH),
        ("unique index breached", RootCause.CONSTRAINT_VIOLATION),
        ("the partition is missing", RootCause.MISSING_DATA),
        ("FLUX_HOME environment variable is not set", RootCause.MISSING_CONFIGURATION),
        ("the plugin couldn't be found: plugin not found", RootCause.DEPENDENCY_ERROR),
        ("the keyword argument is unexpected", RootCause.CODE_ERROR),
        ("syntax error in query", RootCause.QUERY_ERROR),
    ],
    ids=lambda value: value.value if isinstance(value, RootCause) else None,
)
def test_words_name_a_cause(lexicon: Lexicon, text: str, cause: RootCause) -> None:
    found = read(lexicon, text)
    assert cause in found
    assert found[cause] == max(found.values())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("loaded 42 rows into orders", id="ordinary work"),
        pytest.param("statement timeout 60 s", id="a setting is no failure"),
        pytest.param("The command returned a non-zero exit code 1.", id="a wrapper says nothing"),
        pytest.param("state INTERNAL_ERROR", id="a state says how it ended, not why"),
    ],
)
def test_nothing_is_read_into(lexicon: Lexicon, text: str) -> None:
    assert read(lexicon, text) == {}


def test_words_apart_do_not_meet(lexicon: Lexicon) -> None:
    text = "the disk was checked at noon by two people of the night shift team and the queue is full"
    assert RootCause.STORAGE_EXHAUSTED not in read(lexicon, text)


def test_a_code_is_stronger_than_a_sentence(lexicon: Lexicon) -> None:
    code = read(lexicon, "FLUX_QUOTA_EXCEEDED")[RootCause.RATE_LIMITED]
    sentence = read(lexicon, "the flux quota is exceeded")[RootCause.RATE_LIMITED]
    assert code > sentence


def test_what_lasts_is_not_transient(lexicon: Lexicon) -> None:
    found = lexicon.read(Piece("line", 1, "monthly quota exceeded, upgrade your plan", 0.9))
    assert [e.transient for e in found if e.cause is RootCause.RATE_LIMITED] == [False]
