"""Policy files: what is accepted, and how a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from graph.domain import Verdict
from graph.errors import PolicyInvalid
from tests.unit.policy_cases import CATALOGUE, DEFAULT
from tools.policy_file import load_policy, parse_policy
from tools.policy_rules import in_words

RULE = "version: 1\nrules:\n  - name: r\n    verdict: ask\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "must be a mapping", id="an empty file"),
        pytest.param("- 1", "must be a mapping", id="a list"),
        pytest.param("version: [", "not YAML", id="no YAML"),
        pytest.param("rules: []", "version: must be given", id="no version"),
        pytest.param("version: 2", "version: '2' is not among 1", id="a version of the future"),
        pytest.param("version: 1\nrulse: []", "rulse: unknown key.*did you mean 'rules'", id="a typo"),
        pytest.param(
            RULE + "    match: {casue: timeout}",
            r"rules\[0\].match.casue: unknown key.*did you mean 'cause'",
            id="a typo in a match",
        ),
        pytest.param(
            RULE + "    match: {cause: timeuot}",
            r"rules\[0\].match.cause\[0\]: 'timeuot' is not among .*did you mean 'timeout'",
            id="a cause that is none",
        ),
        pytest.param(RULE.replace("ask", "maybe"), r"rules\[0\].verdict: 'maybe'", id="no such verdict"),
        pytest.param(RULE + "    approvers: viewer", r"'viewer' is not among admin, operator", id="viewers"),
        pytest.param(
            RULE + "    match: {action: clear_tsak}",
            r"rules\[0\].match.action: 'clear_tsak' is not among .*did you mean 'clear_task'",
            id="no such action",
        ),
        pytest.param(
            RULE + "    caps: {task_instances: -1}", r"rules\[0\].caps.task_instances", id="a negative cap"
        ),
        pytest.param(RULE + "    match: {cause: []}", r"rules\[0\].match.cause", id="an empty list"),
        pytest.param(
            RULE + "    match: {hours: {from: 22:00}}", 'write it in quotes, like "22:00"', id="bare time"
        ),
        pytest.param(
            RULE + '    match: {hours: {from: "22:00Z"}}', "name it in `timezone`", id="a time with a zone"
        ),
        pytest.param(
            RULE + '    match: {hours: {timezone: "Mars/Base"}}', "no time zone", id="no such time zone"
        ),
        pytest.param(RULE + "  - name: r\n    verdict: auto", "two rules are called 'r'", id="a name taken"),
        pytest.param(
            "version: 1\nversion: 1", "the key 'version' stands twice", id="a key that stands twice"
        ),
        pytest.param("version: 1\notherwise: auto", "otherwise: 'auto'", id="everything else automatic"),
        pytest.param(
            "version: 1\nbreaker: {verdict: auto}", "breaker.verdict: 'auto'", id="a breaker that lets pass"
        ),
        pytest.param("version: 1\nask_below_confidence: 2", "ask_below_confidence", id="over one"),
    ],
)
def test_a_mistake_names_file_place_and_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(PolicyInvalid, match=f"p.yaml: .*{words}"):
        parse_policy(text, "p.yaml", catalogue=CATALOGUE)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy("version: 1\nrulse: []\nlimitz: {}", "p.yaml")

    assert len(str(caught.value).splitlines()) == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid, match="cannot be read"):
        load_policy(tmp_path / "none.yaml")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(PolicyInvalid, match="cannot be read"):
        load_policy(path)


def test_one_word_stands_for_a_list_of_one() -> None:
    policy = parse_policy(RULE + "    match: {cause: timeout, dag: 'a*'}", "p.yaml")

    assert policy.rules[0].match.dag == ("a*",)


def test_the_example_in_the_default_policy_is_right() -> None:
    window = '{days: [fri], from: "22:00", to: "06:00", timezone: Europe/Berlin}'
    entry = f"{{name: month end, hours: {window}, dag: ['finance_*'], verdict: never}}"
    policy = parse_policy(f"version: 1\nmaintenance: [{entry}]", "p.yaml")

    assert policy.maintenance[0].verdict is Verdict.NEVER
    assert f"hours: {window}" in (Path(__file__).parents[2] / "tools" / "policy_default.yaml").read_text()


def test_the_words_hold_every_rule() -> None:
    words = "\n".join(in_words(DEFAULT))

    assert all(rule.name in words for rule in DEFAULT.rules)
    assert "otherwise: ask" in words
