"""Python's own patterns, which strangers' text is read with: none takes for ever."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest

import tools
import tools.knowledge

REPEATED = (
    *(
        "a-",
        "a.",
        "-",
        "a_",
        "a,",
        "a b ",
        "a/",
        ":a",
        "a=",
        "a: ",
        "a(",
        "'a",
        '"a"',
        "1.",
        "1,",
        "a\n",
        "_a",
    ),
    *("None.", "\\", "a;", "1:", "host ", "error ", "://a-", "@a.", " ", "\t", "a", "A", "1", "[", "{", "("),
)
BEFORE = ("", "://", "@", "/", "http://", "host ", "Error: ", "'", "(", "\n")
TIMES = 60  # ways that double with each of them would take longer than there is time


def patterns() -> Iterator[pytest.ParameterSet]:
    for package in (tools, tools.knowledge):
        for module in pkgutil.iter_modules(package.__path__):
            if module.ispkg:
                continue
            name = f"{package.__name__}.{module.name}"
            for attribute, found in vars(importlib.import_module(name)).items():
                if isinstance(found, re.Pattern):
                    yield pytest.param(found, id=f"{name}.{attribute}")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pattern", list(patterns()))
def test_a_line_that_repeats_itself_is_walked_through(pattern: re.Pattern[str] | re.Pattern[bytes]) -> None:
    for before in BEFORE:
        for part in REPEATED:
            text = before + part * TIMES + "\x01"
            if isinstance(pattern.pattern, bytes):
                pattern.search(text.encode())
            else:
                pattern.search(text)
