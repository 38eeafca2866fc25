"""Edits of a data contract: what would make it fit the data that came, and what kind of edit that is.

A contract is JSON in an Airflow Variable called `airmedic_contract_*`; `airflow/dags/airmedic_contract.py`
explains the form and reads it inside the pipeline. Here it is text in, text out, and nothing is guessed:
where the report leaves a choice, the choice is a person's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from graph.domain import ColumnProblem, DataReport, DomainType
from graph.errors import ActionRefused
from tools.json_text import json_of

PREFIX = "airmedic_contract_"
TAG = "airmedic:contract="
ALIKE = 0.5  # of the letters of two names; below that a rename is not even offered
CLEAR_LEAD = 0.15  # by which the best candidate must beat the next
SMALLEST_BATCH = 10  # rows
LONGEST = 86_400.0  # seconds

Cast = Annotated[str, StringConstraints(pattern=r"^(number_with_separators|date:%.+)$")]


class EditKind(StrEnum):
    """What an edit does. Policy allows kinds, not texts."""

    ADD_OPTIONAL = "add_optional"  #: a new column that nothing requires: the only additive edit
    RENAME = "rename"  #: an expected column is read from another one
    CAST = "cast"  #: values are converted
    SET_ASIDE = "set_aside"  #: bad rows below the limit are quarantined
    KEEP_FIRST = "keep_first"  #: repeated keys are quarantined
    BATCH_SIZE = "batch_size"
    TIMEOUT = "timeout"
    IGNORE_EXTRA = "ignore_extra"  #: unknown columns are dropped
    OTHER = "other"  #: anything else, a loosened requirement or limit included


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Column(_Closed):
    type: Literal["integer", "number", "string", "date", "boolean"]
    required: bool = False
    key: bool = False
    source: str | None = None
    cast: Cast | None = None


class _Quarantine(_Closed):
    rows: Literal["fail", "set_aside"] = "fail"
    max_fraction: float = Field(0, ge=0, le=1)
    duplicates: Literal["fail", "keep_first"] = "fail"


class _Contract(_Closed):
    version: Literal[1] = 1
    columns: dict[str, _Column] = Field(min_length=1)
    extra_columns: Literal["fail", "ignore"] = "fail"
    quarantine: _Quarantine = _Quarantine()
    batch_size: int = Field(500, ge=1)
    timeout_seconds: dict[str, Annotated[float, Field(ge=0.1, le=LONGEST)]] = {}


def parse(text: str) -> dict[str, Any]:
    """The contract as JSON, unknown parts refused. `ActionRefused` names the place that is wrong."""
    try:
        found = json_of(text)
        _Contract.model_validate(found)
    except ValidationError as exc:
        wrong = exc.errors()[0]
        place = ".".join(str(one) for one in wrong["loc"])
        raise ActionRefused(f"contract: {place}: {wrong['msg']}") from exc
    except ValueError as exc:
        raise ActionRefused(f"contract: not JSON: {exc}") from exc
    assert isinstance(found, dict)
    return found


def spell(contract: Mapping[str, Any]) -> str:
    """The text that is stored: keys in the order people wrote them."""
    return json.dumps(contract, indent=2, ensure_ascii=False)


# --- what kind of edit it is ------------------------------------------------------------------------------


def edit_kinds(before: str | None, after: str) -> frozenset[EditKind]:
    """Every kind of edit that leads from one text to the other, judged by content alone."""
    try:
        old, new = _Contract.model_validate(parse(before or "")), _Contract.model_validate(parse(after))
    except ActionRefused:
        return frozenset({EditKind.OTHER})
    kinds = set(_column_kinds(old.columns, new.columns)) | set(_quarantine_kinds(old, new))
    if new.extra_columns != old.extra_columns:
        kinds.add(EditKind.IGNORE_EXTRA if new.extra_columns == "ignore" else EditKind.OTHER)
    if new.batch_size != old.batch_size:
        kinds.add(EditKind.BATCH_SIZE)
    if new.timeout_seconds != old.timeout_seconds:
        kinds.add(EditKind.TIMEOUT)
    return frozenset(kinds)


def _column_kinds(old: Mapping[str, _Column], new: Mapping[str, _Column]) -> list[EditKind]:
    kinds = [EditKind.OTHER for name in old if name not in new]
    for name, column in new.items():
        known = old.get(name)
        if known is None:
            optional = not column.required and not column.key and column.source in (None, name)
            kinds.append(EditKind.ADD_OPTIONAL if optional else EditKind.OTHER)
            continue
        if (column.type, column.required, column.key) != (known.type, known.required, known.key):
            kinds.append(EditKind.OTHER)
        if (column.source or name) != (known.source or name):
            kinds.append(EditKind.RENAME)
        if column.cast != known.cast:
            kinds.append(EditKind.CAST)
    return kinds


def _quarantine_kinds(old: _Contract, new: _Contract) -> list[EditKind]:
    kinds = []
    if new.quarantine.rows != old.quarantine.rows:
        kinds.append(EditKind.SET_ASIDE if new.quarantine.rows == "set_aside" else EditKind.OTHER)
    if new.quarantine.duplicates != old.quarantine.duplicates:
        kinds.append(EditKind.KEEP_FIRST if new.quarantine.duplicates == "keep_first" else EditKind.OTHER)
    if new.quarantine.max_fraction != old.quarantine.max_fraction:
        kinds.append(EditKind.OTHER)
    return kinds


# --- edits computed from a report -------------------------------------------------------------------------


class Edit(DomainType):
    """A contract that would fit, and what was changed in words; or why there is none."""

    text: str = ""
    words: tuple[str, ...] = ()
    open: tuple[str, ...] = ()  #: what stays unsolved, with the choices a person has

    @property
    def solved(self) -> bool:
        """True when every problem found its edit."""
        return bool(self.text) and not self.open


def fit(text: str, report: DataReport) -> Edit:
    """The contract changed so that this data keeps it, or the problems that only a person can decide."""
    return _Fitting(parse(text), report).edit()


@dataclass(frozen=True)
class _Candidate:
    problem: ColumnProblem
    likeness: float


class _Fitting:
    """One pass over the problems of a report."""

    def __init__(self, contract: dict[str, Any], report: DataReport) -> None:
        self.before = spell(contract)
        self.contract = json.loads(self.before)
        self.report = report
        self.words: list[str] = []
        self.open: list[str] = []

    def edit(self) -> Edit:
        self._columns()
        self._values()
        self._rows()
        text = spell(self.contract)
        return Edit(text="" if text == self.before else text, words=tuple(self.words), open=tuple(self.open))

    def _of(self, *kinds: str) -> list[ColumnProblem]:
        return [one for one in self.report.problems if one.kind in kinds]

    def _by_source(self, source: str) -> tuple[str, dict[str, Any]] | None:
        for name, spec in self.contract["columns"].items():
            if (spec.get("source") or name) == source:
                return name, spec
        return None

    def _columns(self) -> None:
        """A missing required column beside an unexpected one of its type and a like name was renamed."""
        extra = self._of("unexpected")
        missing = [one for one in self._of("missing") if one.required]
        for lost in missing:
            renamed = _renamed(lost, extra) if len(missing) == 1 else None
            known = self._by_source(lost.column)
            if renamed is None or known is None:
                self.open.append(_options(lost, extra))
                continue
            name, spec = known
            spec["source"] = renamed.column
            self.words.append(f"{name!r} is read from {renamed.column!r}")
            extra = [one for one in extra if one is not renamed]
        for more in extra if not self.open else ():
            self._add(more)

    def _add(self, more: ColumnProblem) -> None:
        kind = "string" if more.found in ("", "null") else more.found
        if kind not in ("integer", "number", "string", "date", "boolean"):
            self.open.append(
                f"column {more.column!r} is new and mixes {kind}: add it as string, or ignore extra columns"
            )
            return
        if more.column in self.contract["columns"]:
            self.open.append(f"column {more.column!r} is back and the contract reads it from another one")
            return
        self.contract["columns"][more.column] = {"type": kind, "required": False}
        self.words.append(f"{more.column!r} ({kind}) is accepted as an optional column")

    def _values(self) -> None:
        for wrong in self._of("type"):
            known = self._by_source(wrong.column)
            fits = wrong.found == "number_with_separators" or re.fullmatch(r"date:%[^|]+", wrong.found)
            if known is None or not fits or known[1].get("cast") == wrong.found:
                self.open.append(_no_cast(wrong))
                continue
            known[1]["cast"] = wrong.found
            self.words.append(f"{wrong.column!r} is converted ({wrong.found})")

    def _rows(self) -> None:
        """Rows to set aside, as long as they are no more than the contract's own limit."""
        empty, nulls, twice = self._of("empty"), self._of("null"), self._of("duplicate")
        if empty:
            self.open.append("the data is empty: the task before this one made nothing")
        if not nulls and not twice:
            return
        rule = self.contract.setdefault("quarantine", {})
        bad, most = self._bad_rows(nulls + twice), self._limit(rule)
        if bad > most:
            self.open.append(f"{bad} of {self.report.rows_in} rows are bad, over the limit of {most}")
            return
        if nulls and rule.get("rows", "fail") == "fail":
            rule["rows"] = "set_aside"
            self.words.append(f"{bad} bad rows are set aside (limit {most})")
        if twice and rule.get("duplicates", "fail") == "fail":
            rule["duplicates"] = "keep_first"
            self.words.append(f"of repeated keys the first row is kept ({twice[0].rows} set aside)")

    def _bad_rows(self, problems: Sequence[ColumnProblem]) -> int:
        counted = sum(one.rows for one in problems)
        told = self.report.rows_quarantined or 0
        # With a cast to come, rows of the wrong type are bad today and good tomorrow.
        return counted if self._of("type") else max(counted if len(problems) == 1 else 0, told) or counted

    def _limit(self, rule: Mapping[str, Any]) -> int:
        return int(float(rule.get("max_fraction", 0)) * (self.report.rows_in or 0) + 1e-9)


