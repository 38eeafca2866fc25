"""The edit form: typed fields made from the JSON schema of each action, and what they come back as."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from gradio_ui.markup import Html, el, join
from gradio_ui.wording import plain
from graph.errors import AirmedicError
from server.schemas import IncidentDetailOut
from tools.json_text import json_of

LONG = 60  # characters; a longer text gets several lines

Object = dict[str, JsonValue]


class NotAValue(AirmedicError):
    """What was typed does not fit the field; the message names the field."""


@dataclass(frozen=True)
class Field:
    """One argument of one action."""

    place: int  #: of its action in the plan
    name: str
    kind: str  #: boolean, integer, number, string, enum or json
    value: JsonValue
    rules: Object
    required: bool
    nullable: bool

    @property
    def key(self) -> str:
        return f"{self.place}.{self.name}"


def fields_of(found: IncidentDetailOut) -> list[list[Field]]:
    """The fields of each action of the question, in its order."""
    asked = found.question or {}
    schemas = {
        str(one.get("action_name")): _object(one.get("args_schema")) for one in _rows(asked, "review_configs")
    }
    return [
        _fields(place, _object(request.get("args")), schemas.get(str(request.get("name")), {}))
        for place, request in enumerate(_rows(asked, "action_requests"))
    ]


def _rows(value: Object, name: str) -> list[Object]:
    given = value.get(name)
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def _object(value: JsonValue) -> Object:
    return value if isinstance(value, dict) else {}


def _fields(place: int, args: Object, schema: Object) -> list[Field]:
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    defs = _object(schema.get("$defs"))
    found = []
    for name, rules in _object(schema.get("properties")).items():
        kind, flat, nullable = _kind(_object(rules), defs)
        value = args.get(name, flat.get("default"))
        found.append(Field(place, name, kind, value, flat, name in needed, nullable))
    return found


def _kind(rules: Object, defs: Object) -> tuple[str, Object, bool]:
    """The type, the rules that hold for it, and whether it may be left out."""
    options = rules.get("anyOf")
    branches = [_object(one) for one in options] if isinstance(options, list) else [rules]
    real = [_resolved(one, defs) for one in branches if one.get("type") != "null"]
    nullable = len(real) < len(branches)
    if len(real) != 1:
        return "json", rules, nullable
    flat = {**rules, **real[0]}
    if isinstance(flat.get("enum"), list):
        return "enum", flat, nullable
    kind = str(flat.get("type"))
    return (kind if kind in {"boolean", "integer", "number", "string"} else "json"), flat, nullable


def _resolved(rules: Object, defs: Object) -> Object:
    reference = rules.get("$ref")
    return _object(defs.get(reference.rsplit("/", 1)[-1])) if isinstance(reference, str) else rules


def edit_form(found: IncidentDetailOut) -> Html:
    """The whole form; the page's own buttons send it."""
    requests = _rows(found.question or {}, "action_requests")
    groups = []
    for request, fields in zip(requests, fields_of(found), strict=True):
        title = el("legend", plain(str(request.get("name"))))
        told = el("p", str(request.get("description") or ""), cls="am-quiet")
        nothing = None if fields else el("p", "Nothing to choose here.", cls="am-quiet")
        groups.append(el("fieldset", title, told, *map(_drawn, fields), nothing, cls="am-fields"))
    return join(groups)


def _drawn(field: Field) -> Html:
    label = el("span", plain(field.name), el("small", _bounds(field)), cls="am-label")
    common: dict[str, Any] = {"name": field.key, "data_kind": field.kind}
    if field.kind == "boolean":
        box = el("input", type="checkbox", checked=field.value is True, **common)
        return el("label", box, label, cls="am-field am-check")
    return el("label", label, _control(field, common), cls="am-field")


def _control(field: Field, common: dict[str, Any]) -> Html:
    value = field.value
    if field.kind == "enum":
        choices = field.rules.get("enum")
        options = [
            el("option", str(one), value=json.dumps(one), selected=one == value)
            for one in (choices if isinstance(choices, list) else [])
        ]
        none = [el("option", "not set", value="", selected=value is None)] if field.nullable else []
        return el("select", *none, *options, **common)
    if field.kind in {"integer", "number"}:
        step = "1" if field.kind == "integer" else "any"
        spelled = None if value is None else json.dumps(value)
        return el("input", type="number", value=spelled, step=step, **_range(field.rules), **common)
    spelled = value if isinstance(value, str) else "" if value is None else json.dumps(value, indent=2)
    if field.kind == "json" or len(spelled) > LONG or "\n" in spelled or _is_json(spelled):
        shown = _pretty(spelled)
        rows = min(18, max(3, shown.count("\n") + 2))
        return el("textarea", shown, rows=rows, spellcheck="false", cls="am-code", **common)
    return el("input", type="text", value=spelled, maxlength=field.rules.get("maxLength"), **common)


def _is_json(spelled: str) -> bool:
    return spelled.lstrip()[:1] in {"{", "["}


def _pretty(spelled: str) -> str:
    """A contract on several lines; anything else as it is."""
    try:
        return json.dumps(json_of(spelled), indent=2, ensure_ascii=False) if _is_json(spelled) else spelled
    except ValueError:
        return spelled


def _range(rules: Object) -> dict[str, Any]:
    low = rules.get("minimum", rules.get("exclusiveMinimum"))
    high = rules.get("maximum", rules.get("exclusiveMaximum"))
    return {"min": low, "max": high}


BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}


def _bounds(field: Field) -> str:
    bounds = [f"{words} {field.rules[key]}" for key, words in BOUNDS.items() if key in field.rules]
    told = str(field.rules.get("description") or "")
    return ", ".join([told] * bool(told) + bounds + (["needed"] if field.required else []))


def edited_args(typed: Mapping[str, JsonValue], fields: list[list[Field]]) -> list[JsonValue]:
    """What the form sent, one object per action; only what a person set. Raises `NotAValue`."""
    args: list[JsonValue] = []
    for of_action in fields:
        chosen: Object = {}
        for field in of_action:
            value = _read(field, typed.get(field.key))
            if value is not None or field.required:
                chosen[field.name] = value
        args.append(chosen)
    return args


def _read(field: Field, typed: JsonValue) -> JsonValue:
    if field.kind == "boolean":
        return typed is True
    spelled = typed if isinstance(typed, str) else ""
    if not spelled.strip():
        return None
    if field.kind == "string":
        return _text(field, spelled)
    try:
        value: JsonValue = json_of(spelled)
    except ValueError as exc:
        raise NotAValue(f"{plain(field.name)}: {_expected(field.kind)} ({exc}).") from exc
    if field.kind == "number" and isinstance(value, int):
        return float(value) if isinstance(field.value, float) else value
    return value


def _text(field: Field, spelled: str) -> str:
    """A contract that was laid out for reading goes back as it was spelled, unless it was changed."""
    if not isinstance(field.value, str) or not _is_json(field.value):
        return spelled
    if spelled.replace("\r\n", "\n") == _pretty(field.value):
        return field.value
    try:
        json_of(spelled)
    except ValueError as exc:
        raise NotAValue(f"{plain(field.name)}: this is not JSON ({exc}).") from exc
    return spelled


def _expected(kind: str) -> str:
    return "a number is expected" if kind in {"integer", "number"} else "this is not JSON"
