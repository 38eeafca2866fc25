"""What a language model may say, and how much of it counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from graph.domain import DiagnosedBy, Diagnosis, EvidenceLine, Remediation, RootCause, RuledOut
from tools.redaction import redact

MOST_CITED = 8
SUMMARY_LENGTH = 300  # characters

#: Causes that can pass by themselves: only there the model's own `transient` counts.
PASSING_CAUSES = frozenset(
    {
        RootCause.NETWORK_UNREACHABLE,
        RootCause.RATE_LIMITED,
        RootCause.UPSTREAM_UNAVAILABLE,
        RootCause.TIMEOUT,
        RootCause.WORKER_LOST,
        RootCause.CAPACITY_UNAVAILABLE,
        RootCause.LOCK_CONTENTION,
    }
)

# Confidence is ours, never the model's: it follows from agreement with the knowledge base. The figures are
# deliberately low until they can be calibrated on an endpoint: a cause from the model alone stays below what
# policies need to act without a person.
CONFIRMED_DOUBT = 0.4  # of the doubt that was left, this much stays
MOST_CONFIRMED = 0.95
NAMED_CANDIDATE = 0.65  # knowledge had considered the cause
NAMED_NEW = 0.55
DISPUTED = 0.7  # factor on the confidence of an answer that the model contradicts
FIRM = 0.5  # from here on, a contradicted answer of the knowledge base stands


class AnswerRefused(ValueError):
    """The model's answer cannot be used; the message tells it why."""


class _Dropped(BaseModel):
    model_config = ConfigDict(extra="forbid")

    root_cause: RootCause
    why: str = Field(max_length=400)


class ModelAnswer(BaseModel):
    """The typed answer. It has no place for actions or targets: they come from the incident."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root_cause: RootCause
    transient: bool
    remediation: Remediation
    cited_lines: tuple[int, ...] = Field(max_length=MOST_CITED)
    summary: str = Field(max_length=2000)
    ruled_out: tuple[_Dropped, ...] = Field(default=(), max_length=6)


class Reading(BaseModel):
    """What remains of an answer after judging it."""

    model_config = ConfigDict(frozen=True)

    diagnosis: Diagnosis
    outcome: Literal["confirmed", "named", "disputed", "abstained"]


def answer_schema() -> dict[str, JsonValue]:
    """The JSON schema, written tight: it is paid for with every call."""
    causes: list[JsonValue] = [cause.value for cause in RootCause]
    remediations: list[JsonValue] = [remediation.value for remediation in Remediation]
    dropped = _closed({"root_cause": {"type": "string"}, "why": {"type": "string"}})
    return _closed(
        {
            "root_cause": {"type": "string", "enum": causes},
            "transient": {"type": "boolean"},
            "remediation": {"type": "string", "enum": remediations},
            "cited_lines": {"type": "array", "items": {"type": "integer"}},
            "summary": {"type": "string"},
            "ruled_out": {"type": "array", "items": dropped},
        }
    )


def _closed(properties: dict[str, JsonValue]) -> dict[str, JsonValue]:
    required: list[JsonValue] = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def parse_answer(text: str, shown: Mapping[int, str]) -> ModelAnswer:
    """The answer in a reply, or `AnswerRefused` with the reason; every cited line must have been shown."""
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end < begin:
        raise AnswerRefused("the reply holds no JSON object")
    try:
        answer = ModelAnswer.model_validate(json.loads(text[begin : end + 1]))
    except json.JSONDecodeError as exc:
        raise AnswerRefused(f"the reply is not valid JSON: {exc.msg} at character {exc.pos}") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "answer"
        raise AnswerRefused(f"the reply does not fit the schema: {place}: {first['msg']}") from exc
    except RecursionError as exc:
        raise AnswerRefused("the reply is nested too deeply") from exc
    if answer.root_cause is RootCause.UNKNOWN:
        return answer
    if not answer.cited_lines:
        raise AnswerRefused("no line is cited; a cause needs the numbers of the lines that prove it")
    invented = [line for line in answer.cited_lines if line not in shown]
    if invented:
        raise AnswerRefused(f"line {invented[0]} was not shown; cite only lines with an L-number above")
    if not any(shown[line].strip() for line in answer.cited_lines):
        raise AnswerRefused("the cited lines are empty")
    return answer


def judge(knowledge: Diagnosis, answer: ModelAnswer, shown: Mapping[int, str]) -> Reading:
    """Weigh the model's vote against what is known. It can lower autonomy, never raise it."""
    if answer.root_cause is RootCause.UNKNOWN:
        return Reading(diagnosis=knowledge, outcome="abstained")
    evidence = _evidence(knowledge, answer, shown)
    known = knowledge.root_cause is not RootCause.UNKNOWN
    if answer.root_cause is knowledge.root_cause:
        confidence = max(
            knowledge.confidence, min(MOST_CONFIRMED, 1 - (1 - knowledge.confidence) * CONFIRMED_DOUBT)
        )
        changes = {
            "confidence": confidence,
            "evidence": evidence,
            # A model that calls a passing failure lasting is heeded; the other way round it is not.
            "transient": knowledge.transient and answer.transient,
            "remediation": _remediation(
                knowledge, answer, transient=knowledge.transient and answer.transient
            ),
        }
        return Reading(diagnosis=knowledge.model_copy(update=changes), outcome="confirmed")
    if known and knowledge.confidence >= FIRM:
        lowered = knowledge.model_copy(update={"confidence": knowledge.confidence * DISPUTED})
        return Reading(diagnosis=lowered, outcome="disputed")
    return Reading(diagnosis=_named(knowledge, answer, evidence), outcome="named")


