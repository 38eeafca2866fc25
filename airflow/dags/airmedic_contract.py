"""Reads a data contract from an Airflow Variable and holds rows to it. Copy this file beside your DAGs.

The contract is JSON in a Variable called `airmedic_contract_<name>`; the DAG's tag
`airmedic:contract=airmedic_contract_<name>` tells Airmedic where it is. Because schema, casts, quarantine and
sizes are data, they can be mended without a change of code, shown as a diff and taken back:

    {"version": 1,
     "columns": {
        "id":    {"type": "integer", "required": true, "key": true},
        "email": {"type": "string", "required": true, "source": "email_address"},
        "hired": {"type": "date", "required": false, "cast": "date:%d/%m/%Y"}},
     "extra_columns": "fail",
     "quarantine": {"rows": "fail", "max_fraction": 0.05, "duplicates": "fail"},
     "batch_size": 500,
     "timeout_seconds": {"fetch": 30}}

`source` is the column's name at the source. `cast` is `number_with_separators`, `date:<strptime format>` or
null. `quarantine.rows` says what happens to rows that break the contract: `fail`, or `set_aside` as long as
they are no more than `max_fraction` of all rows. `duplicates` of the key: `fail` or `keep_first` (the others
are set aside). `timeout_seconds` limits tasks by name (see `apply_timeout`). Only `columns` must be there.

    contract = Contract.load("airmedic_contract_orders")
    result = contract.check(rows)
    push_report(result.report)      # before raising, so that a failure says what is wrong with the data
    rows = result.rows_or_raise()

Errors and reports name columns, types and counts, never values.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

PREFIX = "airmedic_contract_"
REPORT_KEY = "airmedic_report"
TYPES = ("integer", "number", "string", "date", "boolean")
DATE_FORMATS = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%Y%m%d")
SEPARATED_NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?")
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

Row = dict[str, Any]


class ContractInvalid(Exception):
    """The contract itself is wrong; the message names the place."""


class ContractViolation(Exception):
    """The data breaks the contract; the message names columns, types and counts."""


@dataclass
class Report:
    """What a task says about its data. Pushed as XCom `airmedic_report`."""

    contract: str | None = None
    satisfied: bool | None = None
    rows_in: int | None = None
    rows_out: int | None = None
    rows_expected: int | None = None
    rows_quarantined: int | None = None
    quarantine_limit: int | None = None
    problems: list[dict[str, Any]] = field(default_factory=list)


def push_report(report: Report) -> None:
    """Push the report from inside a running task."""
    from airflow.sdk import get_current_context

    get_current_context()["ti"].xcom_push(key=REPORT_KEY, value=asdict(report))


def apply_timeout(context: Any) -> None:
    """A `pre_execute` hook: the contract of the DAG's tag may limit the task's execution time."""
    named = [tag.partition("=")[2] for tag in context["dag"].tags if tag.startswith("airmedic:contract=")]
    task = context["task"]
    for name in named:
        seconds = Contract.load(name).timeout_seconds.get(task.task_id)
        if seconds is not None:
            task.execution_timeout = timedelta(seconds=seconds)


# --- the contract -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column of the contract."""

    name: str
    type: str
    required: bool
    key: bool
    source: str
    cast: str | None

    def read(self, row: Row) -> tuple[Any, bool]:
        """The row's value in the contract's type, and whether it is right. None is right here."""
        value = row.get(self.source)
        if value is None:
            return None, True
        if self.cast is not None and isinstance(value, str):
            value = cast(self.cast, value)
        return value, fits(self.type, value)


@dataclass
class Result:
    """Rows that keep the contract, rows set aside, and the report on all of them."""

    rows: list[Row]
    quarantined: list[Row]
    report: Report
    complaints: list[str]

    def rows_or_raise(self) -> list[Row]:
        """The good rows, or `ContractViolation`."""
        if self.complaints:
            raise ContractViolation(
                f"contract {self.report.contract!r} broken: " + "; ".join(self.complaints)
            )
        return self.rows


