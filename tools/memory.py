"""Answers a failure that was seen before with what was true then, while that record is good."""

from __future__ import annotations

from typing import Protocol

from graph.domain import DiagnosedBy, Diagnosis, DomainType, ModelCost, RootCause
from tools.diagnosis import Case, Diagnostician
from tools.llm import ModelDiagnostician


class Remembered(DomainType):
    """What the closed incidents of one signature say together."""

    incident_id: int  #: the last that healed
    diagnosis: Diagnosis  #: its diagnosis
    healed: int
    failed: int
    last_failed: bool  #: the newest fix of this signature did not help

    @property
    def good(self) -> bool:
        """Trusted: it healed more often than not, and the last time too."""
        return self.healed > self.failed and not self.last_failed

    @property
    def confidence(self) -> float:
        """Laplace's rule of succession over the record."""
        return (self.healed + 1) / (self.healed + self.failed + 2)


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
            if remembered is not None and remembered.good:
                return recalled(known, remembered)
        if self._model is None:
            return known
        answer, use = await self._model.diagnose_with_use(case)
        if use is None:
            return answer
        return answer.model_copy(update={"cost": ModelCost.model_validate(use.model_dump(mode="json"))})


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
            "summary": f"{then.summary or known.summary} ({words})",
            "by": DiagnosedBy.MEMORY,
        }
    )
