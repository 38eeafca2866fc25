"""The contract reader as a table of rules."""

from __future__ import annotations

import json

import pytest
from airmedic_contract import Contract, ContractInvalid, ContractViolation, cast, shape

COLUMNS = {
    "id": {"type": "integer", "required": True, "key": True},
    "email": {"type": "string", "required": True},
    "salary": {"type": "number"},
    "hired": {"type": "date"},
}
ROW = {"id": 1, "email": "a@example.com", "salary": 10.5, "hired": "2020-02-29"}


def contract(columns=None, **rest):
    columns = {**COLUMNS, **(columns or {})}
    return Contract.parse("airmedic_contract_t", json.dumps({"version": 1, "columns": columns, **rest}))


def rows(count=100, **changes):
    return [{**ROW, "id": number, **changes} for number in range(count)]


def problems(result):
    return [(p["kind"], p["column"], p["rows"], p["found"]) for p in result.report.problems]


def test_good_rows_pass_and_are_reported():
    result = contract().check(rows(3))

    assert result.rows_or_raise() == rows(3)
    assert (result.report.satisfied, result.report.rows_in, result.report.rows_out) == (True, 3, 3)
    assert result.report.problems == []


@pytest.mark.parametrize(
    ("given", "problem", "message"),
    [
        pytest.param(
            [{"id": 1, "mail": "x", "salary": 1, "hired": None}],
            [("missing", "email", 0, ""), ("unexpected", "mail", 0, "string")],
            "missing column 'email' (string, required); unexpected column 'mail' (string)",
            id="a renamed column is one missing and one unexpected",
        ),
        pytest.param(
            rows(4, nick=None),
            [("unexpected", "nick", 0, "null")],
            "unexpected column 'nick'",
            id="a new column",
        ),
        pytest.param(
            rows(4, salary="50,000"),
            [("type", "salary", 4, "number_with_separators")],
            "4 rows with 'salary' not number but number_with_separators",
            id="numbers as text name the cast that mends them",
        ),
        pytest.param(
            rows(1, hired="31/12/2020"),
            [("type", "hired", 1, "date:%d/%m/%Y")],
            "date:%d/%m/%Y",
            id="a date format names its cast",
        ),
        pytest.param(
            rows(1, hired="01/02/2020"),
            [("type", "hired", 1, "date:%d/%m/%Y|date:%m/%d/%Y")],
            "date:%d/%m/%Y|date:%m/%d/%Y",
            id="an ambiguous date names both",
        ),
        pytest.param(
            rows(1, salary=True), [("type", "salary", 1, "boolean")], "boolean", id="true is not a number"
        ),
        pytest.param(
            rows(2, email=None),
            [("null", "email", 2, "null")],
            "2 rows without required 'email'",
            id="a required value is null",
        ),
        pytest.param(
            [ROW, ROW], [("duplicate", "id", 1, "")], "1 rows repeat a key (id)", id="a key comes twice"
        ),
        pytest.param([], [("empty", "", 0, "no rows")], "no rows", id="no rows at all"),
    ],
)
def test_a_broken_contract_names_the_problem(given, problem, message):
    result = contract().check(given)

    assert problems(result) == problem
    assert result.report.satisfied is False
    with pytest.raises(ContractViolation) as violation:
        result.rows_or_raise()
    assert message in str(violation.value)


def test_an_error_never_quotes_a_value():
    result = contract().check([{**ROW, "email": 4711, "salary": "confidential"}])

    with pytest.raises(ContractViolation) as violation:
        result.rows_or_raise()
    told = str(violation.value) + json.dumps(result.report.problems)
    assert "4711" not in told
    assert "confidential" not in told


