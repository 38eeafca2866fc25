"""The OpenAPI document is complete: what an operation is called, how it can fail, what a body looks like."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator, validator_for

from server.app import create_app
from server.examples import FILE
from tests.unit.serving import make_settings

METHODS = ("get", "post", "put", "patch", "delete")
OPEN = {"/healthz", "/readyz", "/metrics", "/webhook"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = make_settings(tmp_path_factory.mktemp("openapi"), demo=True)
    return create_app(settings).openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, item[method])
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]


def test_every_operation_has_a_name_a_summary_and_a_tag(document: dict[str, Any]) -> None:
    seen = operations(document)
    names = [one["operationId"] for _, _, one in seen]

    assert len(seen) >= 20
    assert sorted(names) == sorted(set(names))
    for _, path, one in seen:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", one["operationId"]), path
        assert one["summary"], path
        assert one["description"], path
        assert one["tags"], path


def test_every_operation_says_how_it_fails(document: dict[str, Any]) -> None:
    for method, path, one in operations(document):
        answers = one["responses"]
        where = f"{method} {path}"
        assert any(status.startswith("2") for status in answers), where
        assert "500" in answers, where
        if path in OPEN or not path.startswith("/api/"):
            continue
        assert {"401", "403", "429"} <= set(answers), where
        if "requestBody" in one:
            assert {"400", "408", "413", "415", "422"} <= set(answers), where
        if "{" in path:
            assert {"404", "422"} <= set(answers), where
        for status, answer in answers.items():
            if status >= "400" and path not in {"/api/employees", "/api/departments"}:
                assert "application/problem+json" in answer["content"], f"{where} {status}"


def examples_of(document: dict[str, Any], media: dict[str, Any]) -> list[Any]:
    given = [one["value"] for one in media.get("examples", {}).values()]
    schema = media["schema"]
    for branch in [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        if "$ref" in branch:
            branch = document["components"]["schemas"][branch["$ref"].rsplit("/", 1)[1]]
        given += branch.get("examples", [])
    return given


def test_every_body_has_examples_that_fit(document: dict[str, Any]) -> None:
    bodies = [(path, one["requestBody"]) for _, path, one in operations(document) if "requestBody" in one]
    assert len(bodies) >= 8
    for path, body in bodies:
        media = body["content"]["application/json"]
        given = examples_of(document, media)
        assert given, path
        schema = {**media["schema"], "components": document["components"]}
        for one in given:
            validator_for(schema).validate(one)


def test_every_answer_has_an_example_that_fits(document: dict[str, Any]) -> None:
    shown = set()
    for _, path, one in operations(document):
        for status, answer in one["responses"].items():
            media = answer.get("content", {}).get("application/json")
            if media is None or not status.startswith("2"):
                continue
            shown.add(one["operationId"])
            assert media["example"] is not None, path
            schema = {**media["schema"], "components": document["components"]}
            validator_for(schema).validate(media["example"])

    assert shown == set(json.loads(FILE.read_text("utf-8")))


def test_every_schema_is_one(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        whole = {**schema, "components": document["components"]}
        Draft202012Validator(whole), name


def test_nothing_of_the_demo_is_there_without_it(tmp_path: Path) -> None:
    paths = create_app(make_settings(tmp_path)).openapi()["paths"]

    assert not {"/api/simulate", "/api/employees"} & set(paths)
