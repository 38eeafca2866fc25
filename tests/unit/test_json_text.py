"""JSON of strangers is a value or a `ValueError`, whatever it nests; so is everything that reads some."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from graph.errors import ActionRefused
from server.answers import plain_value
from tests.factories import make_task
from tools import contracts
from tools.actions.setting import same
from tools.actions.settings import text_diff
from tools.airflow_auth import DEFAULT_LIFE, life_of
from tools.airflow_translate import names_task
from tools.json_text import DEEPEST, json_of

DEPTHS = [DEEPEST + 1, 900, 100_000]  # more than we take, than Python's stack is sure to, than it can


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(value=VALUES)
def test_what_people_write_is_read(value: JsonValue) -> None:
    assert json_of(json.dumps(value)) == value


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("form", ["%s", '{"a": %s}', '[1, {"a": [%s]}]'])
def test_what_nests_too_deeply_is_no_value(depth: int, form: str) -> None:
    with pytest.raises(ValueError, match="too deeply"):
        json_of(form % nested(depth))


def test_the_deepest_is_read() -> None:
    assert json_of(nested(DEEPEST)) == json.loads(nested(DEEPEST))


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_contract_that_nests_too_deeply_is_refused(depth: int) -> None:
    with pytest.raises(ActionRefused, match="contract: not JSON"):
        contracts.parse(f'{{"columns": {nested(depth)}}}')


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_variable_that_nests_too_deeply_is_compared_and_shown_as_text(depth: int) -> None:
    deep = nested(depth)
    assert same(deep, deep)
    assert not same(deep, deep + " ")
    assert "-[[[" in text_diff("VARIABLE", deep, "x")


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_edit_that_nests_too_deeply_stays_text(depth: int) -> None:
    assert plain_value(nested(depth), before=5) == nested(depth)


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(nested(100_000), id="nests too deeply"),
        pytest.param("[]", id="a list"),
        pytest.param("5", id="a number"),
        pytest.param('{"task_ids": 5}', id="tasks that are no list"),
        pytest.param('{"task_ids": null, "dry_run": true}', id="a dry run"),
        pytest.param("{", id="no JSON"),
    ],
)
def test_an_event_that_says_nothing_of_the_task_does_not_name_it(extra: str) -> None:
    assert not names_task({"extra": extra}, make_task())


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        pytest.param(None, True, id="the whole run"),
        pytest.param('{"task_ids": ["load"]}', True, id="the task"),
        pytest.param('{"task_ids": [["load", -1]]}', True, id="the task instance"),
        pytest.param('{"task_ids": [["load", 3]]}', False, id="another map index"),
        pytest.param('{"task_ids": ["other"]}', False, id="another task"),
        pytest.param('{"task_ids": ["load"], "dry_run": true}', False, id="only in a dry run"),
    ],
)
def test_a_clear_names_its_task_instances(extra: str | None, named: bool) -> None:
    assert names_task({"extra": extra}, make_task()) is named


def token(claims: str) -> str:
    return "head." + base64.urlsafe_b64encode(claims.encode()).decode().rstrip("=") + ".signature"


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param(nested(100_000), id="nests too deeply"),
        pytest.param("[]", id="a list"),
        pytest.param('{"exp": NaN, "iat": 1}', id="not a number"),
        pytest.param('{"exp": 1' + "0" * 400 + ', "iat": 1}', id="beyond every number"),
        pytest.param('{"exp": "soon", "iat": 1}', id="words"),
        pytest.param('{"iat": 1}', id="no end"),
    ],
)
def test_a_token_that_does_not_tell_its_life_has_the_usual_one(claims: str) -> None:
    assert life_of(token(claims)) == DEFAULT_LIFE


@pytest.mark.parametrize(
    ("seconds", "life"),
    [
        pytest.param(600, timedelta(minutes=10), id="as it says"),
        pytest.param(-5, timedelta(seconds=1), id="over already"),
        pytest.param(10**9, 2 * DEFAULT_LIFE, id="longer than we believe"),
    ],
)
def test_a_token_s_life_is_bounded(seconds: int, life: timedelta) -> None:
    assert life_of(token(json.dumps({"iat": 1000, "exp": 1000 + seconds}))) == life