@pytest.mark.parametrize(
    ("columns", "rest", "given", "kept", "aside"),
    [
        pytest.param({"email": {**COLUMNS["email"], "source": "mail"}}, {}, "mail", 100, 0, id="rename"),
        pytest.param(
            {"salary": {"type": "number", "cast": "number_with_separators"}}, {}, "text", 100, 0, id="cast"
        ),
        pytest.param({"nick": {"type": "string", "required": False}}, {}, "nick", 100, 0, id="added column"),
        pytest.param(
            {"nick": {"type": "string", "required": False}}, {}, "plain", 100, 0, id="absent optional column"
        ),
        pytest.param({}, {"extra_columns": "ignore"}, "nick", 100, 0, id="extra columns ignored"),
        pytest.param(
            {},
            {"quarantine": {"rows": "set_aside", "max_fraction": 0.05}},
            "nulls",
            95,
            5,
            id="set aside at the limit",
        ),
        pytest.param(
            {},
            {"quarantine": {"duplicates": "keep_first", "max_fraction": 0.05}},
            "twice",
            100,
            5,
            id="keep first",
        ),
    ],
)
def test_an_edited_contract_heals(columns, rest, given, kept, aside):
    data = {
        "mail": [{k if k != "email" else "mail": v for k, v in row.items()} for row in rows()],
        "text": rows(salary="1,250.50"),
        "nick": rows(nick="x"),
        "plain": rows(),
        "nulls": [*rows(95), *rows(5, email=None)],
        "twice": [*rows(), *rows(5)],
    }[given]

    result = contract(columns, **rest).check(data)

    assert len(result.rows_or_raise()) == kept == result.report.rows_out
    assert len(result.quarantined) == aside == result.report.rows_quarantined


def test_more_bad_rows_than_the_limit_fail_and_say_so():
    strict = contract(quarantine={"rows": "set_aside", "max_fraction": 0.05})

    result = strict.check([*rows(94), *rows(6, email=None)])

    assert (result.report.rows_quarantined, result.report.quarantine_limit) == (6, 5)
    with pytest.raises(ContractViolation, match="6 of 100 rows bad, more than the limit of 5"):
        result.rows_or_raise()


def test_quarantine_of_nulls_does_not_excuse_duplicates():
    lenient = contract(quarantine={"rows": "set_aside", "max_fraction": 0.1})

    with pytest.raises(ContractViolation, match="repeat a key"):
        lenient.check([*rows(), *rows(5)]).rows_or_raise()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("nonsense", "is not JSON", id="not JSON"),
        pytest.param("[]", "must be an object", id="not an object"),
        pytest.param('{"columns": {}}', "at least one column", id="no columns"),
        pytest.param('{"colums": {}}', r"unknown keys \['colums'\]", id="unknown key"),
        pytest.param(
            '{"columns": {"a": {"typ": "string"}}}', r"columns\.a has unknown keys", id="unknown column key"
        ),
        pytest.param(
            '{"columns": {"a": {"type": "text"}}}', r"columns\.a\.type must be one of", id="unknown type"
        ),
        pytest.param(
            '{"columns": {"a": {"type": "date", "cast": "eval"}}}', r"columns\.a\.cast", id="unknown cast"
        ),
        pytest.param('{"version": 2, "columns": {"a": {"type": "date"}}}', "version must be 1", id="version"),
        pytest.param(
            '{"columns": {"a": {"type": "date"}}, "quarantine": {"max_fraction": 2}}',
            "max_fraction",
            id="fraction",
        ),
        pytest.param('{"columns": {"a": {"type": "date"}}, "batch_size": 0}', "batch_size", id="batch size"),
    ],
)
def test_a_wrong_contract_is_refused_by_name(text, complaint):
    with pytest.raises(ContractInvalid, match=complaint):
        Contract.parse("airmedic_contract_t", text)


@pytest.mark.parametrize(
    ("conversion", "text", "value"),
    [
        ("number_with_separators", "50,000", 50000),
        ("number_with_separators", "-1,234,567.5", -1234567.5),
        ("number_with_separators", "17", 17),
        ("number_with_separators", "5,00", "5,00"),
        ("date:%d/%m/%Y", "31/12/2020", "2020-12-31"),
        ("date:%d/%m/%Y", "2020-12-31", "2020-12-31"),
    ],
)
def test_a_cast_converts_its_form_and_leaves_the_rest(conversion, text, value):
    assert cast(conversion, text) == value


def test_a_mixture_of_shapes_is_named_by_its_types():
    assert shape("number", ["50,000", "unknown"]) == "string"
    assert shape("number", ["50,000", True]) == "boolean|string"
