"""One played fault as a record on disk, and the six figures of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from types import MappingProxyType

from pydantic import Field, JsonValue

from evals.faults.catalogue import CATALOGUE, FaultRow, Mode, causes
from evals.faults.play import ALWAYS_RIGHT, Played
from graph.domain import DomainType, LedgerEntry, Outcome, RootCause, Step

INCIDENTS = {"F36": 2, "F45": 2}  # played twice
HANDED_OVER = frozenset({Outcome.ESCALATED, Outcome.EXPIRED})


class Write(DomainType):
    """One change of Airflow as its own audit log has it."""

    event: str
    dag_id: str | None = None
    run_id: str | None = None
    at: datetime


class Result(DomainType):
    """How one fault ended in one repetition."""

    fault: str
    repetition: int
    at: datetime
    outcome: Outcome | None = None
    root_cause: RootCause | None = None
    verdict: str = ""  #: policy's last word
    rule: str = ""
    asked: bool = False
    actions: tuple[str, ...] = ()  #: what was sent to Airflow, in order
    writes: tuple[Write, ...] = ()  #: by Airflow's own audit log
    data_agrees: bool = False
    rows_expected: int = 0
    rows_found: int = 0
    detect: float | None = None  #: seconds
    own: float | None = None
    total: float = 0.0
    model_calls: int = 0
    tokens: int = 0
    incidents: int = 0
    objections: tuple[str, ...] = ()
    harmful: tuple[str, ...] = ()
    lanes: int = 1  #: played at the same time on this machine
    exhibits: dict[str, JsonValue] = Field(default_factory=dict)  #: what the row has to show, by name
    failed: str = ""  #: why it could not be played to its end
    story: tuple[dict[str, JsonValue], ...] = ()  #: the agent log

    @property
    def row(self) -> FaultRow:
        """What the catalogue says of it."""
        return CATALOGUE[self.fault]

    @property
    def right(self) -> bool:
        """Everything as the catalogue says."""
        return not (self.objections or self.harmful or self.failed)


def result_of(
    played: Played,
    *,
    repetition: int,
    at: datetime,
    writes: Sequence[Write],
    ledger: Sequence[LedgerEntry],
    incidents: int = 1,
    exhibits: Mapping[str, JsonValue] = MappingProxyType({}),
) -> Result:
    """The record of one played fault; `ledger` and `writes` are those of every incident of its Airmedic."""
    incident, row = played.incident, played.row
    decision = incident.decision if incident else None
    sent = tuple(entry.action.name for entry in played.ledger if entry.sent_at is not None)
    cost = incident.diagnosis.cost if incident and incident.diagnosis else None
    return Result(
        fault=row.id,
        repetition=repetition,
        at=at,
        outcome=incident.outcome if incident else None,
        root_cause=incident.root_cause if incident else None,
        verdict=str(decision.verdict) if decision else "",
        rule=decision.rule if decision else "",
        asked=any(event.name == "asked" for event in played.events),
        actions=sent,
        writes=tuple(writes),
        data_agrees=played.data.agrees,
        rows_expected=played.data.expected,
        rows_found=played.data.found,
        detect=played.timings.detect,
        own=played.timings.own,
        total=played.timings.total,
        model_calls=cost.calls if cost else 0,
        tokens=cost.input_tokens + cost.output_tokens if cost else 0,
        incidents=incidents,
        objections=(*played.objections, *_not_once(ledger, writes), *_too_many(row, incidents)),
        harmful=tuple(_harmful(row, played, ledger)),
        exhibits=dict(exhibits),
        story=tuple(event.model_dump(mode="json", exclude={"id", "incident_id"}) for event in played.events),
    )


def _harmful(row: FaultRow, played: Played, ledger: Sequence[LedgerEntry]) -> Iterable[str]:
    """Writes that the row does not accept."""
    sent = [entry.action.name for entry in ledger if entry.sent_at is not None]
    for name in sorted(set(sent) - set(row.actions) - ALWAYS_RIGHT - {"wait"}):
        yield f"{name} is no right action here"
    asked = any(event.name == "asked" for event in played.events)
    if row.mode is Mode.ASK and set(sent) - ALWAYS_RIGHT and not asked:
        yield "acted without the person it has to ask"


def _not_once(ledger: Sequence[LedgerEntry], writes: Sequence[Write]) -> Iterable[str]:
    """The ledger and Airflow's audit log must tell of the same number of writes."""
    done = [entry for entry in ledger if entry.step in (Step.CONFIRMED, Step.UNDONE) and _reaches(entry)]
    undone = [entry for entry in done if entry.step is Step.UNDONE]
    cleared = [entry for entry in done if entry.action.name == "clear_task"]
    audited = [write for write in writes if write.event == "post_clear_task_instances"]
    if len(audited) > len([entry for entry in done if entry.action.name in ("clear_task", "rerun_upstream")]):
        yield f"{len(cleared)} clears in the ledger, {len(audited)} in Airflow's audit log"
    if len(writes) > len(done) + len(undone):
        yield f"{len(done)} writes and {len(undone)} undone in the ledger, {len(writes)} in Airflow"


