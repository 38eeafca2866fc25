"""A second reader of the decisive passages, learned from labelled logs and from the entries' own words.

It knows no identifiers and no order of events, only which words speak for which cause; so it errs elsewhere
than the entries do, and what both say is seldom wrong. Its weights are data (`_learned.bin`), made by
`python -m evals.learning`.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from graph.domain import RootCause
from graph.errors import KnowledgeInvalid
from tools.evidence import Evidence, Piece
from tools.knowledge.entries import FOLDER
from tools.knowledge.lexicon import Lexicon, Reading

WEIGHTS = FOLDER / "_learned.bin"
_MAGIC = b"AML1"
MOST_READ = 48  #: passages beside the final failure, the latest
SAYS_IT = 0.45  #: least weight of a line that calls itself an error
QUIET = 0.3  #: least weight of any other line near the end
SHORT, LONG = 400, 1_500  #: characters read of a line, of an exception
OUTER, EARLIER, QUIETLY, ENDED = 0.7, 0.7, 0.5, 0.5
STEM, IDEA = 0.7, 0.7  #: what a word's beginning and what a concept count beside a word
STEM_CHARS = 5
APART = 6  #: words between two concepts that belong together
_TRACE = "\n@"  #: where an exception's frames begin
_CODE = re.compile(r"\d{3}$")  #: a status; other numbers say nothing


@dataclass(frozen=True, slots=True)
class Passage:
    """Text that may tell why it failed, and how much it counts."""

    line: int
    text: str
    weight: float


def passages(evidence: Evidence) -> list[Passage]:
    """The final failure innermost first, then the latest complaints and last words before it."""
    found = []
    raised = evidence.chain.raised if evidence.chain else []
    for position, one in enumerate(raised, 1):
        text = one.render().partition(_TRACE)[0][:LONG]
        found.append(Passage(one.line, text, 1.0 if position == len(raised) else OUTER))
    seen = {passage.line for passage in found}
    others = [p for p in evidence.pieces if p.kind != "exception" or p.line not in seen]
    read = [passage for piece in others if (passage := _passage(piece)) is not None]
    return found + sorted(read, key=lambda p: p.line)[-MOST_READ:]


def _passage(piece: Piece) -> Passage | None:
    if piece.kind == "end":
        return Passage(piece.line, piece.text[:SHORT], ENDED)
    if piece.kind == "exception":
        text = piece.text.partition(_TRACE)[0][:LONG]
        return Passage(piece.line, text, piece.weight * EARLIER) if piece.weight >= SAYS_IT else None
    if piece.recovered:
        return None
    if piece.errorish and piece.weight >= SAYS_IT:
        return Passage(piece.line, piece.text[:SHORT], piece.weight)
    if piece.near and piece.weight >= QUIET:
        return Passage(piece.line, piece.text[:SHORT], piece.weight * QUIETLY)
    return None


def features(read: Iterable[Passage], lexicon: Lexicon) -> dict[str, float]:
    """Words, pairs of words, beginnings of words, and the lexicon's concepts, each as loud as its passage."""
    found: dict[str, float] = defaultdict(float)
    for passage in read:
        for reading in lexicon.sentences(passage.text):
            for feature, share in _of_sentence(reading):
                weight = share * passage.weight
                if weight > found[feature]:
                    found[feature] = weight
    return found


def _of_sentence(reading: Reading) -> Iterable[tuple[str, float]]:
    words = [word for word in reading.words if not word.isdigit() or _CODE.match(word)]
    for word in words:
        yield word, 1.0
        if len(word) > STEM_CHARS + 1:
            yield f"{word[:STEM_CHARS]}*", STEM
    for one, other in pairwise(words):
        yield f"{one} {other}", 1.0
    for idea in reading.concepts:
        yield f"#{idea.name}", IDEA
        for next_ in reading.concepts:
            if 0 < next_.first - idea.last <= APART + 1 and idea.name != next_.name:
                yield "#" + "+".join(sorted((idea.name, next_.name))), IDEA


