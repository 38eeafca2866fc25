"""Secrets are removed as text enters, so that no row, prompt, trace or screen has to remember to."""

from __future__ import annotations

import re

_SECRET_PAIR = re.compile(
    r"(?i)(\b[\w.-]*(?:password|passwd|secret|token|api[_-]?key)\b[\"']?\s*[=:]\s*[\"']?)([^\s\"',;&]{3,})"
)
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)([^\s@/]+)(@)", re.IGNORECASE)


def redact(text: str) -> str:
    """Replace secrets and personal data by typed, stable placeholders."""
    text = _URL_PASSWORD.sub(r"\1[password]\3", text)
    return _SECRET_PAIR.sub(r"\1[secret]", text)
