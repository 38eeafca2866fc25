"""What commands print drives no terminal: complaints, findings of the doctor, and JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from cli.doctor import Finding, Level, line_of
from cli.plainly import complain, say, spelled

HOSTILE = ["\x1b[2J", "\x9b2J", "\x1b]0;title\x07", "\r", "\x7f", "\u202e", "\u2066", "\u200b", "\u2028"]
NAMED = [pytest.param(hidden, id=repr(hidden)) for hidden in HOSTILE]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def drives(text: str) -> bool:
    """Whether a terminal would do more than show it."""
    return any(hidden[0] in text for hidden in HOSTILE)


@pytest.mark.parametrize("hidden", NAMED)
def test_a_complaint_and_an_answer_are_words(hidden: str, capsys: pytest.CaptureFixture[str]) -> None:
    complain(f"HTTP 409: a{hidden}b\nc")
    say(f"a{hidden}b\nc")

    out, err = capsys.readouterr()
    assert not drives(out + err)
    assert err.startswith("airmedic: HTTP 409: a\N{REPLACEMENT CHARACTER}")
    assert out.endswith("b\nc\n")


@pytest.mark.parametrize("hidden", NAMED)
def test_what_the_doctor_saw_is_words(hidden: str) -> None:
    finding = Finding(level=Level.FAIL, check="import errors", seen=f"a{hidden}b", todo=f"mend{hidden}it")

    assert not drives(line_of(finding))
    assert "mend\N{REPLACEMENT CHARACTER}" in line_of(finding)


@given(value=VALUES, indent=st.sampled_from([None, 2]))
def test_json_drives_nothing_and_reads_back(value: JsonValue, indent: int | None) -> None:
    text = spelled(value, indent=indent)

    assert json.loads(text) == value
    assert not drives(text)


def test_json_stays_readable_in_every_language() -> None:
    assert spelled({"wer": "Jürgen", "wo": "東京 🚑"}) == '{"wer": "Jürgen", "wo": "東京 🚑"}'
