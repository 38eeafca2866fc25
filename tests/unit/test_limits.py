"""The depth of JSON, looked at without parsing it."""

from __future__ import annotations

import pytest

from server.limits import is_too_deep


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        pytest.param(b"[" * 33, True, id="one too many"),
        pytest.param(b"[" * 32 + b"]" * 32, False, id="just at the limit"),
        pytest.param(b"[]" * 500, False, id="many side by side"),
        pytest.param(b'{"a":' * 40, True, id="objects count too"),
        pytest.param(b'{"a": "' + b"[" * 500 + b'"}', False, id="brackets in a text do not count"),
        pytest.param(b'{"a": "\\"' + b"[" * 500 + b'"}', False, id="nor after an escaped quote"),
        pytest.param(b'"\\\\"' + b"[" * 33, True, id="an escaped backslash ends no text"),
        pytest.param(b'"' + b"[" * 500, True, id="an open text hides nothing"),
    ],
)
def test_depth(body: bytes, deep: bool) -> None:
    assert is_too_deep(body) is deep