def _renamed(lost: ColumnProblem, extra: Sequence[ColumnProblem]) -> ColumnProblem | None:
    """The one unexpected column that this one became; None when there is none or it is not clear which."""
    ranked = sorted(
        (_Candidate(one, alike(lost.column, one.column)) for one in extra if _same_type(lost, one)),
        key=lambda one: one.likeness,
        reverse=True,
    )
    if not ranked or ranked[0].likeness < ALIKE:
        return None
    if len(ranked) > 1 and ranked[0].likeness - ranked[1].likeness < CLEAR_LEAD:
        return None
    return ranked[0].problem


def _same_type(lost: ColumnProblem, other: ColumnProblem) -> bool:
    return other.found == lost.expected or {other.found, lost.expected} == {"integer", "number"}


def alike(one: str, other: str) -> float:
    """From 0 to 1: how much two column names are alike. A name inside the other counts as close."""
    first, second = (re.sub(r"[^a-z0-9]", "", name.lower()) for name in (one, other))
    if not first or not second:
        return 0.0
    words = set(re.findall(r"[a-z0-9]+", one.lower())) & set(re.findall(r"[a-z0-9]+", other.lower()))
    inside = (
        0.75 if words or (min(len(first), len(second)) >= 4 and (first in second or second in first)) else 0
    )
    return max(inside, SequenceMatcher(None, first, second).ratio())


