"""Answers a failure that was seen before with what was true then, while that record is good."""

from __future__ import annotations

import re
from typing import Protocol

from graph.domain import DiagnosedBy, Diagnosis, DomainType, ModelCost, Remediation, RootCause, RuledOut
from tools.diagnosis import Case, Diagnostician
from tools.llm import ModelDiagnostician


class Remembered(DomainType):
    """What the closed incidents of one signature say together."""

    incident_id: int  #: the last that healed
    diagnosis: Diagnosis  #: its diagnosis
    healed: int
    failed: int
    last_failed: bool  #: the newest fix of this signature did not help
    right: int = 0  #: people who said that the cause was right
    wrong: int = 0  #: and who said it was not
    corrected: RootCause | None = None  #: what the newest of them said it was instead
    corrected_by: str = ""

    @property
    def good(self) -> bool:
        """Trusted: it healed, more often right than wrong, and the last time too."""
        helped, failed = self.healed + self.right, self.failed + self.wrong
        return self.healed > 0 and helped > failed and not self.last_failed and self.corrected is None

    @property
    def confidence(self) -> float:
        """Laplace's rule of succession over the record; people's words count like outcomes."""
        helped = self.healed + self.right
        return (helped + 1) / (helped + self.failed + self.wrong + 2)


class Memory(Protocol):
    """Where the record is kept."""

    async def recall(self, signature: str) -> Remembered | None: ...


class Remembering:
    """A `Diagnostician`: memory first, then knowledge, then the model when there is one.

    The signature needs the error that knowledge found in the log, so knowledge reads the log in any case;
    what memory saves is the doubt, and the call of the model. The evidence is always the present log's.
    """

    def __init__(
        self, knowledge: Diagnostician, memory: Memory, *, model: ModelDiagnostician | None = None
    ) -> None:
        self._knowledge = knowledge
        self._memory = memory
        self._model = model

    async def diagnose(self, case: Case) -> Diagnosis:
        known = await self._knowledge.diagnose(case)
        # A person's words are newer than any memory.
        if known.signature and not case.context.notes:
            remembered = await self._memory.recall(known.signature)
            if remembered is not None and remembered.corrected is not None:
                return corrected(known, remembered, remembered.corrected)
            if remembered is not None and remembered.good:
                return recalled(known, remembered)
        if self._model is None:
            return known
        answer, use = await self._model.diagnose_with_use(case)
        if use is None:
            return answer
        return answer.model_copy(update={"cost": ModelCost.model_validate(use.model_dump(mode="json"))})


_SEEN = re.compile(r" \(seen before: incident \d+, healed \d+ times\)")

CORRECTED = 0.75  # how sure one person's correction makes us the next time


def corrected(known: Diagnosis, remembered: Remembered, cause: RootCause) -> Diagnosis:
    """The present evidence under the cause that a person named.

    What follows from the new cause is not known here, so a person is asked: a correction takes away trust in
    a fix, it never starts one.
    """
    words = f"{remembered.corrected_by} said of incident {remembered.incident_id}'s kind: {cause.value}"
    if cause is known.root_cause:
        update = {"confidence": max(known.confidence, CORRECTED), "summary": f"{known.summary} ({words})"}
        return known.model_copy(update=update)
    then = remembered.diagnosis
    same = then.root_cause is cause
    return known.model_copy(
        update={
            "root_cause": cause,
            "transient": False,
            "remediation": then.remediation if same else Remediation.ESCALATE,
            "alternatives": then.alternatives if same else (),
            "confidence": CORRECTED,
            "summary": f"{words}; the log alone reads as {known.root_cause.value}",
            "ruled_out": (*known.ruled_out, RuledOut(root_cause=known.root_cause, why=words)),
            "by": DiagnosedBy.PERSON,
        }
    )


def recalled(known: Diagnosis, remembered: Remembered) -> Diagnosis:
    """The present evidence under the cause that was true before.

    Knowledge that contradicts with evidence of its own is not overruled: only doubt is.
    """
    then = remembered.diagnosis
    if known.root_cause not in (then.root_cause, RootCause.UNKNOWN):
        return known
    words = f"seen before: incident {remembered.incident_id}, healed {remembered.healed} times"
    confidence = max(known.confidence if known.root_cause is then.root_cause else 0, remembered.confidence)
    return known.model_copy(
        update={
            "root_cause": then.root_cause,
            # Memory may take away trust in a retry, never add it.
            "transient": then.transient and (known.transient or known.root_cause is RootCause.UNKNOWN),
            "remediation": then.remediation,
            "alternatives": then.alternatives,
            "confidence": confidence,
            # What was remembered may itself have been told from memory.
            "summary": f"{_SEEN.sub('', then.summary or known.summary)} ({words})",
            "by": DiagnosedBy.MEMORY,
        }
    )
