"""The knowledge base: from a case to a diagnosis, without any language model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from graph.domain import (
    CodeLocation,
    DiagnosedBy,
    Diagnosis,
    EvidenceLine,
    Facts,
    Remediation,
    RootCause,
    RuledOut,
)
from tools import evidence as reading
from tools.diagnosis import Case
from tools.evidence import Evidence, Piece
from tools.knowledge import context, course, entries, facts, ordinary, refine
from tools.knowledge.confidence import Calibration
from tools.knowledge.disputed import disputed
from tools.knowledge.entries import Entry, Knowledge
from tools.knowledge.exits import ExitStatuses
from tools.knowledge.learned import Reader
from tools.knowledge.lexicon import OF_CLASS, Lexicon
from tools.knowledge.pooling import Pool
from tools.knowledge.ranking import Candidate, Hit, rank
from tools.knowledge.scanner import Scanner
from tools.knowledge.second import SecondReading, Sure
from tools.signature import signature

PIECE_CHARS = 14_000  # of one piece are matched
SHOWN_LINES = 4
SUMMARY_CHARS = 240
CARRIER = 0.8  #: of an entry's strength, when it is found only around another message
CARRIED = 0.7  #: least strength of what is found in the message inside
CLASS_ONLY = 0.92  #: of an entry's strength, when only the exception's class speaks for it
WORDS = 0.7  #: entries up to this strength know words, not identifiers
SAID = 0.65  #: least strength of words that contradict an exception's class
DOUBTED = 0.8
OF_STATUS = "http/s"  #: entries that know a status, whatever was answered with it
WORTH_MATCHING = 0.16  #: least weight of a piece that can still support an answer
WORTH_READING = 0.45  #: least weight of a piece whose words are read
MOST_READ = 120  # pieces
#: causes whose remote side may name the time to wait
_ASK_FOR_TIME = frozenset({RootCause.RATE_LIMITED, RootCause.UPSTREAM_UNAVAILABLE})
PLAIN = 0.6  #: least weight of an identifier in a line that names no level


_CLASSED = re.compile(r"\b(?:\w+\.)+[A-Z]\w*(?:Exception|Error): ")  #: an exception printed in a line

#: where the message of another program begins within a message
_CARRIES = re.compile(
    r"[Cc]aused by|[Nn]ested exception is|[Ii]nner [Ee]xception|\b(?:desc|details?) = |\bError from server: "
    r"|[\"'](?:message|msg|errmsg|reason|detail|error_description|errorMessage|error)[\"']: ?[\"']"
    r"|\b[A-Z]\w+(?:Error|Exception|Failed|Unavailable|Timeout|Refused)\(|; reason: |last exception: "
)


class KnowledgeBase:
    """General knowledge of the software pipelines run on, as data. Pure, quick, never raises on a bad log."""

    def __init__(
        self,
        knowledge: Knowledge,
        lexicon: Lexicon,
        exits: ExitStatuses,
        calibration: Calibration,
        pool: Pool,
    ) -> None:
        self._knowledge = knowledge
        self._exits = exits
        self._calibration = calibration
        self._scanner = Scanner(knowledge.patterns)
        self._lexicon = lexicon
        self._second = SecondReading(knowledge, Reader(lexicon), pool)

    @classmethod
    def load(cls, extra_folder: Path | None = None) -> KnowledgeBase:
        """The shipped knowledge and, on top of it, a folder of the user's own files."""
        knowledge = entries.load(extra_folder)
        lexicon = Lexicon.load(knowledge.causes, extra_folder)
        exits = ExitStatuses.load(knowledge.causes, extra_folder)
        return cls(knowledge, lexicon, exits, Calibration.load(), Pool.load())

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What it knows."""
        return self._knowledge.entries

    def diagnose(self, case: Case) -> Diagnosis:
        """Name the cause; `unknown` when the evidence does not say."""
        evidence = reading.read(case.log)
        extra = reading.read_import_failure(case.context.import_failure)
        read = self._read([*evidence.pieces, *extra])
        harmless = ordinary.harmless(read)
        evidence.pieces = [one for one in evidence.pieces if id(one) not in harmless] or evidence.pieces
        candidates = rank(_besides(read, harmless))
        candidates = refine.apply(case, evidence, candidates)
        candidates = self._exits.apply(evidence, candidates)
        candidates, told = context.apply(case, evidence, candidates)
        alone = self._calibration.confidence(candidates)
        sure = Sure(alone, alone >= self._calibration.answer_from)
        if not case.context.import_failure:
            candidates, sure = self._second.apply(evidence, candidates, sure, moved=bool(told.lines))
        return self._answer(case, evidence, candidates, told.lines, sure)

    def hits(self, pieces: Iterable[Piece]) -> list[Hit]:
        """Every entry found in every piece, all patterns in one pass over each; then what the words say."""
        read = self._read(list(pieces))
        return _besides(read, ordinary.harmless(read))

    def _read(self, pieces: list[Piece]) -> list[Hit]:
        return _doubt_classes(self._known(pieces), self._worded(pieces))

    def _worded(self, pieces: list[Piece]) -> list[Hit]:
        """The latest pieces that may tell of a failure, read word by word."""
        read = [piece for piece in pieces if piece.kind != "end" and piece.weight >= WORTH_READING]
        return [
            Hit(piece, entry, (), entry.strength * _weight(piece, entry), worded=True)
            for piece in read[-MOST_READ:]
            for entry in self._lexicon.read(piece)
        ]

    def _known(self, pieces: list[Piece]) -> list[Hit]:
        known, owner = self._knowledge.entries, self._knowledge.owner
        found: list[Hit] = []
        seen: dict[str, list[int]] = {}
        last = ordinary.last_words(pieces)
        for piece in pieces:
            if piece.weight < WORTH_MATCHING and not piece.near:
                continue
            text = piece.text[:PIECE_CHARS]
            matches = seen.get(text)
            if matches is None:
                matches = seen[text] = self._scanner.matches(text)
            if not matches:
                continue
            by_entry: dict[int, list[int]] = {}
            for pattern in matches:
                by_entry.setdefault(owner[pattern], []).append(pattern)
            said = self._said(piece, matches)
            carried = self._carried(text, by_entry)
            for index, patterns in by_entry.items():
                entry = ordinary.as_told(known[index], piece, last)
                if any(p.search(text) for p in entry.unless):
                    continue
                of_class = not said.intersection(patterns)
                score = (CLASS_ONLY if of_class else 1.0) * entry.strength * _weight(piece, entry)
                # Airflow's own server is at fault whatever its answer carries.
                own = entry.cause is RootCause.PLATFORM_ERROR
                if carried is not None and index not in carried and not own:
                    score *= CARRIER
                found.append(Hit(piece, entry, tuple(patterns), score, of_class))
        return found

    def _carried(self, text: str, by_entry: dict[int, list[int]]) -> set[int] | None:
        """The entries found in what a message carries: `503: {"message": …}`, `Unable to connect (…Error(…)`.

        None when it carries nothing, or nothing that is known for another cause than its carrier.
        """
        marker = _CARRIES.search(text, 8)
        if marker is None or len({self._knowledge.entries[index].cause for index in by_entry}) < 2:
            return None
        inner = {self._knowledge.owner[found] for found in self._scanner.matches(text[marker.end() :])}
        known = [self._knowledge.entries[index] for index in inner & by_entry.keys()]
        return inner if any(entry.strength >= CARRIED for entry in known) else None

    def _said(self, piece: Piece, matches: list[int]) -> set[int]:
        """What the message says, apart from its exception's class: the class alone is the weaker evidence."""
        start = 0
        if piece.raised is not None and piece.raised.message:
            start = len(piece.raised.type) + 2
        elif piece.raised is None and (match := _CLASSED.search(piece.text[:400])):
            start = match.end()
        return set(self._scanner.matches(piece.text[start:][:PIECE_CHARS])) if start else set(matches)

    def _answer(
        self, case: Case, evidence: Evidence, candidates: list[Candidate], told: list[str], sure: Sure
    ) -> Diagnosis:
        top = candidates[0] if candidates else None
        if top is None or (not top.hits and not top.why) or not sure.enough:
            return self._unknown(case, evidence, candidates, sure.confidence, told)
        lead = self._lead(top)
        transient, remediation = refine.transience(case, candidates, lead, told, sure.confidence)
        shown = self._shown(evidence, top)
        found = self._facts(case, evidence, top, lead, told if transient else [])
        error = shown[0].text if shown else top.why
        return Diagnosis(
            root_cause=top.cause,
            transient=transient,
            confidence=sure.confidence,
            remediation=remediation,
            evidence=tuple(shown),
            summary=_summary(lead.says, error, top.why or (told[-1] if told else "")),
            ruled_out=_ruled_out(top, candidates[1:]),
            alternatives=_alternatives(lead, remediation),
            by=DiagnosedBy.KNOWLEDGE,
            location=_location(evidence),
            facts=found,
            signature=signature(top.cause, _error_text(evidence, top), case.task.task if case.task else None),
            context=tuple(told),
            disputed=disputed(evidence, case.log.content, candidates) if transient else None,
        )

    def _facts(self, case: Case, evidence: Evidence, top: Candidate, lead: Entry, told: list[str]) -> Facts:
        """What a fix can use; a wait also from the entry that speaks, and from tries that were no use."""
        decisive = [h.piece.text for h in top.hits[:3]]
        found = facts.collect(decisive, (p.text for p in evidence.pieces[-400:]))
        found = refine.add_facts(found, case, top)
        changes: dict[str, float | None] = {"wait": lead.wait}
        if found.retry_after is None and top.cause in _ASK_FOR_TIME:
            everything = facts.collect((p.text for p in evidence.pieces[-200:]), ())
            changes["retry_after"] = everything.retry_after
        if lead.transient and (longer := course.every_try(case)) is not None:
            changes["wait"] = max(longer[0], lead.wait or 0)
            told.append(longer[1])
        return found.model_copy(update=changes)

    def _lead(self, top: Candidate) -> Entry:
        """The entry that speaks for the answer; context alone answers with the cause's defaults."""
        if top.best is not None and top.best.entry.cause is top.cause:
            return top.best.entry
        return refine.default_entry(top.cause, self._knowledge)

    def _unknown(
        self,
        case: Case,
        evidence: Evidence,
        candidates: list[Candidate],
        confidence: float,
        told: list[str],
    ) -> Diagnosis:
        hints = [h.piece.line for c in candidates[:1] for h in c.hits[:1] if h.piece.line in evidence.lines]
        numbers = dict.fromkeys([*evidence.around, *hints])
        shown = [EvidenceLine(line=n, text=evidence.printed(n)) for n in numbers]
        error = evidence.chain.raised[-1].header if evidence.chain else (shown[0].text if shown else "")
        return Diagnosis(
            root_cause=RootCause.UNKNOWN,
            transient=False,
            confidence=round(1 - confidence, 3) if candidates else 0.9,
            remediation=Remediation.ESCALATE,
            evidence=tuple(shown),
            summary="The evidence does not say why it failed." if evidence.pieces else "The log is empty.",
            ruled_out=_ruled_out(None, candidates),
            location=_location(evidence),
            signature=signature(RootCause.UNKNOWN, error, case.task.task if case.task else None),
            context=tuple(told),
        )

    def _shown(self, evidence: Evidence, top: Candidate) -> list[EvidenceLine]:
        """The decisive line first, then lines that support it."""
        shown: dict[int, EvidenceLine] = {}
        for hit in top.hits:
            for number in self._lines_of(evidence, hit):
                if number in evidence.lines and number not in shown and len(shown) < SHOWN_LINES:
                    shown[number] = EvidenceLine(line=number, text=evidence.printed(number))
        for number in evidence.around:
            shown.setdefault(number, EvidenceLine(line=number, text=evidence.printed(number)))
        return list(shown.values())

    def _lines_of(self, evidence: Evidence, hit: Hit) -> list[int]:
        """A message may span lines: those the patterns are in."""
        raised = hit.piece.raised
        if raised is None or raised.last == raised.line:
            return [hit.piece.line]
        found = []
        for index in hit.patterns[:SHOWN_LINES]:
            pattern = self._scanner.pattern(index)
            for number in range(raised.line, raised.last + 1):
                line = evidence.lines.get(number)
                if line is not None and pattern.search(line.text):
                    found.append(number)
                    break
        return list(dict.fromkeys(found)) or [raised.line]