def _named(knowledge: Diagnosis, answer: ModelAnswer, evidence: tuple[EvidenceLine, ...]) -> Diagnosis:
    """The model's cause, where knowledge had none or hardly one."""
    known_lasting = (
        knowledge.root_cause is not RootCause.UNKNOWN and bool(knowledge.evidence) and not knowledge.transient
    )
    transient = answer.transient and answer.root_cause in PASSING_CAUSES and not known_lasting
    considered = {knowledge.root_cause, *(dropped.root_cause for dropped in knowledge.ruled_out)}
    candidate = answer.root_cause in considered - {RootCause.UNKNOWN}
    return knowledge.model_copy(
        update={
            "root_cause": answer.root_cause,
            "transient": transient,
            "confidence": NAMED_CANDIDATE if candidate else NAMED_NEW,
            "remediation": _remediation(knowledge, answer, transient=transient),
            "evidence": evidence,
            "summary": _plain(answer.summary, SUMMARY_LENGTH) or knowledge.summary,
            "ruled_out": _ruled_out(knowledge, answer),
            "alternatives": (),
            "by": DiagnosedBy.MODEL,
        }
    )


def _remediation(knowledge: Diagnosis, answer: ModelAnswer, *, transient: bool) -> Remediation:
    """An unchanged retry needs a failure that passes; without one the next best word stands."""
    same_cause = answer.root_cause is knowledge.root_cause
    wanted = knowledge.remediation if same_cause else answer.remediation
    if wanted is not Remediation.RETRY or transient:
        return wanted
    return answer.remediation if answer.remediation is not Remediation.RETRY else Remediation.ESCALATE


def _evidence(
    knowledge: Diagnosis, answer: ModelAnswer, shown: Mapping[int, str]
) -> tuple[EvidenceLine, ...]:
    cited = {line: EvidenceLine(line=line, text=shown[line]) for line in answer.cited_lines}
    if answer.root_cause is knowledge.root_cause:
        cited |= {line.line: line for line in knowledge.evidence}
    return tuple(cited[line] for line in sorted(cited))


def _ruled_out(knowledge: Diagnosis, answer: ModelAnswer) -> tuple[RuledOut, ...]:
    said = {
        dropped.root_cause: RuledOut(root_cause=dropped.root_cause, why=_plain(dropped.why, 200))
        for dropped in answer.ruled_out
    }
    kept = {dropped.root_cause: dropped for dropped in knowledge.ruled_out} | said
    return tuple(dropped for cause, dropped in kept.items() if cause is not answer.root_cause)


def _plain(text: str, length: int) -> str:
    """A model's words, inert: printable, on one line, without secrets, short."""
    words = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return redact(words)[:length]
