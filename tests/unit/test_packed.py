"""Columns that are packed on SQLite: what goes in comes out, and what was there before stays readable."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.dialects import postgresql, sqlite

from server.db.packed import PackedJson, pack, unpack

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
        unpack(b"\x02" + pack("{}")[1:])
