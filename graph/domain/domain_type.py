"""What every domain type is, and the one spelling of a JSON value."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict


class DomainType(BaseModel):
    """Frozen, closed, comparable by value."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def canonical_json(value: object) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces. Before-images are compared in it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """Sixteen hex digits that stand for a JSON value (SHA-256 of its canonical form, cut)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
