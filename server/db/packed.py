"""JSON that only Python reads: on SQLite compressed against words it usually holds, elsewhere JSON as ever.

A row of an incident then takes half a page instead of a whole one, and an entry of the audit trail a quarter
of its text. What was stored as text stays readable. The words are part of the format: they are never changed,
only followed by another version.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from pydantic import JsonValue
from sqlalchemy import JSON, ColumnElement, LargeBinary, Text, case, cast, func, or_, type_coerce
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

VERSION = b"\x01"  # the words of an incident's rows
ENTRY = b"\x02"  # those of the audit trail
WORTH = 120  # characters of a line of the agent log; a shorter one gains less than packing costs
TAMPERED = "(not as it was written)"  # no JSON, so no entry
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


ENTRY_WORDS = (
    b'"kind":"token_created","kind":"token_revoked","role":"operator","viewer","admin"."kind":"control","d'
    b'ata":{"paused":true,"shadow":false}."kind":"withdrawn","kind":"fix_undone","kind":"answer_refused","'
    b'kind":"refused".{"at":"20","by":"","data":{"by":"","kind":"approve","kind":"reject","message":"","pl'
    b'an_id":"","version":},"incident":,"key":"","kind":"approved","seq":."outcome":"recovered_unverified"'
    b',"outcome":"not_healed","outcome":"escalated","reason":"failed on try ; the pipeline reports nothing'
    b' about its data"+00:00","by":"airmedic","data":{"outcome":"healed","reason":"success on try 2 (faile'
    b'd on 1); 0 tasks after it are done; satisfied;  rows,  declared; no recurrence in the watch window"}'
    b',"incident":,"key":"none","kind":"ended","seq":."kind":"write_never_arrived","kind":"write_unknown",'
    b'"kind":"write_undone","kind":"write_failed","error":"","after":{"key":"","value":""}."action":"set_v'
    b'ariable","action":"patch_connection","action":"set_pool_slots"+00:00","by":"airmedic","data":{"actio'
    b'n":"clear_task","key":"airmedic:.1.1"},"incident":,"key":"none","kind":"write_sent","seq":+00:00","b'
    b'y":"airmedic","data":{"action":"clear_task","after":[{"map_index":-1,"note":"airmedic:.1.1","state":'
    b'"success","task_id":"","try_number":2}],"key":"airmedic:.1.1"},"incident":,"key":"none","kind":"writ'
    b'e_confirmed","seq":{"at":"20-0T0:00.000000+00:00","by":"policy rule transient faults are retried","d'
    b'ata":{"action":"clear_task","args":{"downstream":true},"before":[{"map_index":-1,"note":"","state":"'
    b'failed","task_id":"","try_number":1}],"evidence":[{"line":,"text":"Error: "},{"line":,"text":"[20-T0'
    b'0:00.000Z] ERROR - INFO - "}],"key":"airmedic:.1.1","plan":"after 20 s, clear \'\': run it again, as  '
    b'passes by itself","policy":"","reasons":["the cause passes by itself and the task is declared safe t'
    b'o run again"],"root_cause":"","rule":"transient faults are retried","target":{"dag_id":"","run_id":"'
    b'scheduled__manual__20-0","tasks":[{"map_index":-1,"task_id":""}]}},"incident":,"key":"none","kind":"'
    b'write_intent","seq":{"at":"20-0","by":"policy rule unsafe to run again","reasons":[],"verdict":"ask"'
    b',"approvers":"operator".{"at":"20-0","by":"policy rule transient faults are retried","data":{"plan":'
    b'"after 20 s, clear \'\': run it again, as  passes by itself","plan_id":"","policy":"","reasons":["the '
    b'cause passes by itself and the task is declared safe to run again"],"rule":"transient faults are ret'
    b'ried","shadow":false,"verdict":"auto","wait":20.0},"incident":,"key":"none","kind":"decided","seq":'
)
_BOOKS = {VERSION: WORDS, ENTRY: ENTRY_WORDS}


def pack(text: str, version: bytes = VERSION) -> bytes:
    """The text, compressed against the words of this version."""
    words = _BOOKS[version]
    packer = zlib.compressobj(6, zlib.DEFLATED, WINDOW, 5, zlib.Z_DEFAULT_STRATEGY, words)
    return version + packer.compress(text.encode()) + packer.flush()


def unpack(stored: bytes) -> str:
    """What `pack` was given. Raises `ValueError` and `zlib.error` for what it did not make."""
    words = _BOOKS.get(stored[:1])
    if words is None:
        raise ValueError(f"packed by a newer version: {stored[:1]!r}")
    unpacker = zlib.decompressobj(WINDOW, zdict=words)
    text = (unpacker.decompress(stored[1:]) + unpacker.flush()).decode()
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("something was cut off from packed text, or written behind it")
    return text


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


class PackedEntry(TypeDecorator[str]):
    """The body of an audit entry. What cannot be read was tampered with: it reads as no entry's body."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Bytes on SQLite, whose columns take both."""
        return value if value is None or dialect.name != "sqlite" else pack(value, ENTRY)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """The text, of whichever time."""
        if not isinstance(value, bytes):
            return None if value is None else str(value)
        try:
            return value.decode() if value.startswith(b"{") else unpack(value)
        except (ValueError, zlib.error):
            return TAMPERED


def entry_of(column: Any, *, sqlite: bool) -> ColumnElement[str]:
    """The bodies of audit entries. SQLite's driver fails on text that is none: such a body reads as empty."""
    if not sqlite:
        return type_coerce(column, PackedEntry())
    stored = cast(column, LargeBinary)
    packed, plain = func.typeof(column) == "blob", func.substr(stored, 1, 1) == b"{"
    return type_coerce(case((or_(packed, plain), stored), else_=b""), PackedEntry())


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