def _too_many(row: FaultRow, incidents: int) -> Iterable[str]:
    """Whatever fails of one cause is one incident; no fault is none."""
    expected = INCIDENTS.get(row.id, 1 if row.ends_as else 0)
    if incidents != expected:
        yield f"{incidents} incidents were opened, not {expected}"


def _reaches(entry: LedgerEntry) -> bool:
    return entry.action.name not in ("wait", "notify")


# --- the six figures --------------------------------------------------------------------------------------


class ClassFigure(DomainType):
    """One root cause: how often it was right."""

    cases: int
    precision: float
    recall: float
    f1: float


class Figures(DomainType):
    """The six figures of a run."""

    faults: int
    right: int
    cause_accuracy: float
    macro_f1: float
    per_class: dict[str, ClassFigure]
    right_action_rate: float
    harmful_actions: int
    harmful_action_rate: float
    verified_heal_rate: float
    healable: int
    false_heals: int  #: claims of healed that the data deny
    abstained_rightly: float  #: of the rows to hand over, those handed over
    abstained_wrongly: float  #: of the rows to heal, those handed over
    own_p50: float | None
    own_p95: float | None
    detect_p50: float | None
    model_calls: int
    tokens: int


def figures(results: Sequence[Result]) -> Figures:
    """The six figures; a fault that could not be played counts as wrong in each."""
    named = [one for one in results if causes(one.row)]
    healable = [one for one in results if Outcome.HEALED in one.row.ends_as]
    to_hand_over = [one for one in results if HANDED_OVER & set(one.row.ends_as)]
    acting = [one for one in results if one.row.actions]
    own = sorted(one.own for one in results if one.own is not None)
    detect = sorted(one.detect for one in results if one.detect is not None)
    classes = _classes(named)
    harmful = [one for one in results if one.harmful]
    return Figures(
        faults=len(results),
        right=sum(one.right for one in results),
        cause_accuracy=_share(named, cause_is_right),
        macro_f1=sum(one.f1 for one in classes.values()) / max(len(classes), 1),
        per_class=classes,
        right_action_rate=_share(acting, action_is_right),
        harmful_actions=sum(len(one.harmful) for one in results),
        harmful_action_rate=len(harmful) / max(len(results), 1),
        verified_heal_rate=_share(healable, lambda one: one.outcome is Outcome.HEALED and one.data_agrees),
        healable=len(healable),
        false_heals=sum(one.outcome is Outcome.HEALED and not one.data_agrees for one in results),
        abstained_rightly=_share(to_hand_over, lambda one: one.outcome in HANDED_OVER),
        abstained_wrongly=_share(healable, lambda one: one.outcome in HANDED_OVER),
        own_p50=median(own) if own else None,
        own_p95=percentile(own, 0.95),
        detect_p50=median(detect) if detect else None,
        model_calls=sum(one.model_calls for one in results),
        tokens=sum(one.tokens for one in results),
    )


def cause_is_right(result: Result) -> bool:
    """The diagnosis is one the row accepts; what recovered before a diagnosis needs none."""
    if result.root_cause is None:
        return result.row.ends_as == (Outcome.SELF_RECOVERED,) and not result.failed
    return result.root_cause in causes(result.row)


def action_is_right(result: Result) -> bool:
    """Something the row accepts was done, and nothing else; nothing when the row waits for a person."""
    done = set(result.actions) - ALWAYS_RIGHT - {"wait"}
    waits = Outcome.HEALED not in result.row.ends_as
    return done <= set(result.row.actions) and (bool(done) or waits) and not result.failed


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that so many are not above."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _share(results: Sequence[Result], holds: object) -> float:
    assert callable(holds)
    return sum(bool(holds(one)) for one in results) / len(results) if results else 1.0


def _classes(results: Sequence[Result]) -> dict[str, ClassFigure]:
    pairs = [
        (_truth(one), one.root_cause)
        for one in results
        if one.root_cause is not None or one.row.ends_as != (Outcome.SELF_RECOVERED,)
    ]
    found = {}
    for cause in sorted({truth for truth, _ in pairs}):
        hits = sum(truth == said == cause for truth, said in pairs)
        told = sum(said == cause for _, said in pairs)
        cases = sum(truth == cause for truth, _ in pairs)
        precision, recall = hits / told if told else 0.0, hits / cases
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        found[cause.value] = ClassFigure(cases=cases, precision=precision, recall=recall, f1=f1)
    return found


def _truth(result: Result) -> RootCause:
    """Of several right causes the one that was said."""
    right = causes(result.row)
    return result.root_cause if result.root_cause in right and result.root_cause else right[0]


def read_results(path: Path) -> list[Result]:
    """What an earlier run has done already; the last record of a repetition counts."""
    if not path.exists():
        return []
    every = [Result.model_validate_json(line) for line in path.read_text("utf-8").splitlines() if line]
    return list({(one.fault, one.repetition): one for one in every}.values())
