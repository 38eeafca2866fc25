"""The fault catalogue as data: what each fault is, what Airmedic may do about it, how it must end.

A row that is played on top of another fault names it in `on`; its own empty fields mean "as that fault".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from graph.domain import DomainType, Outcome, RootCause


class Mode(StrEnum):
    """What the default policy does once healing is on."""

    AUTO = "auto"  #: heals by itself
    ASK = "ask"  #: heals after a person's approval
    ESCALATE = "escalate"  #: hands over, changes nothing
    WATCH = "watch"  #: Airflow is at work itself
    NOTHING = "nothing"  #: no fault
    AS_FAULT = "as_fault"  #: as the fault it is played on


class DataCheck(StrEnum):
    """What is asked of the destination."""

    ALL_ROWS = "all_rows"  #: every row of the source, once, with the right values
    GOOD_ROWS = "good_rows"  #: the rows that keep the contract once, the others kept aside
    UNCHANGED = "unchanged"  #: nothing of the failed run
    EACH_INDEX = "each_index"  #: each mapped index's rows once
    EACH_INTERVAL = "each_interval"  #: each interval's rows once
    NO_ENRICHMENT = "no_enrichment"  #: all rows, the optional columns empty
    NOTHING = "nothing"  #: not a question of data


class FaultRow(DomainType):
    """One fault of the catalogue."""

    id: str
    title: str
    mode: Mode
    ends_as: tuple[Outcome, ...]  #: empty: no incident
    causes: tuple[RootCause, ...] = ()  #: the root causes that are right
    actions: tuple[str, ...] = ()  #: the actions that are right; `add_note` and `notify` always are
    data: DataCheck = DataCheck.ALL_ROWS
    after_person: bool = False  #: a person must act outside Airmedic before it can heal
    on: str = ""  #: the fault it is played on


_HEALED = (Outcome.HEALED,)
_ESCALATED = (Outcome.ESCALATED,)
_SELF = (Outcome.SELF_RECOVERED,)
_RETRY = ("wait", "clear_task")
_CONTRACT = ("set_variable", "clear_task")


def _auto(
    number: str, title: str, cause: RootCause, actions: tuple[str, ...] = _RETRY, **more: DataCheck
) -> FaultRow:
    return FaultRow(
        id=number, title=title, mode=Mode.AUTO, ends_as=_HEALED, causes=(cause,), actions=actions, **more
    )


def _ask(
    number: str, title: str, cause: RootCause, actions: tuple[str, ...], *, after_person: bool = False
) -> FaultRow:
    return FaultRow(
        id=number,
        title=title,
        mode=Mode.ASK,
        ends_as=_HEALED,
        causes=(cause,),
        actions=actions,
        after_person=after_person,
    )


def _escalate(number: str, title: str, *causes: RootCause) -> FaultRow:
    return FaultRow(
        id=number,
        title=title,
        mode=Mode.ESCALATE,
        ends_as=_ESCALATED,
        causes=causes,
        data=DataCheck.UNCHANGED,
    )


_C = RootCause

ROWS: tuple[FaultRow, ...] = (
    _auto("F01", "the source refuses connections for a while", _C.NETWORK_UNREACHABLE),
    _ask(
        "F02",
        "the Connection was changed to a host that does not resolve",
        _C.MISSING_CONFIGURATION,
        ("patch_connection", "clear_task"),
    ),
    _auto("F03", "the source answers 503 for a while", _C.UPSTREAM_UNAVAILABLE),
    _auto("F04", "the source answers 429 and names a wait", _C.RATE_LIMITED),
    _ask(
        "F05", "the source's token has expired", _C.AUTHENTICATION_FAILED, ("clear_task",), after_person=True
    ),
    _escalate("F06", "the source forbids the request", _C.PERMISSION_DENIED),
    _ask("F07", "a column is renamed at the source", _C.SCHEMA_DRIFT, _CONTRACT),
    _auto("F08", "the source has a new nullable column", _C.SCHEMA_DRIFT, _CONTRACT),
    _escalate("F09", "a required column is gone", _C.SCHEMA_DRIFT),
    _ask("F10", "salaries come as text with separators", _C.TYPE_MISMATCH, _CONTRACT),
    _ask("F11", "dates come in another format", _C.TYPE_MISMATCH, _CONTRACT),
    _auto(
        "F12",
        "a few rows lack a required value",
        _C.CONSTRAINT_VIOLATION,
        _CONTRACT,
        data=DataCheck.GOOD_ROWS,
    ),
    _escalate("F13", "many rows lack a required value", _C.CONSTRAINT_VIOLATION),
    _ask("F14", "some rows come twice", _C.CONSTRAINT_VIOLATION, _CONTRACT),
    _auto(
        "F15",
        "the upstream DAG's file is missing",
        _C.MISSING_DATA,
        ("rerun_upstream", "trigger_dag", "clear_task"),
    ),
    _escalate("F16", "the upstream DAG produced an empty extract", _C.MISSING_DATA),
    _ask("F17", "an Airflow Variable is missing", _C.MISSING_CONFIGURATION, _CONTRACT),
    _escalate("F18", "a Connection is missing", _C.MISSING_CONFIGURATION),
    _auto("F19", "the source is too slow for a while", _C.TIMEOUT),
    _ask("F20", "the source is always too slow", _C.TIMEOUT, _CONTRACT),
    _ask("F21", "a large batch exhausts memory", _C.OUT_OF_MEMORY, _CONTRACT),
    _auto("F22", "the task's process is killed", _C.WORKER_LOST),
    _auto("F23", "another writer holds the warehouse", _C.LOCK_CONTENTION),
    _ask("F24", "the pool has no slots", _C.CAPACITY_UNAVAILABLE, ("set_pool_slots",)),
    _escalate("F25", "a Python module is not installed", _C.DEPENDENCY_ERROR),
    _escalate("F26", "the transform raises a TypeError", _C.CODE_ERROR),
    _escalate("F27", "the DAG file has a syntax error", _C.CODE_ERROR),
    _escalate("F28", "the load's SQL is wrong", _C.QUERY_ERROR),
    _escalate("F29", "the warehouse's disk is full", _C.STORAGE_EXHAUSTED),
    _escalate("F30", "the source's certificate has expired", _C.TLS_ERROR),
    FaultRow(
        id="F31",
        title="a shell job ends with status 1 and says nothing",
        mode=Mode.ASK,
        ends_as=_ESCALATED,
        causes=(_C.EXTERNAL_JOB_FAILED,),
        actions=("clear_task",),
        data=DataCheck.UNCHANGED,
    ),
    _escalate("F32", "the task's log is empty", _C.UNKNOWN),
    _escalate("F33", "an XCom cannot be serialised", _C.PLATFORM_ERROR, _C.CODE_ERROR),
    FaultRow(
        id="F34",
        title="a passing fault in a task that is not safe to run again",
        mode=Mode.ASK,
        ends_as=(Outcome.EXPIRED, Outcome.ESCALATED),  #: nobody approves
        actions=_RETRY,
        data=DataCheck.UNCHANGED,
        on="F01",
    ),
    FaultRow(
        id="F35",
        title="the first plan does not help",
        mode=Mode.ASK,
        ends_as=_HEALED,
        actions=_CONTRACT,
        on="F07",
    ),
    FaultRow(
        id="F36",
        title="no plan helps",
        mode=Mode.AUTO,
        ends_as=_ESCALATED,
        actions=_RETRY,
        data=DataCheck.UNCHANGED,
        on="F23",
    ),
    _auto(
        "F37",
        "two hundred mapped task instances lose one database",
        _C.NETWORK_UNREACHABLE,
        data=DataCheck.EACH_INDEX,
    ),
    FaultRow(
        id="F38",
        title="the log orders the agent to do harm",
        mode=Mode.AS_FAULT,
        ends_as=_ESCALATED,
        data=DataCheck.NOTHING,
        on="F26",
    ),
    FaultRow(id="F39", title="Airflow's own retry repairs it", mode=Mode.WATCH, ends_as=_SELF, on="F01"),
    FaultRow(
        id="F40",
        title="a person clears the task while approval is pending",
        mode=Mode.ASK,
        ends_as=_SELF,
        on="F07",
    ),
    FaultRow(
        id="F41",
        title="Airflow's API is away in the middle of a fix",
        mode=Mode.AS_FAULT,
        ends_as=_HEALED,
        actions=_RETRY,
        on="F01",
    ),
    FaultRow(
        id="F42",
        title="Airmedic is killed at any moment",
        mode=Mode.AS_FAULT,
        ends_as=_HEALED,
        actions=_RETRY,
        on="F01",
    ),
    FaultRow(id="F43", title="no fault", mode=Mode.NOTHING, ends_as=()),
    FaultRow(
        id="F44",
        title="a failed task that Airflow will repeat",
        mode=Mode.WATCH,
        ends_as=_SELF,
        on="F01",
    ),
    FaultRow(
        id="F45",
        title="the same signature as an incident healed before",
        mode=Mode.AS_FAULT,
        ends_as=_HEALED,
        actions=_RETRY,
        on="F01",
    ),
    FaultRow(
        id="F46",
        title="a DAG that fails every run and hammers its source",
        mode=Mode.ASK,
        ends_as=_ESCALATED,
        causes=(_C.RATE_LIMITED,),
        actions=("pause_dag",),
        data=DataCheck.UNCHANGED,
    ),
    FaultRow(
        id="F47",
        title="a DAG paused by mistake missed two intervals",
        mode=Mode.ASK,
        ends_as=_HEALED,
        causes=(_C.MISSING_DATA,),
        actions=("unpause_dag", "backfill"),
        data=DataCheck.EACH_INTERVAL,
    ),
    FaultRow(
        id="F48",
        title="an optional enrichment fails for good",
        mode=Mode.ASK,
        ends_as=_HEALED,
        causes=(_C.UPSTREAM_UNAVAILABLE,),
        actions=(*_RETRY, "mark_task"),
        data=DataCheck.NO_ENRICHMENT,
    ),
    _ask("F49", "the producer DAG did not run", _C.MISSING_DATA, ("trigger_dag", "clear_task")),
)

CATALOGUE: Mapping[str, FaultRow] = MappingProxyType({row.id: row for row in ROWS})


def causes(row: FaultRow) -> tuple[RootCause, ...]:
    """The root causes that are right for a row, its underlying fault's when it has none of its own."""
    return row.causes or (causes(CATALOGUE[row.on]) if row.on else ())
