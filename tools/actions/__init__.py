"""The typed actions a plan is made of. `ActionCatalogue` is the way in."""

from __future__ import annotations

from tools.actions.catalogue import GROUP, ActionCatalogue
from tools.actions.kind import (
    ActionKind,
    AnyKind,
    Confirmation,
    Found,
    NoArgs,
    Parameters,
    Preview,
    Rerun,
)

__all__ = [
    "GROUP",
    "ActionCatalogue",
    "ActionKind",
    "AnyKind",
    "Confirmation",
    "Found",
    "NoArgs",
    "Parameters",
    "Preview",
    "Rerun",
]
