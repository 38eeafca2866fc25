"""Whether the failure itself contradicts what other lines of the log say.

A task prints what it likes, and strangers' texts with it: a line may be the reason for what was raised later,
or may only look so. The answer can follow such a line; a retry without a person does not rest on it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from graph.domain import RootCause
from tools.evidence import Evidence
from tools.knowledge.ranking import Candidate, Hit

#: these say how it ended, not why
_HOW = frozenset({RootCause.EXTERNAL_JOB_FAILED, RootCause.UNKNOWN})


def disputed(
    evidence: Evidence, content: Sequence[Mapping[str, JsonValue]], candidates: Sequence[Candidate]
) -> RootCause | None:
    """The lasting cause that the exception which ended the task speaks for, if nothing of it fits the first.

    `content`: Airflow's structured log, whose exceptions nobody can print. None when context alone answers:
    that is Airflow's word, not the log's.
    """
    if evidence.chain is None or not candidates or not candidates[0].hits:
        return None
    listed = _listed(content)
    chain = {id(one) for one in evidence.chain.raised if not listed or _name(one.type) in listed}
    if any(_of(hit, chain) for hit in candidates[0].hits):
        return None
    others = [
        hit
        for one in candidates[1:]
        for hit in one.hits
        if _of(hit, chain) and not hit.entry.transient and one.cause not in _HOW
    ]
    return max(others, key=lambda hit: hit.score).entry.cause if others else None


def _of(hit: Hit, chain: set[int]) -> bool:
    return hit.piece.raised is not None and id(hit.piece.raised) in chain


def _listed(content: Sequence[Mapping[str, JsonValue]]) -> set[str]:
    """The classes of the exceptions that Airflow itself caught, those of the last message that has any."""
    for message in reversed(content):
        detail = message.get("error_detail")
        if isinstance(detail, list) and detail:
            return {_name(str(one.get("exc_type"))) for one in detail if isinstance(one, dict)}
    return set()


def _name(kind: str) -> str:
    return kind.rpartition(".")[2]
