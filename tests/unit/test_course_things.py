"""Whether a line can name a thing at all is seen before it is looked for, and never wrongly denied."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tools.evidence_course import _SIGN, _THING

PARTS = (
    "http",
    "s",
    "://",
    "/",
    "db",
    "-",
    ".",
    ":",
    "1",
    "42",
    "#",
    " ",
    "worker",
    "host",
    "x",
    "_",
    "\n",
    "é",
)


@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
def test_what_names_a_thing_shows_a_sign_of_it(line: str) -> None:
    if _THING.search(line):
        assert _SIGN.search(line)


@given(st.text(max_size=60))
def test_so_does_any_other_text(line: str) -> None:
    if _THING.search(line):
        assert _SIGN.search(line)
