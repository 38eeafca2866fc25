"""Literals are only where to look: what is found is what the patterns find by themselves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import re2

from tools.knowledge import entries
from tools.knowledge.literals import fold, literals
from tools.knowledge.scanner import SHARE, Scanner

CASES = Path(__file__).parents[2] / "evals" / "cases"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("Connection refused", {"connection refused"}, id="plain text, case folded"),
        pytest.param(r"\bMemoryError\b", {"memoryerror"}, id="a word's edge takes no room"),
        pytest.param(r"no route .* host name", {" host name"}, id="the longest stretch"),
        pytest.param("dead|live lock", {"dead", "live lock"}, id="one of each alternative"),
        pytest.param("(dead|live)lock", {"deadlock", "livelock"}, id="alternatives are spelled out"),
        pytest.param("(?:in|un)(?P<x>valid)", {"invalid", "unvalid"}, id="groups of any kind"),
        pytest.param("colou?r", {"color", "colour"}, id="what may be absent"),
        pytest.param("rows?[:=]", {"row:", "row=", "rows:", "rows="}, id="a class of few"),
        pytest.param(r"ab[\]x]", {"ab]", "abx"}, id="a class with its own bracket"),
        pytest.param("abc*def", {"def"}, id="a star takes its character only"),
        pytest.param("abcd+ef", {"abc"}, id="a plus too"),
        pytest.param("a{2}bcd", {"bcd"}, id="repeated so often"),
        pytest.param("xy{0,3}zzz", {"zzz"}, id="repeated perhaps"),
        pytest.param("(?i)quota", {"quota"}, id="a flag takes no room"),
        pytest.param("[[:alpha:]]]end", {"]end"}, id="a named class"),
        pytest.param("[^]a]bc", {"bc"}, id="a class of what is not"),
        pytest.param("error: .* line", {" line"}, id="what every log says is worth little"),
        pytest.param("接続を拒否", {"接続を拒否"}, id="letters without case"),
        pytest.param("ОТКАЗАНО", {"отказано"}, id="letters with case"),
        pytest.param("a.c|", set(), id="the empty text matches"),
        pytest.param(r"\d+", set(), id="nothing certain"),
        pytest.param(r"\Qa.b\E", set(), id="syntax that is not read"),
        pytest.param(r"\pLabc", set(), id="classes by property are not read"),
        pytest.param("x{,3}", set(), id="a brace that repeats nothing"),
    ],
)
def test_what_a_text_must_hold(pattern: str, expected: set[str]) -> None:
    assert literals(pattern) == {one.encode() for one in expected}


def test_more_than_a_few_strings_are_not_spelled_out() -> None:
    assert literals("(a|b|c|d|e)(a|b|c|d|e)xyz") == {letter.encode() + b"xyz" for letter in "abcde"}


def test_nested_beyond_reading_needs_nothing() -> None:
    assert not literals("(" * 900 + "a" + ")" * 900)


def test_letters_that_re2_takes_for_one_another_fold_to_one() -> None:
    cased = [chr(code) for code in range(sys.maxunicode) if chr(code).lower() != chr(code).upper()]
    text = "".join(cased)
    wide = re2.Options()
    wide.case_sensitive = False
    for letter in cased:
        taken = re2.compile(f"[{letter}]", wide).findall(text)
        assert {fold(other) for other in taken} <= {fold(letter)}


def test_it_finds_what_each_pattern_finds_by_itself() -> None:
    patterns = entries.load().patterns
    compiled = [re2.compile(pattern, entries.options(pattern)) for pattern in patterns]
    scanner = Scanner(patterns)
    found = 0
    for path in sorted(CASES.glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines()[::80]:
            data = json.loads(line)["log"][-2_000:]
            expected = [index for index, one in enumerate(compiled) if one.search(data.encode())]
            assert scanner.matches(data) == expected
            found += len(expected)
    assert found > 10


def test_patterns_without_a_literal_are_always_tried() -> None:
    scanner = Scanner([r"\d{4}-\d{2}", "plain", r"\pL\pN"])

    assert scanner.matches("on 2026-03") == [0]
    assert scanner.matches("plain é1") == [1, 2]
    assert scanner.matches("") == []


@pytest.mark.parametrize("text", ["\ud800 plain", "PLAIN\ud800", "\x00plain\x00"])
def test_no_text_is_too_odd(text: str) -> None:
    assert Scanner(["plain"]).matches(text) == [0]


def test_many_literals_are_looked_for_in_shares() -> None:
    patterns = [f"literal number {number} of many" for number in range(SHARE + 500)]

    found = Scanner(patterns).matches("Literal number 3 of many; literal number 14400 of many")

    assert found == [3, 14_400]