@dataclass(frozen=True)
class Contract:
    """A contract, checked when it is read."""

    name: str
    columns: tuple[Column, ...]
    extra_columns: str = "fail"
    quarantine_rows: str = "fail"
    max_fraction: float = 0.0
    duplicates: str = "fail"
    batch_size: int = 500
    timeout_seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str) -> Contract:
        """Read it from the Airflow Variable."""
        from airflow.sdk import Variable

        if not name.startswith(PREFIX):
            raise ContractInvalid(f"a contract's Variable is called {PREFIX}<name>, not {name!r}")
        return cls.parse(name, Variable.get(name))

    @classmethod
    def parse(cls, name: str, text: str) -> Contract:
        """From the Variable's text."""
        try:
            data = json.loads(text)
        except ValueError as exc:
            raise ContractInvalid(f"contract {name!r} is not JSON: {exc}") from exc
        return _Parser(name).contract(data)

    def check(self, rows: list[Row]) -> Result:
        """Hold rows to the contract; never raises for bad data (see `Result.rows_or_raise`)."""
        return _Check(self, rows).result()

    def quarantine_limit(self, rows: int) -> int:
        """The most rows that may be set aside out of so many."""
        return int(self.max_fraction * rows + 1e-9)


class _Parser:
    """Turns the JSON into a Contract, or says where it is wrong."""

    def __init__(self, name: str) -> None:
        self.name = name

    def contract(self, data: Any) -> Contract:
        known = ("version", "columns", "extra_columns", "quarantine", "batch_size", "timeout_seconds")
        self._keys("the contract", data, known)
        if data.get("version", 1) != 1:
            self._fail("version", f"must be 1, not {data['version']!r}")
        columns = data.get("columns")
        if not isinstance(columns, dict) or not columns:
            self._fail("columns", "must be an object that names at least one column")
        quarantine = data.get("quarantine", {})
        self._keys("quarantine", quarantine, ("rows", "max_fraction", "duplicates"))
        fraction = self._number("quarantine.max_fraction", quarantine.get("max_fraction", 0), least=0, most=1)
        limits = data.get("timeout_seconds", {})
        if not isinstance(limits, dict):
            self._fail("timeout_seconds", "must be an object: task id to seconds")
        batch_size = data.get("batch_size", 500)
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            self._fail("batch_size", "must be a whole number above 0")
        return Contract(
            name=self.name,
            columns=tuple(self._column(name, spec) for name, spec in columns.items()),
            extra_columns=self._choice("extra_columns", data.get("extra_columns", "fail"), "fail", "ignore"),
            quarantine_rows=self._choice(
                "quarantine.rows", quarantine.get("rows", "fail"), "fail", "set_aside"
            ),
            max_fraction=fraction,
            duplicates=self._choice(
                "quarantine.duplicates", quarantine.get("duplicates", "fail"), "fail", "keep_first"
            ),
            batch_size=batch_size,
            timeout_seconds={
                task: self._number(f"timeout_seconds.{task}", seconds, least=0.1, most=86_400)
                for task, seconds in limits.items()
            },
        )

    def _column(self, name: str, spec: Any) -> Column:
        where = f"columns.{name}"
        self._keys(where, spec, ("type", "required", "key", "source", "cast"))
        source, conversion = spec.get("source") or name, spec.get("cast")
        if not isinstance(source, str):
            self._fail(f"{where}.source", "must be a column name")
        known_cast = conversion in (None, "number_with_separators") or (
            isinstance(conversion, str) and conversion.startswith("date:%")
        )
        if not known_cast:
            self._fail(f"{where}.cast", "must be null, number_with_separators or date:<format>")
        return Column(
            name=name,
            type=self._choice(f"{where}.type", spec.get("type"), *TYPES),
            required=self._flag(f"{where}.required", spec.get("required", False)),
            key=self._flag(f"{where}.key", spec.get("key", False)),
            source=source,
            cast=conversion,
        )

    def _keys(self, where: str, data: Any, known: tuple[str, ...]) -> None:
        if not isinstance(data, dict):
            self._fail(where, "must be an object")
        unknown = sorted(set(data) - set(known))
        if unknown:
            self._fail(where, f"has unknown keys {unknown}; known are {sorted(known)}")

    def _choice(self, where: str, value: Any, *known: str) -> str:
        if value not in known:
            self._fail(where, f"must be one of {list(known)}")
        return str(value)

    def _flag(self, where: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self._fail(where, "must be true or false")
        return bool(value)

    def _number(self, where: str, value: Any, *, least: float, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            self._fail(where, f"must be a number from {least} to {most}")
        return float(value)

    def _fail(self, where: str, what: str) -> None:
        raise ContractInvalid(f"contract {self.name!r}: {where} {what}")


# --- values -----------------------------------------------------------------------------------------------


def fits(kind: str, value: Any) -> bool:
    """Whether a value (not None) has the contract's type."""
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int)
    if kind == "number":
        return isinstance(value, (int, float))
    if kind == "date":
        return isinstance(value, str) and bool(ISO_DATE.fullmatch(value)) and _is_date(value, "%Y-%m-%d")
    return isinstance(value, str)


def cast(conversion: str, text: str) -> Any:
    """The text converted; unchanged when it does not have that form, so that the type check names it."""
    text = text.strip()
    if conversion == "number_with_separators":
        if not SEPARATED_NUMBER.fullmatch(text):
            return text
        plain = text.replace(",", "")
        return float(plain) if "." in plain else int(plain)
    wanted = conversion.partition(":")[2]
    return _date(text, wanted).isoformat() if _is_date(text, wanted) else text


def shape(kind: str, values: list[Any]) -> str:
    """What these values look like, in a contract's words: a cast that would mend them all, else their types.

    Several date formats that fit are joined by `|`: only a person can tell them apart.
    """
    if values and all(isinstance(value, str) for value in values):
        texts = [value.strip() for value in values]
        if kind in ("integer", "number") and all(SEPARATED_NUMBER.fullmatch(text) for text in texts):
            return "number_with_separators"
        if kind == "date":
            fitting = [f for f in DATE_FORMATS if all(_is_date(text, f) for text in texts)]
            if fitting:
                return "|".join(f"date:{f}" for f in fitting)
    return "|".join(sorted({type_of(value) for value in values}))


def type_of(value: Any) -> str:
    """The contract's word for a value's type."""
    if isinstance(value, str) and fits("date", value):
        return "date"
    for kind in ("boolean", "integer", "number", "string"):
        if fits(kind, value):
            return kind
    return "null" if value is None else type(value).__name__


def _date(text: str, wanted: str) -> date:
    return datetime.strptime(text, wanted).date()  # noqa: DTZ007  a day has no time zone


def _is_date(text: str, wanted: str) -> bool:
    try:
        _date(text, wanted)
    except ValueError:
        return False
    return True


# --- the check --------------------------------------------------------------------------------------------


class _Check:
    """One pass over the rows, then the verdict."""

    def __init__(self, contract: Contract, rows: list[Row]) -> None:
        self.contract = contract
        self.rows = rows
        self.good: list[Row] = []
        self.aside: list[Row] = []
        self.duplicates = 0
        self.nulls: dict[str, int] = {}
        self.wrong: dict[str, list[Any]] = {}
        self.problems: list[dict[str, Any]] = []
        self.complaints: list[str] = []

    def result(self) -> Result:
        present = {name for row in self.rows for name in row}
        read = [c for c in self.contract.columns if c.source in present]
        if self.rows:
            self._columns(present)
            self._each_row(read)
        else:
            self._problem("empty", "", complaint="no rows", found="no rows")
        limit = self.contract.quarantine_limit(len(self.rows))
        self._verdict_on_rows(limit)
        report = Report(
            contract=self.contract.name,
            satisfied=not self.complaints,
            rows_in=len(self.rows),
            rows_out=len(self.good) if not self.complaints else 0,
            rows_expected=len(self.rows),
            rows_quarantined=len(self.aside),
            quarantine_limit=limit,
            problems=self.problems,
        )
        return Result(self.good, self.aside, report, self.complaints)

    def _columns(self, present: set[str]) -> None:
        for column in self.contract.columns:
            if column.source not in present and column.required:
                told = f"missing column {column.source!r} ({column.type}, required)"
                self._problem("missing", column.source, complaint=told, expected=column.type)
        extra = present - {column.source for column in self.contract.columns}
        for name in sorted(extra) if self.contract.extra_columns == "fail" else ():
            found = "|".join(sorted({type_of(row[name]) for row in self.rows if row.get(name) is not None}))
            told = f"unexpected column {name!r} ({found or 'null'})"
            self._problem("unexpected", name, complaint=told, found=found or "null", required=False)

    def _each_row(self, read: list[Column]) -> None:
        keys = [column.name for column in self.contract.columns if column.key]
        seen: set[tuple[Any, ...]] = set()
        for row in self.rows:
            out, reasons = self._row(row, read)
            key = tuple(out[name] for name in keys)
            if not reasons and keys and key in seen:
                self.duplicates += 1
                reasons = ["duplicate"]
            if reasons:
                self.aside.append({"row": row, "reasons": reasons})
            else:
                seen.add(key)
                self.good.append(out)

    def _row(self, row: Row, read: list[Column]) -> tuple[Row, list[str]]:
        out: Row = {column.name: None for column in self.contract.columns}
        reasons = []
        for column in read:
            value, right = column.read(row)
            out[column.name] = value
            if not right:
                self.wrong.setdefault(column.name, []).append(row[column.source])
                reasons.append(f"type:{column.name}")
            elif value is None and column.required:
                self.nulls[column.name] = self.nulls.get(column.name, 0) + 1
                reasons.append(f"null:{column.name}")
        return out, reasons

    def _verdict_on_rows(self, limit: int) -> None:
        rows_allowed = self.contract.quarantine_rows == "set_aside" and len(self.aside) <= limit
        for column in self.contract.columns:
            values = self.wrong.get(column.name)
            if values:
                found = shape(column.type, values)
                told = f"{len(values)} rows with {column.source!r} not {column.type} but {found}"
                self._problem(
                    "type",
                    column.source,
                    complaint="" if rows_allowed else told,
                    rows=len(values),
                    expected=column.type,
                    found=found,
                    required=column.required,
                )
            nulls = self.nulls.get(column.name)
            if nulls:
                told = f"{nulls} rows without required {column.source!r} ({column.type})"
                complaint = "" if rows_allowed else told
                self._problem(
                    "null", column.source, complaint=complaint, rows=nulls, expected=column.type, found="null"
                )
        if self.duplicates:
            allowed = self.contract.duplicates == "keep_first" and len(self.aside) <= limit
            keys = ", ".join(column.source for column in self.contract.columns if column.key)
            told = "" if allowed else f"{self.duplicates} rows repeat a key ({keys})"
            self._problem("duplicate", keys, complaint=told, rows=self.duplicates)
        if self.complaints and self.aside:
            over = "more than" if len(self.aside) > limit else "within"
            self.complaints.append(
                f"{len(self.aside)} of {len(self.rows)} rows bad, {over} the limit of {limit}"
            )

    def _problem(self, kind: str, column: str, *, complaint: str, **details: Any) -> None:
        problem = {"kind": kind, "column": column, "rows": 0, "expected": "", "found": "", "required": True}
        self.problems.append({**problem, **details})
        if complaint:
            self.complaints.append(complaint)
