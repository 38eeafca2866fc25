"""Contract edits: what is solved, what is left to a person, and what kind of edit each is."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from graph.domain import ColumnProblem, DataReport
from graph.errors import ActionRefused
from tools import contracts
from tools.contracts import EditKind

CONTRACT: dict[str, Any] = {
    "version": 1,
    "columns": {
        "id": {"type": "integer", "required": True, "key": True},
        "email": {"type": "string", "required": True},
        "salary": {"type": "number", "required": True},
        "hired_on": {"type": "date", "required": True},
    },
    "extra_columns": "fail",
    "quarantine": {"rows": "fail", "max_fraction": 0.05, "duplicates": "fail"},
    "batch_size": 50,
    "timeout_seconds": {"fetch": 10},
}
TEXT = json.dumps(CONTRACT)


def missing(column: str, expected: str = "string") -> ColumnProblem:
    return ColumnProblem(kind="missing", column=column, expected=expected)


def extra(column: str, found: str = "string") -> ColumnProblem:
    return ColumnProblem(kind="unexpected", column=column, found=found, required=False)


def wrong(column: str, expected: str, found: str, rows: int = 1000) -> ColumnProblem:
    return ColumnProblem(kind="type", column=column, rows=rows, expected=expected, found=found)


def nulls(rows: int) -> ColumnProblem:
    return ColumnProblem(kind="null", column="email", rows=rows, expected="string", found="null")


def twice(rows: int) -> ColumnProblem:
    return ColumnProblem(kind="duplicate", column="id", rows=rows)


def report(*problems: ColumnProblem, aside: int = 0) -> DataReport:
    return DataReport(rows_in=1000, rows_quarantined=aside, problems=problems)


def fit(*problems: ColumnProblem, aside: int = 0, text: str = TEXT) -> contracts.Edit:
    return contracts.fit(text, report(*problems, aside=aside))


@pytest.mark.parametrize(
    ("edit", "kinds"),
    [
        pytest.param(fit(missing("email"), extra("email_address")), {EditKind.RENAME}, id="renamed column"),
        pytest.param(fit(extra("nickname")), {EditKind.ADD_OPTIONAL}, id="new column"),
        pytest.param(fit(extra("age", "integer")), {EditKind.ADD_OPTIONAL}, id="new column of another type"),
        pytest.param(fit(extra("empty", "null")), {EditKind.ADD_OPTIONAL}, id="new column without values"),
        pytest.param(
            fit(wrong("salary", "number", "number_with_separators"), aside=1000),
            {EditKind.CAST},
            id="numbers with separators",
        ),
        pytest.param(
            fit(wrong("hired_on", "date", "date:%d/%m/%Y"), aside=1000), {EditKind.CAST}, id="date format"
        ),
        pytest.param(fit(nulls(20), aside=20), {EditKind.SET_ASIDE}, id="2 % of rows lack a field"),
        pytest.param(fit(nulls(50), aside=50), {EditKind.SET_ASIDE}, id="just at the limit"),
        pytest.param(fit(twice(5), aside=5), {EditKind.KEEP_FIRST}, id="repeated keys"),
        pytest.param(
            fit(nulls(20), twice(5), aside=25), {EditKind.SET_ASIDE, EditKind.KEEP_FIRST}, id="both at once"
        ),
        pytest.param(
            fit(missing("email"), extra("email_address"), extra("age", "integer")),
            {EditKind.RENAME, EditKind.ADD_OPTIONAL},
            id="one renamed and one new",
        ),
        pytest.param(contracts.smaller_batch(TEXT), {EditKind.BATCH_SIZE}, id="smaller batch"),
        pytest.param(contracts.longer_timeout(TEXT, "fetch"), {EditKind.TIMEOUT}, id="longer timeout"),
    ],
)
def test_a_solved_edit_is_of_its_kind(edit: contracts.Edit, kinds: set[EditKind]) -> None:
    assert edit.solved
    assert contracts.edit_kinds(TEXT, edit.text) == kinds
    assert contracts.parse(edit.text)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        pytest.param(fit(missing("email")), "is gone", id="a required column gone, nothing like it"),
        pytest.param(fit(missing("email"), extra("city")), "read it from one of 'city'", id="no like name"),
        pytest.param(fit(missing("email"), extra("email_count", "integer")), "is gone", id="no like type"),
        pytest.param(
            fit(missing("email"), extra("email_work"), extra("email_home")), "one of", id="two candidates"
        ),
        pytest.param(
            fit(missing("email"), missing("salary", "number"), extra("email_address")),
            "is gone",
            id="two columns gone",
        ),
        pytest.param(fit(nulls(400), aside=400), "over the limit of 50", id="40 % of rows lack a field"),
        pytest.param(fit(nulls(51), aside=51), "over the limit", id="one row over the limit"),
        pytest.param(fit(nulls(40), twice(40), aside=80), "over the limit", id="over the limit together"),
        pytest.param(
            fit(wrong("hired_on", "date", "date:%d/%m/%Y|date:%m/%d/%Y")), "choose one", id="two date formats"
        ),
        pytest.param(fit(wrong("salary", "number", "string")), "no cast", id="no cast helps"),
        pytest.param(fit(extra("mixed", "integer|string")), "mixes", id="a new column of several types"),
        pytest.param(fit(ColumnProblem(kind="empty", column="")), "empty", id="no rows at all"),
        pytest.param(
            fit(wrong("salary", "number", "string"), extra("nickname")), "no cast", id="one of two unsolved"
        ),
        pytest.param(contracts.longer_timeout(TEXT, "load"), "sets no timeout", id="no limit to raise"),
    ],
)
def test_what_is_not_clear_is_left_to_a_person(edit: contracts.Edit, words: str) -> None:
    assert not edit.solved
    assert words in " ".join(edit.open)


def test_a_rename_reads_the_new_column_under_the_old_name() -> None:
    edit = fit(missing("email"), extra("email_address"))

    email = json.loads(edit.text)["columns"]["email"]
    assert email == {"type": "string", "required": True, "source": "email_address"}


def test_a_second_rename_finds_the_column_by_its_source() -> None:
    renamed = fit(missing("email"), extra("email_address"))

    again = fit(missing("email_address"), extra("email_addr"), text=renamed.text)

    assert json.loads(again.text)["columns"]["email"]["source"] == "email_addr"


def test_a_cast_that_stands_already_is_not_proposed_again() -> None:
    cast = fit(wrong("salary", "number", "number_with_separators"))

    assert not fit(wrong("salary", "number", "number_with_separators"), text=cast.text).solved


def test_a_batch_has_a_floor() -> None:
    small = json.dumps({**CONTRACT, "batch_size": 10})

    assert not contracts.smaller_batch(small).solved


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"quarantine": {**CONTRACT["quarantine"], "max_fraction": 0.5}}, id="a looser limit"),
        pytest.param(
            {
                "columns": {
                    **CONTRACT["columns"],
                    "email": {"type": "string", "required": False},
                }
            },
            id="a column no longer required",
        ),
        pytest.param({"columns": {"id": CONTRACT["columns"]["id"]}}, id="columns removed"),
        pytest.param(
            {"columns": {**CONTRACT["columns"], "nick": {"type": "string", "required": True}}},
            id="a new column that is required",
        ),
        pytest.param(
            {"columns": {**CONTRACT["columns"], "nick": {"type": "string", "source": "email"}}},
            id="a new name for a column that is there",
        ),
    ],
)
def test_a_loosened_contract_is_never_called_additive(change: dict[str, Any]) -> None:
    kinds = contracts.edit_kinds(TEXT, json.dumps({**CONTRACT, **change}))

    assert EditKind.OTHER in kinds


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        pytest.param({"extra_columns": "ignore"}, EditKind.IGNORE_EXTRA, id="extra columns are ignored"),
        pytest.param({"batch_size": 7}, EditKind.BATCH_SIZE, id="another batch size"),
        pytest.param({"timeout_seconds": {"load": 99}}, EditKind.TIMEOUT, id="another timeout"),
    ],
)
def test_an_edit_that_rides_along_is_named_as_well(change: dict[str, Any], kind: EditKind) -> None:
    """Else a rule that allows the one would allow the other."""
    optional = {"columns": {**CONTRACT["columns"], "nick": {"type": "string", "required": False}}}

    assert contracts.edit_kinds(TEXT, json.dumps({**CONTRACT, **optional})) == {EditKind.ADD_OPTIONAL}
    assert contracts.edit_kinds(TEXT, json.dumps({**CONTRACT, **optional, **change})) == {
        EditKind.ADD_OPTIONAL,
        kind,
    }


def test_failing_at_extra_columns_again_is_no_kind_that_a_rule_could_name() -> None:
    before = json.dumps({**CONTRACT, "extra_columns": "ignore"})

    assert contracts.edit_kinds(before, TEXT) == {EditKind.OTHER}


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        pytest.param("email", "e_mail", True, id="spelled otherwise"),
        pytest.param("email", "email_address", True, id="the one inside the other"),
        pytest.param("ab", "fabricated", False, id="too short to mean anything inside another"),
        pytest.param("---", "email", False, id="no letters in the one"),
        pytest.param("email", "___", False, id="no letters in the other"),
        pytest.param("email", "salary", False, id="two things"),
    ],
)
def test_names_of_columns_are_alike(one: str, other: str, alike: bool) -> None:
    assert (contracts.alike(one, other) >= contracts.ALIKE) is alike


@pytest.mark.parametrize("before", [None, "", "not JSON", "{}"])
def test_an_edit_of_what_is_no_contract_is_of_no_known_kind(before: str | None) -> None:
    assert contracts.edit_kinds(before, TEXT) == {EditKind.OTHER}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not JSON"),
        ("[]", "valid dictionary|instance of"),
        ('{"columns": {}}', "columns"),
        ('{"columns": {"id": {"type": "int"}}}', "columns.id.type"),
        ('{"columns": {"id": {"type": "integer", "nullable": true}}}', "columns.id.nullable"),
        ('{"columns": {"id": {"type": "integer"}}, "quarantine": {"max_fraction": 2}}', "max_fraction"),
    ],
)
def test_a_contract_that_is_wrong_names_the_place(text: str, words: str) -> None:
    with pytest.raises(ActionRefused, match=words):
        contracts.parse(text)


def pipelines_reader() -> ModuleType:
    path = Path(__file__).parents[2] / "airflow" / "dags" / "airmedic_contract.py"
    spec = importlib.util.spec_from_file_location("airmedic_contract_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    reader = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = reader
    spec.loader.exec_module(reader)
    return reader


def test_the_pipelines_reader_accepts_every_edit() -> None:
    """Both sides of the contract agree on its form."""
    reader = pipelines_reader()
    edits = [
        fit(missing("email"), extra("email_address"), extra("age", "integer")),
        fit(wrong("salary", "number", "number_with_separators"), nulls(3)),
        fit(nulls(20), twice(5), aside=25),
        contracts.smaller_batch(TEXT),
        contracts.longer_timeout(TEXT, "fetch"),
    ]

    for edit in edits:
        reader.Contract.parse("airmedic_contract_x", edit.text)


@pytest.mark.parametrize(
    ("rows", "solved"),
    [
        pytest.param(
            [{"id": n, "email_address": "a@b.c", "salary": 1, "hired_on": "2026-01-01"} for n in range(40)],
            True,
            id="renamed",
        ),
        pytest.param(
            [
                {"id": n, "email": "a@b.c", "salary": "50,000", "hired_on": "2026-01-01", "nick": "x"}
                for n in range(40)
            ],
            True,
            id="separators and a new column",
        ),
        pytest.param(
            [
                {"id": n, "email": None if n == 1 else "a@b.c", "salary": 1, "hired_on": "2026-01-01"}
                for n in range(40)
            ],
            True,
            id="one row of forty without e-mail",
        ),
        pytest.param(
            [{"id": n // 2, "email": "a@b.c", "salary": 1, "hired_on": "2026-01-01"} for n in range(40)],
            False,
            id="half the keys repeated",
        ),
        pytest.param(
            [{"id": 1, "email": "a@b.c", "salary": 1, "hired_on": "01/02/2026"}], False, id="ambiguous date"
        ),
        pytest.param(
            [{"id": n, "email": "a@b.c", "salary": 1, "hired_on": "31/12/2026"} for n in range(40)],
            True,
            id="another date format",
        ),
    ],
)
def test_what_the_reader_reports_is_mended_so_that_the_reader_is_content(
    rows: list[dict[str, Any]], solved: bool
) -> None:
    reader = pipelines_reader()
    told = reader.Contract.parse("airmedic_contract_x", TEXT).check(rows).report
    problems = tuple(ColumnProblem(**one) for one in told.problems)
    given = DataReport(rows_in=told.rows_in, rows_quarantined=told.rows_quarantined, problems=problems)

    edit = contracts.fit(TEXT, given)

    assert edit.solved is solved
    if solved:
        assert reader.Contract.parse("airmedic_contract_x", edit.text).check(rows).complaints == []
