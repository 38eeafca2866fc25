"""Columns that are packed on SQLite: what goes in comes out, and what was there before stays readable."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from server.db.packed import ENTRY, ENTRY_WORDS, TAMPERED, WORDS, PackedEntry, PackedJson, pack, unpack

BODY = '{"kind":"decided","seq":1}'
VALUES = [
    pytest.param({}, id="nothing in it"),
    pytest.param({"verdict": "auto", "reasons": ["é", "\u2028", "x" * 10_000]}, id="words and any text"),
    pytest.param([1, None, {"a": 2.5}], id="a list"),
]


@pytest.mark.parametrize("value", VALUES)
def test_what_goes_in_comes_out(value: Any) -> None:
    kind, dialect = PackedJson(), sqlite.dialect()
    stored = kind.process_bind_param(value, dialect)

    assert isinstance(stored, bytes)
    assert kind.process_result_value(stored, dialect) == value


def test_text_of_before_is_read() -> None:
    assert PackedJson().process_result_value('{"a": 1}', sqlite.dialect()) == {"a": 1}


def test_nothing_stays_nothing() -> None:
    assert PackedJson().process_bind_param(None, sqlite.dialect()) is None
    assert PackedJson().process_result_value(None, sqlite.dialect()) is None


def test_postgres_keeps_json() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]

    assert PackedJson().process_bind_param({"a": 1}, dialect) == {"a": 1}


def test_a_newer_version_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="newer version"):
        unpack(b"\x7f" + pack("{}")[1:])


@given(st.text())
def test_an_entry_of_the_trail_comes_out_as_it_went_in(body: str) -> None:
    kind, dialect = PackedEntry(), sqlite.dialect()

    assert kind.process_result_value(kind.process_bind_param(body, dialect), dialect) == body
    assert kind.process_result_value(body, dialect) == body  # of the time before


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(pack(BODY, ENTRY)[:-1], id="cut off"),
        pytest.param(pack(BODY, ENTRY) + b"more", id="written behind"),
        pytest.param(ENTRY + b"\xff" * 9, id="no stream"),
        pytest.param(b"\x7f" + pack(BODY, ENTRY)[1:], id="no version of ours"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_an_entry_that_was_tampered_with_reads_as_none(stored: bytes) -> None:
    assert PackedEntry().process_result_value(stored, sqlite.dialect()) == TAMPERED


@pytest.mark.parametrize(
    ("stored", "text"),
    [("01ab56422be36b01", '{"rule":"members"}'), ("02abc6216e5e0b00", '{"kind":"decided","seq":7}')],
)
def test_what_a_release_of_before_packed_is_read(stored: str, text: str) -> None:
    assert unpack(bytes.fromhex(stored)) == text


def test_the_words_that_things_are_packed_against_stay_as_they_are() -> None:
    digests = [hashlib.sha256(words).hexdigest()[:16] for words in (WORDS, ENTRY_WORDS)]

    assert digests == ["748037cb1a171f65", "5def6d2dfd09e484"]
