"""Ordinary lines: most of a log tells of work that goes on, often in the words of a complaint."""

from __future__ import annotations

import re
from dataclasses import replace

from graph.domain import RootCause
from tools.evidence import Piece
from tools.knowledge.entries import Entry
from tools.knowledge.ranking import Hit

HARMLESS = 0.97  #: least strength of an entry that knows a line to mean nothing
UNMISTAKABLE = 0.95  #: least strength of an entry that a harmless line does not silence
TELLS = 0.5  #: entries beyond this strength tell a cause
STANDS = 0.3  #: in pieces of at least this weight
COUNTS = 0.6  #: least weight of a line that is not silenced: the work did not go on after it
HINT = 0.5  #: of its strength, what an entry of plain words keeps in an ordinary line
LAST = 1  #: lines of ordinary work that may follow what a program said last: it ends with `nothing booked`
MOST_READ = 300  # characters of a line
NO_CAUSE = frozenset({RootCause.UNKNOWN, RootCause.EXTERNAL_JOB_FAILED})
#: a program's end, as who started it tells
_EXITED = re.compile(r"(?i:exit(?:ed)?|return(?:ed)?)[^\n]{0,30}\b(?:code|status)\W{0,2}-?[1-9]")
#: a check that tells the number it expected and found: `expected 10 files, found 10`
_AGREES = re.compile(
    r"\b(\d+)(?: [\w-]+){0,2},? (?:and |we )?(?:expected|wanted|needed|found|got|read|counted)"
    r"(?: \w+)? (\d+)(?: \w+)?\W*$"
)


def last_words(pieces: list[Piece]) -> int:
    """How many lines of ordinary work may follow what a program said last: it ends with `nothing booked`."""
    ended = (piece for piece in pieces if piece.kind == "end" or piece.final)
    return LAST if any(_EXITED.search(piece.text[:MOST_READ]) for piece in ended) else -1


def as_told(entry: Entry, piece: Piece, last: int) -> Entry:
    """Plain words name a cause where something went wrong or last before the end, else they hint at one."""
    told = piece.errorish or piece.final or (piece.near and piece.after <= last)
    if not entry.plain or entry.cause is RootCause.UNKNOWN or piece.kind != "line" or told:
        return entry
    return replace(entry, strength=entry.strength * HINT)


def harmless(hits: list[Hit]) -> set[int]:
    """The printed lines known to be harmless (cause unknown): no reader is to hear of them.

    When nothing else names a cause, a complaint that is known for certain is only silenced by an entry that
    knows the very line, not by plain words.
    """
    known = {
        id(hit.piece)
        for hit in hits
        if hit.piece.kind == "line" and (_means_nothing(hit.entry) or _agrees(hit.piece.text))
    }
    telling = [hit for hit in hits if _tells(hit)] if known else []
    if any(id(hit.piece) not in known for hit in telling):
        return known
    lines = {id(hit.piece) for hit in hits if _means_nothing(hit.entry) and not hit.entry.plain}
    return known - ({id(hit.piece) for hit in telling if _unmistakable(hit)} - lines)


def _unmistakable(hit: Hit) -> bool:
    complaint = hit.piece.errorish and hit.piece.weight >= COUNTS
    return complaint and hit.entry.strength >= UNMISTAKABLE


def _means_nothing(entry: Entry) -> bool:
    return entry.cause is RootCause.UNKNOWN and entry.strength >= HARMLESS


def _agrees(text: str) -> bool:
    """A check printed what it expected, and found it."""
    told = _AGREES.search(text[:MOST_READ])
    return told is not None and told[1] == told[2]


def _tells(hit: Hit) -> bool:
    known = hit.entry.cause not in NO_CAUSE and hit.entry.strength > TELLS
    return known and hit.piece.weight >= STANDS
