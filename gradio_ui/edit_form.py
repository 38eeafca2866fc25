"""The edit form: one JSON object per action of the plan, explained by the action's own schema."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import JsonValue

from gradio_ui.markup import Html, el, join
from graph.errors import AirmedicError
from server.schemas import IncidentDetailOut

FORMS = 8  # actions that can be edited here; longer plans are edited through the API


class NotJson(AirmedicError):
    """What was typed is not a JSON object; the message says where."""


@dataclass(frozen=True)
class ActionForm:
    """One action as it is edited."""

    name: str
    hints: Html
    text: str  #: its arguments as JSON


def action_forms(found: IncidentDetailOut) -> list[ActionForm]:
    """A form for each action of the question, in its order."""
    asked = found.question or {}
    schemas = {
        str(one.get("action_name")): _object(one.get("args_schema")) for one in _rows(asked, "review_configs")
    }
    forms = []
    for request in _rows(asked, "action_requests"):
        name = str(request.get("name"))
        schema = schemas.get(name, {})
        forms.append(ActionForm(name, _hints(name, request, schema), _filled(request, schema)))
    return forms


def _rows(value: dict[str, JsonValue], name: str) -> list[dict[str, JsonValue]]:
    given = value.get(name)
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def _object(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _filled(request: dict[str, JsonValue], schema: dict[str, JsonValue]) -> str:
    """The present arguments, and null for what the schema requires and nobody gave yet."""
    args = dict(_object(request.get("args")))
    required = schema.get("required")
    for name in required if isinstance(required, list) else []:
        args.setdefault(str(name), None)
    return json.dumps(args, indent=2, ensure_ascii=False)


def _hints(name: str, request: dict[str, JsonValue], schema: dict[str, JsonValue]) -> Html:
    rows = [
        el("li", el("code", field), " ", _kind(_object(rules)))
        for field, rules in _object(schema.get("properties")).items()
    ]
    nothing = el("p", "This action has nothing to choose.", cls="am-quiet")
    title = el("p", el("strong", name), ": ", str(request.get("description") or ""))
    return join([title, el("ul", *rows, cls="am-plain") if rows else nothing])


BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
    "minLength": "at least so many characters:",
    "maxLength": "at most so many characters:",
    "pattern": "matching",
    "enum": "one of",
    "default": "by default",
}


def _kind(rules: dict[str, JsonValue]) -> str:
    kinds = [rules, *(_object(one) for one in _as_list(rules.get("anyOf")))]
    types = [str(one["type"]) for one in kinds if "type" in one]
    bounds = [
        f"{words} {json.dumps(one[key])}" for one in kinds for key, words in BOUNDS.items() if key in one
    ]
    return ", ".join(
        [" or ".join(types), *bounds, *([str(rules["description"])] if "description" in rules else [])]
    )


def _as_list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def edited_args(texts: list[str], count: int) -> list[JsonValue]:
    """What was typed, one object per action. Raises `NotJson` with the place of the mistake."""
    args: list[JsonValue] = []
    for number, typed in enumerate(texts[:count], 1):
        try:
            value = json.loads(typed)
        except ValueError as exc:
            raise NotJson(f"Action {number}: this is not JSON ({exc}).") from exc
        if not isinstance(value, dict):
            raise NotJson(f"Action {number}: an object in braces is expected.")
        args.append(value)
    return args
