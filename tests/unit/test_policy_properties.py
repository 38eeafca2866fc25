"""What must hold for every question and every policy file."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from graph.domain import (
    Action,
    BlastRadius,
    CodeLocation,
    DagInfo,
    DiagnosedBy,
    Diagnosis,
    EvidenceLine,
    Facts,
    FixPlan,
    Remediation,
    RootCause,
    RuledOut,
    Verdict,
)
from tests.factories import START, make_clear, make_diagnosis, make_task
from tests.unit.fix_world import SETTINGS, clear, make_fix
from tests.unit.policy_cases import CATALOGUE, DEFAULT, make_question
from tools.policy import STRICTNESS, Counters, Question, decide
from tools.policy_rules import Caps, Match, Policy, Rule

TAGS = ["airmedic:rerun-safe", "airmedic:rerun-safe=load", "airmedic:rerun-unsafe", "team:a"]
WAIT = Action(name="wait", args={"seconds": 20})
PLANS = st.builds(
    lambda remediation, settings, again: FixPlan(
        remediation=remediation,
        actions=(*(SETTINGS[name] for name in settings), *again),
        summary="a plan",
    ),
    st.sampled_from(Remediation),
    st.lists(st.sampled_from(sorted(SETTINGS)), max_size=2, unique=True),
    st.sampled_from([(), (clear(),)]),
)
DIAGNOSES = st.builds(
    lambda cause, transient, confidence, remediation: make_diagnosis(
        root_cause=cause, transient=transient, confidence=confidence, remediation=remediation
    ),
    st.sampled_from(RootCause),
    st.booleans(),
    st.floats(0, 1),
    st.sampled_from(Remediation),
)
COUNTERS = st.builds(
    Counters,
    attempts_today=st.integers(0, 5),
    actions_last_hour=st.integers(0, 80),
    actions_last_hour_dag=st.integers(0, 30),
    failed_heals=st.integers(0, 7),
    failed_heals_dag=st.integers(0, 5),
    trials=st.integers(0, 2),
    trials_dag=st.integers(0, 2),
)
RADII = st.builds(
    BlastRadius,
    task_instances=st.integers(0, 2000),
    dag_runs=st.integers(0, 3),
    dags=st.integers(0, 3),
    settings=st.integers(0, 3),
)
QUESTIONS = st.builds(
    lambda **fields: make_question(**fields),
    diagnosis=DIAGNOSES,
    plan=PLANS,
    dag=st.lists(st.sampled_from(TAGS), unique=True).map(
        lambda tags: DagInfo(dag_id="orders", tags=tuple(tags))
    ),
    radius=RADII,
    counters=COUNTERS,
    paused=st.booleans(),
    shadow=st.booleans(),
)
# Rules that match on anything a file may match on but the narrowing by size or hour.
RULES = st.builds(
    lambda number, verdict, cause, remediation, transient, cap: Rule(
        name=f"rule {number}",
        verdict=verdict,
        match=Match(cause=cause, remediation=remediation, transient=transient),
        caps=Caps(task_instances=cap),
    ),
    st.uuids(),
    st.sampled_from(Verdict),
    st.none() | st.lists(st.sampled_from(RootCause), min_size=1, max_size=5).map(tuple),
    st.none() | st.lists(st.sampled_from(Remediation), min_size=1, max_size=5).map(tuple),
    st.none() | st.booleans(),
    st.none() | st.integers(0, 100),
)
POLICIES = st.just(DEFAULT) | st.builds(
    lambda rules, trust, least: Policy(
        version=1, rules=tuple(rules), trust_retries=trust, ask_below_confidence=least
    ),
    st.lists(RULES, max_size=4),
    st.booleans(),
    st.floats(0, 1),
)
TEXT = st.text(max_size=40)


def strictness(question: Question, policy: Policy) -> int:
    return STRICTNESS[decide(question, policy, CATALOGUE).verdict]


@st.composite
def said_differently(draw: st.DrawFn, diagnosis: Diagnosis) -> Diagnosis:
    """The same cause with any words, evidence, facts and wishes around it."""
    facts = Facts(
        retry_after=draw(st.none() | st.floats(0, 1e6)),
        host=draw(st.none() | TEXT),
        conn_id=draw(st.none() | TEXT),
        variable=draw(st.none() | TEXT),
        pool=draw(st.none() | TEXT),
    )
    return diagnosis.model_copy(
        update={
            "summary": draw(TEXT),
            "evidence": (EvidenceLine(line=1, text=draw(TEXT)),),
            "ruled_out": (RuledOut(root_cause=draw(st.sampled_from(RootCause)), why=draw(TEXT)),),
            "alternatives": tuple(draw(st.lists(st.sampled_from(Remediation), max_size=3))),
            "remediation": draw(st.sampled_from(Remediation)),
            "by": draw(st.sampled_from(DiagnosedBy)),
            "location": CodeLocation(file=draw(TEXT), line=1),
            "facts": facts,
            "signature": draw(TEXT),
        }
    )


@settings(max_examples=200, deadline=None)
@given(question=QUESTIONS, policy=POLICIES, data=st.data())
def test_words_of_a_log_or_a_model_never_move_the_verdict(
    question: Question, policy: Policy, data: st.DataObject
) -> None:
    other = data.draw(said_differently(question.diagnosis))
    plan = question.plan.model_copy(update={"summary": data.draw(TEXT), "diff": data.draw(TEXT)})

    changed = question.model_copy(update={"diagnosis": other, "plan": plan})

    assert decide(changed, policy, CATALOGUE) == decide(question, policy, CATALOGUE)


def _stricter(question: Question) -> st.SearchStrategy[dict[str, Any]]:
    """Changes that can only be reasons for more care."""
    more = question.counters.model_copy(
        update={"attempts_today": 9, "actions_last_hour": 99, "failed_heals": 9, "failed_heals_dag": 9}
    )
    unsafe = question.dag.model_copy(update={"tags": (*question.dag.tags, "airmedic:rerun-unsafe")})
    undeclared = question.dag.model_copy(update={"tags": ()})
    unsure = question.diagnosis.model_copy(update={"confidence": question.diagnosis.confidence / 2})
    larger = question.radius.model_copy(
        update={name: count + 1 for name, count in question.radius.model_dump().items()}
    )
    return st.sampled_from(
        [
            {"paused": True},
            {"counters": more},
            {"dag": unsafe},
            {"dag": undeclared},
            {"diagnosis": unsure},
            {"radius": larger},
            {"rejected": (question.plan.id,)},
        ]
    )


@settings(max_examples=300, deadline=None)
@given(question=QUESTIONS, policy=POLICIES, data=st.data())
def test_a_reason_for_more_care_never_loosens(
    question: Question, policy: Policy, data: st.DataObject
) -> None:
    careful = question.model_copy(update=data.draw(_stricter(question)))

    assert strictness(careful, policy) >= strictness(question, policy)


@settings(max_examples=200, deadline=None)
@given(question=QUESTIONS, policy=POLICIES)
def test_a_cause_that_does_not_pass_is_never_retried_unchanged(question: Question, policy: Policy) -> None:
    lasting = question.diagnosis.model_copy(update={"transient": False})
    retry = FixPlan(remediation=Remediation.RETRY, actions=(WAIT, clear()), summary="retry")

    decision = decide(question.model_copy(update={"diagnosis": lasting, "plan": retry}), policy, CATALOGUE)

    if lasting.root_cause is RootCause.EXTERNAL_JOB_FAILED:
        assert decision.verdict is not Verdict.AUTO
    else:
        assert decision.verdict is Verdict.NEVER


@settings(max_examples=200, deadline=None)
@given(question=QUESTIONS, policy=POLICIES)
def test_nothing_runs_by_itself_that_must_not(question: Question, policy: Policy) -> None:
    """The list of things that no file allows."""
    decision = decide(question, policy, CATALOGUE)
    safe = {"airmedic:rerun-safe", "airmedic:rerun-safe=load"} & set(question.dag.tags)
    clears = any(action.name == "clear_task" for action in question.plan.actions)
    if decision.verdict is Verdict.AUTO:
        assert not question.paused
        assert question.diagnosis.root_cause is not RootCause.UNKNOWN
        assert question.diagnosis.confidence >= policy.ask_below_confidence
        assert not clears or (safe and "airmedic:rerun-unsafe" not in question.dag.tags)
        assert question.counters.attempts_today < policy.limits.attempts_per_task_per_day
        assert question.plan.actions


@settings(max_examples=100, deadline=None)
@given(
    question=QUESTIONS,
    policy=POLICIES,
    name=st.text(min_size=1, max_size=20).filter(lambda name: name not in CATALOGUE.names),
)
def test_an_action_that_nobody_knows_is_never_allowed(question: Question, policy: Policy, name: str) -> None:
    strange = make_fix(*question.plan.actions, Action(name=name))

    assert decide(question.model_copy(update={"plan": strange}), policy, CATALOGUE).verdict is Verdict.NEVER


@settings(max_examples=100, deadline=None)
@given(
    question=QUESTIONS,
    policy=POLICIES,
    target=st.fixed_dictionaries(
        {
            "dag_id": st.sampled_from(["orders", "finance"]),
            "run_id": st.sampled_from(["manual__1", "manual__2"]),
            "task_id": st.sampled_from(["load", "report"]),
        }
    ),
)
def test_a_clear_of_anything_but_the_failed_task_is_never_allowed(
    question: Question, policy: Policy, target: dict[str, str]
) -> None:
    ref = make_task(**target)
    plan = make_fix(make_clear(ref))

    decision = decide(question.model_copy(update={"plan": plan, "now": START}), policy, CATALOGUE)

    if ref != question.task.task:
        assert decision.verdict is Verdict.NEVER