def _options(lost: ColumnProblem, extra: Sequence[ColumnProblem]) -> str:
    told = f"required column {lost.column!r} ({lost.expected}) is gone"
    names = ", ".join(f"{one.column!r} ({one.found})" for one in extra)
    choice = f"read it from one of {names}, or" if names else "ask the owner of the source to restore it, or"
    return f"{told}: {choice} make it optional in the contract"


def _no_cast(wrong: ColumnProblem) -> str:
    told = f"column {wrong.column!r} should be {wrong.expected} and is {wrong.found or 'something else'}"
    if "|" in wrong.found and wrong.found.startswith("date:"):
        return f"{told}: several date formats fit ({wrong.found}); choose one as its cast"
    return f"{told} in {wrong.rows} rows: no cast turns that into {wrong.expected}"


# --- limits -----------------------------------------------------------------------------------------------


def smaller_batch(text: str) -> Edit:
    """Half the batch, down to a floor."""
    contract = parse(text)
    now = int(contract.get("batch_size", 500))
    if now <= SMALLEST_BATCH:
        return Edit(open=(f"batch_size is {now} already",))
    contract["batch_size"] = max(SMALLEST_BATCH, now // 2)
    return Edit(text=spell(contract), words=(f"batch_size {now} → {contract['batch_size']}",))


def longer_timeout(text: str, task_id: str) -> Edit:
    """Twice the task's time, when the contract limits it."""
    contract = parse(text)
    limits = contract.get("timeout_seconds", {})
    if task_id not in limits:
        return Edit(open=(f"the contract sets no timeout_seconds for {task_id!r}",))
    now = limits[task_id]
    if now * 2 > LONGEST:
        return Edit(open=(f"timeout_seconds of {task_id!r} is {now:g} already",))
    limits[task_id] = now * 2
    return Edit(text=spell(contract), words=(f"timeout of {task_id!r} {now:g} s → {now * 2:g} s",))