class KnowledgeDiagnostician:
    """The knowledge base behind the port of whoever makes a diagnosis."""

    def __init__(self, knowledge: KnowledgeBase) -> None:
        self._knowledge = knowledge

    async def diagnose(self, case: Case) -> Diagnosis:
        """Name the cause."""
        return self._knowledge.diagnose(case)


def _besides(hits: list[Hit], harmless: set[int]) -> list[Hit]:
    """A harmless line is no evidence, whatever else is found in it."""
    return [hit for hit in hits if id(hit.piece) not in harmless]


def _doubt_classes(known: list[Hit], worded: list[Hit]) -> list[Hit]:
    """An exception's class or a status counts less when its message speaks of something else.

    `AuthenticationException: The remote certificate is invalid` is about a certificate.
    """
    said: dict[int, set[RootCause]] = {}
    for hit in worded:
        if hit.entry.strength >= SAID and not hit.entry.name.startswith(OF_CLASS):
            said.setdefault(id(hit.piece), set()).add(hit.entry.cause)
    kept = []
    for hit in known:
        causes = said.get(id(hit.piece))
        general = hit.of_class or hit.entry.name.startswith(OF_STATUS)
        if general and causes and hit.entry.cause not in causes:
            hit = replace(hit, score=hit.score * DOUBTED)
        kept.append(hit)
    return kept + worded