@dataclass(frozen=True, slots=True)
class Weights:
    """What each feature speaks for: a sparse matrix, looked up by the feature's checksum."""

    causes: tuple[RootCause, ...]
    bias: tuple[float, ...]
    scale: float
    keys: array[int]  #: checksums, ascending
    rarity: array[float]  #: how much a feature counts in the length of a text
    starts: array[int]  #: where a feature's cells begin
    cells: bytes  #: cause
    values: array[int]  #: of `scale`

    def margins(self, found: Mapping[str, float]) -> dict[RootCause, float]:
        """For each cause, how far the words are on its side."""
        sums = [0.0] * len(self.causes)
        length = 0.0
        for feature, weight in found.items():
            place = self._place(feature)
            if place is None:
                continue
            weight *= self.rarity[place]
            length += weight * weight
            for cell in range(self.starts[place], self.starts[place + 1]):
                sums[self.cells[cell]] += weight * self.values[cell]
        scale = self.scale / math.sqrt(length) if length else 0.0
        return {
            cause: bias + scale * total
            for cause, bias, total in zip(self.causes, self.bias, sums, strict=True)
        }

    def _place(self, feature: str) -> int | None:
        key = checksum(feature)
        place = bisect_left(self.keys, key)
        return place if place < len(self.keys) and self.keys[place] == key else None


def checksum(feature: str) -> int:
    """The number under which a feature is kept."""
    return zlib.crc32(feature.encode("utf-8", "replace"))


class Reader:
    """Reads a case's passages; nothing is loaded before the first."""

    def __init__(self, lexicon: Lexicon, path: Path = WEIGHTS) -> None:
        self._lexicon = lexicon
        self._path = path
        self._weights: Weights | None = None

    def read(self, evidence: Evidence) -> dict[RootCause, float]:
        """How far the words of the decisive passages are on each cause's side; empty when there are none."""
        return self._margins(passages(evidence))

    def decisive(self, evidence: Evidence, cause: RootCause) -> Passage | None:
        """The passage whose words alone speak most for the cause."""
        spoken = ((self._margins([p]).get(cause, -math.inf) * p.weight, p) for p in passages(evidence))
        return max(spoken, key=lambda told: told[0], default=(0.0, None))[1]

    def _margins(self, read: Sequence[Passage]) -> dict[RootCause, float]:
        if not read:
            return {}
        if self._weights is None:
            self._weights = load(self._path)
        return self._weights.margins(features(read, self._lexicon))


def load(path: Path = WEIGHTS) -> Weights:
    """The shipped weights."""
    try:
        data = zlib.decompress(path.read_bytes())
        magic, causes, keys, cells, scale = struct.unpack_from("<4sIIIf", data)
        if magic != _MAGIC:
            raise KnowledgeInvalid(f"{path.name}: not a file of learned weights")
        return _unpack(data, struct.calcsize("<4sIIIf"), causes, keys, cells, scale)
    except (OSError, zlib.error, struct.error, ValueError) as exc:
        raise KnowledgeInvalid(f"{path.name}: cannot be read: {exc}") from exc


def _unpack(data: bytes, place: int, causes: int, keys: int, cells: int, scale: float) -> Weights:
    def take(kind: str, count: int) -> array[Any]:
        nonlocal place
        part: array[Any] = array(kind)
        part.frombytes(data[place : place + count * part.itemsize])
        place += count * part.itemsize
        return part

    bias = tuple(float(value) for value in take("f", causes))
    checksums, rarity, starts = take("I", keys), take("f", keys), take("I", keys + 1)
    of, values = take("B", cells), take("b", cells)
    names = data[place:].decode().split(",")
    return Weights(tuple(map(RootCause, names)), bias, scale, checksums, rarity, starts, of.tobytes(), values)


def pack(
    causes: Sequence[str], bias: Sequence[float], rows: Mapping[str, tuple[float, Sequence[float]]]
) -> bytes:
    """Weights as they are shipped: per feature its rarity and one weight per cause, in 127 steps."""
    scale = max((abs(weight) for _, row in rows.values() for weight in row), default=1.0) / 127
    ordered = sorted((checksum(feature), rarity, row) for feature, (rarity, row) in rows.items())
    keys, rare, starts = array("I"), array("f"), array("I", [0])
    of, values = array("B"), array("b")
    for key, rarity, row in ordered:
        if keys and keys[-1] == key:  # two features of one checksum: the first stays
            continue
        keys.append(key)
        rare.append(rarity)
        for cause, weight in enumerate(row):
            if step := round(weight / scale):
                of.append(cause)
                values.append(step)
        starts.append(len(of))
    head = struct.pack("<4sIIIf", _MAGIC, len(causes), len(keys), len(of), scale)
    body = [part.tobytes() for part in (array("f", bias), keys, rare, starts, of, values)]
    return zlib.compress(b"".join([head, *body, ",".join(causes).encode()]), 9)
