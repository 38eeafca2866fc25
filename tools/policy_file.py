"""Reads a policy file. A mistake stops the start; the message says where it is and what may stand there."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from graph.errors import PolicyInvalid
from tools.actions import ActionCatalogue
from tools.policy_rules import Breaker, Caps, Hours, Limits, Maintenance, Match, Policy, Rule
from tools.yaml_text import NotYaml, yaml_of

DEFAULT = "policy_default.yaml"
PLACES: dict[str, type[BaseModel]] = {
    "": Policy,
    "limits": Limits,
    "breaker": Breaker,
    "maintenance": Maintenance,
    "hours": Hours,
    "rules": Rule,
    "match": Match,
    "caps": Caps,
    "radius_at_most": Caps,
}


def load_policy(path: Path | None, *, catalogue: ActionCatalogue | None = None) -> Policy:
    """The policy in this file, or the one that ships. `PolicyInvalid` names file, place and what is allowed.

    With a catalogue, action names are checked too.
    """
    if path is None:
        return parse_policy(files("tools").joinpath(DEFAULT).read_text("utf-8"), DEFAULT, catalogue=catalogue)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise PolicyInvalid(f"{path}: cannot be read: {exc}") from exc
    return parse_policy(text, str(path), catalogue=catalogue)


def parse_policy(text: str, name: str, *, catalogue: ActionCatalogue | None = None) -> Policy:
    """The policy in this text."""
    try:
        found = yaml_of(text)
    except NotYaml as exc:
        raise PolicyInvalid(f"{name}: not YAML: {exc}") from exc
    if not isinstance(found, dict):
        raise PolicyInvalid(f"{name}: must be a mapping with version and rules")
    try:
        policy = Policy.model_validate(found)
    except ValidationError as exc:
        raise PolicyInvalid("\n".join(f"{name}: {_sentence(one)}" for one in exc.errors())) from exc
    _check_actions(policy, name, catalogue)
    return policy


def _check_actions(policy: Policy, name: str, catalogue: ActionCatalogue | None) -> None:
    if catalogue is None:
        return
    wrong = [
        f"{name}: rules[{number}].match.action: {_not_among(action, catalogue.names)}"
        for number, rule in enumerate(policy.rules)
        for action in rule.match.action or ()
        if action not in catalogue.names
    ]
    if wrong:
        raise PolicyInvalid("\n".join(wrong))


def _sentence(error: ErrorDetails) -> str:
    place = _place(error["loc"])
    given = error.get("input")
    if error["type"] == "extra_forbidden":
        *_, key = error["loc"]
        parent = next((one for one in reversed(error["loc"][:-1]) if isinstance(one, str)), "")
        known = [field.alias or name for name, field in PLACES[parent].model_fields.items()]
        return f"{place}: unknown key; {_not_among(str(key), known)}"
    if error["type"] == "missing":
        return f"{place}: must be given"
    if error["type"] in ("enum", "literal_error"):
        known = re.findall(r"(?<=')\w+(?=')|\d+", str(error["ctx"]["expected"]))
        return f"{place}: {_not_among(str(given), known)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" + ("" if isinstance(given, dict | list) else f" (it is {given!r})")


def _place(loc: tuple[int | str, ...]) -> str:
    text = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in loc)
    return text.lstrip(".") or "the file"


def _not_among(given: str, known: list[str] | tuple[str, ...]) -> str:
    close = get_close_matches(given, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{given!r} is not among {', '.join(sorted(known))}{hint}"
