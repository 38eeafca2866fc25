"""A file that people wrote is read, or the start stops with a sentence: never with a traceback."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from graph.errors import KnowledgeInvalid, PolicyInvalid, SettingsInvalid
from server.people.notify_file import load_routing
from tools.knowledge import KnowledgeBase
from tools.policy_file import parse_policy
from tools.policy_rules import Match, Policy, Rule
from tools.yaml_text import NotYaml, yaml_of

WRONG = [
    pytest.param("since: 2026-13-45", "month must be", id="a date that is none"),
    pytest.param("version: !!int abc", "invalid literal", id="a number that is none"),
    pytest.param("version: !!int ''", "not what it is written as", id="an empty number"),
    pytest.param("version: !!timestamp x", "not what it is written as", id="a time that is none"),
    pytest.param("version: !!bool x", "not what it is written as", id="a truth that is none"),
    pytest.param("!!map [1, 2]", "expected a mapping", id="a list said to be a mapping"),
    pytest.param("!!map abc", "expected a mapping", id="a word said to be a mapping"),
    pytest.param("[" * 3000 + "]" * 3000, "nests too deeply", id="nests too deeply"),
    pytest.param("? [a]\n: b", "unhashable", id="a key that can be none"),
    pytest.param("a: !!python/object/apply:os.system [id]", "constructor", id="a command"),
    pytest.param("a: \x00", "special characters", id="a NUL"),
    pytest.param("a: 1\na: 2", "stands twice", id="a key twice"),
]
KEYS = [*Policy.model_fields, *Rule.model_fields, *Match.model_fields, "from", "to", "days", "timezone"]
MARKS = [*"&*?:,-[]{}#|>%'", "<<", "!!int", "!!map", "!!set"]
WORDS = st.sampled_from([*KEYS, *MARKS, "1", "ask", "Europe", "2026-13-45"])
TEXTS = st.lists(WORDS, max_size=25).flatmap(
    lambda words: st.lists(st.sampled_from([" ", "\n", "\n  ", ": ", ""]), min_size=len(words)).map(
        lambda gaps: "".join(word + gap for word, gap in zip(words, gaps, strict=False))
    )
)


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_what_is_wrong_is_said_in_one_line(text: str, words: str) -> None:
    with pytest.raises(NotYaml, match=words) as told:
        yaml_of(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("text", "_words"), WRONG)
def test_no_file_of_ours_is_read_otherwise(text: str, _words: str, tmp_path: Path) -> None:
    (tmp_path / "notify.yaml").write_text(text)
    with pytest.raises(PolicyInvalid, match=r"p\.yaml: not YAML"):
        parse_policy(text, "p.yaml")
    with pytest.raises(SettingsInvalid, match="not YAML"):
        load_routing(None, tmp_path / "notify.yaml", digest=timedelta(hours=1))


def test_neither_is_knowledge(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("family: mine\nentries: [{id: 2026-13-45}]")
    with pytest.raises(KnowledgeInvalid, match=r"mine\.yaml: not YAML: a value is not what it is written as"):
        KnowledgeBase.load(tmp_path)


@given(text=TEXTS | st.text(max_size=60))
@example("version: 1\nrules: &all [*all]")
@example("version: 1\n1: 2")
@example("version: 1\nrules: [{name: a, verdict: auto, match: {hours: {timezone: Europe}}}]")
@example("version: 1\nrules: [{name: a, verdict: auto, match: {hours: {timezone: ../../etc/passwd}}}]")
def test_any_text_is_a_policy_or_an_error_that_names_the_file(text: str) -> None:
    said = ""
    try:
        parse_policy(text, "p.yaml")
    except PolicyInvalid as exc:
        said = str(exc)
    assert not said or said.startswith("p.yaml: ")


@given(value=st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.lists(st.booleans())))
def test_what_was_written_is_read(value: dict[str, object]) -> None:
    assert yaml_of(yaml.safe_dump(value)) == value
