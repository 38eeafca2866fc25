"""JSON that only Python reads: on SQLite compressed against words it usually holds, elsewhere JSON as ever.

A row of an incident then takes half a page instead of a whole one. What was stored as text stays readable.
The words are part of the format: they are never changed, only followed by another version.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from pydantic import JsonValue
from sqlalchemy import JSON, ColumnElement, LargeBinary, Text, case, func, type_coerce
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

VERSION = b"\x01"
WORTH = 120  # characters of a line of the agent log; a shorter one gains less than packing costs
AS_TEXT = "packed_text"  #: SQLite's function for `text_of`
WINDOW = -12  # a bare stream, and as much memory as the words and a usual value need
WORDS = (
    b'"rule":"members","shadow":true,"verdict":"never","approvers":"admin","settings":1}{"outcome":"recove'
    b'red_unverified","checks":[{"name":"data","ok":null,"detail":"the pipeline reports nothing about its '
    b'data"},{"name":"quarantine of ","ok":false,"detail":" rows set aside, limit not_healed","detail":"fa'
    b'iled on try no recurrence in the watch window"},{"name":"recurrence","ok":true,"detail":" rows, usua'
    b'l (good runs) declared"},{"name":"rows of ","ok":true,"detail":"satisfied"},{"name":"contract of ","'
    b'ok":true,"detail":"0 tasks after it are done"},{"name":"downstream","ok":true,"detail":"success on t'
    b'ry 2 (failed on 1)"},{"name":"task","ok":true,"detail":"{"remediation":"update_configuration","actio'
    b'ns":[{"name":"set_variable","target":{"conn_id":"","key":"airmedic_contract_"patch_connection","set_'
    b'pool_slots","args":{"value":""},"summary":"","diff":""}{"verdict":"ask","rule":"unsafe to run again"'
    b',"reasons":["the cause passes by itself and the task is declared safe to run again"],"policy":"","ap'
    b'provers":"operator","shadow":false,"radius":{"task_instances":1,"dag_runs":1,"dags":1,"settings":0}}'
    b'{"verdict":"auto","rule":"transient faults are retried","reasons":["{"remediation":"retry","actions"'
    b':[{"name":"wait","target":{},"args":{"seconds":20.0}},{"name":"clear_task","target":{"dag_id":"","ru'
    b'n_id":"scheduled__manual__","tasks":[{"task_id":"","map_index":-1}]},"args":{"downstream":true}}],"s'
    b'ummary":"after 20 s, clear : run it again, as passes by itself","diff":"","requested_by":"","request'
    b'":null}'
)


def pack(text: str) -> bytes:
    """The text, compressed."""
    packer = zlib.compressobj(6, zlib.DEFLATED, WINDOW, 5, zlib.Z_DEFAULT_STRATEGY, WORDS)
    return VERSION + packer.compress(text.encode()) + packer.flush()


def unpack(stored: bytes) -> str:
    """What `pack` was given."""
    if stored[:1] != VERSION:
        raise ValueError(f"packed by a newer version: {stored[:1]!r}")
    unpacker = zlib.decompressobj(WINDOW, zdict=WORDS)
    return (unpacker.decompress(stored[1:]) + unpacker.flush()).decode()


class PackedJson(TypeDecorator[JsonValue]):
    """A column that is JSON to everybody who asks through SQLAlchemy."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        kind: TypeEngine[Any] = LargeBinary() if dialect.name == "sqlite" else JSON(none_as_null=True)
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: JsonValue, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return pack(json.dumps(value, separators=(",", ":")))

    def process_result_value(self, value: Any, dialect: Dialect) -> JsonValue:
        found: JsonValue
        if isinstance(value, bytes):
            found = json.loads(unpack(value))
            return found
        if isinstance(value, str) and dialect.name == "sqlite":
            found = json.loads(value)  # of the time before there was this type
            return found
        given: JsonValue = value
        return given


class PackedLine(PackedJson):
    """What a line of the agent log holds: packed when it is long, unless SQL asks for what is in it."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Text, or bytes, on SQLite: its columns take both."""
        kind: TypeEngine[Any] = Text() if dialect.name == "sqlite" else JSON(none_as_null=True)
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: JsonValue, dialect: Dialect) -> Any:
        """As `asked_of` and `text_of` expect it."""
        if value is None or dialect.name != "sqlite":
            return value
        text = json.dumps(value, separators=(",", ":"))
        return text if len(text) < WORTH or _asked(value) else pack(text)


def _asked(value: JsonValue) -> bool:
    """Whether figures look into such a line: checks by their outcome, diagnoses by the model's use."""
    return isinstance(value, dict) and ("checks" in value or value.get("model") is not None)


def asked_of(column: Any, *, sqlite: bool) -> ColumnElement[JsonValue]:
    """The column's JSON, for SQL to look into; NULL for what is packed, which nobody asks for."""
    shown = case((func.typeof(column) == "text", column)) if sqlite else column
    return type_coerce(shown, JSON())


def text_of(stored: bytes | str | None) -> str | None:
    """The text of a line, packed or not."""
    return unpack(stored) if isinstance(stored, bytes) else stored