def _weight(piece: Piece, entry: Entry) -> float:
    """An identifier counts in a plain line too; words need an error's context."""
    if (
        piece.kind != "exception"
        and entry.strength > 0.9
        and (piece.errorish or piece.near)
        and PLAIN > piece.weight >= 0.4
    ):
        return PLAIN
    if piece.kind != "exception" and entry.strength <= WORDS and piece.weight < PLAIN and not piece.near:
        return piece.weight * 0.7
    return piece.weight


def _summary(says: str, error: str, why: str) -> str:
    text = f"{says[:1].upper()}{says[1:]}: {error.strip()}" if error else f"{says[:1].upper()}{says[1:]}"
    text = text if len(text) <= SUMMARY_CHARS else text[: SUMMARY_CHARS - 1] + "…"
    return f"{text} ({why})" if why and why not in text else text


def _ruled_out(top: Candidate | None, others: list[Candidate]) -> tuple[RuledOut, ...]:
    found = []
    for other in others[:3]:
        hit = other.best
        if hit is None:
            continue
        if top is None:
            why = f"line {hit.piece.line} hints at it, too weakly"
        elif hit.entry.strength < 0.6:
            why = f"line {hit.piece.line} speaks for it, but is generic"
        elif not hit.piece.final and top.best is not None and top.best.piece.final:
            why = f"line {hit.piece.line} came before the failure that ended the task"
        else:
            why = f"line {hit.piece.line} speaks for it, the evidence for {top.cause.value} is stronger"
        found.append(RuledOut(root_cause=other.cause, why=why))
    return tuple(found)


def _alternatives(lead: Entry, chosen: Remediation) -> tuple[Remediation, ...]:
    ranked = [lead.remediation, *lead.alternatives]
    return tuple(dict.fromkeys(r for r in ranked if r is not chosen))


def _error_text(evidence: Evidence, top: Candidate) -> str:
    if top.best is not None:
        return top.best.piece.raised.header if top.best.piece.raised else top.best.piece.text
    return evidence.chain.raised[-1].header if evidence.chain else ""


def _location(evidence: Evidence) -> CodeLocation | None:
    frame = evidence.user_frame
    return CodeLocation(file=frame.file, line=max(frame.line, 0), function=frame.function) if frame else None
