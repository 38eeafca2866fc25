"""Auto, ask or never: the guards one by one, the rules' matching, and the words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from graph.domain import (
    Action,
    ActionClass,
    BlastRadius,
    DagInfo,
    FixPlan,
    Remediation,
    Role,
    RootCause,
    Verdict,
)
from tests.factories import START, make_clear, make_diagnosis, make_task
from tests.unit.fix_world import SETTINGS, TASK, make_fix, set_contract
from tests.unit.policy_cases import CATALOGUE, DEFAULT, SAFE, decided, make_question, make_retry
from tools.actions import Rerun
from tools.contracts import EditKind, edit_kinds
from tools.policy import PAUSED, Counters, decide, explain, in_words
from tools.policy_file import parse_policy
from tools.policy_rules import Breaker, Hours, Maintenance, Match, Policy, Rule

ALL_AUTO = Policy(version=1, rules=(Rule(name="anything goes", verdict=Verdict.AUTO),))


def edits_of(plan: FixPlan) -> frozenset[EditKind]:
    """What the plan's first action does to the contract."""
    action = plan.actions[0]
    return frozenset(edit_kinds(str(action.target["base"]), str(action.args["value"])))


def tagged(*tags: str) -> DagInfo:
    return DagInfo(dag_id="orders", tags=tags)


def test_a_transient_fault_of_a_safe_task_is_automatic() -> None:
    decision = decided()

    assert decision.verdict is Verdict.AUTO
    assert decision.rule == "transient faults are retried"
    assert decision.policy == DEFAULT.digest


UPSTREAM = Action(
    name="rerun_upstream", target={"dag_id": "feed", "run_id": "r", "tasks": [{"task_id": "publish"}]}
)
AT_NOBODY = make_clear().model_copy(update={"target": {**make_clear().target, "tasks": ["load"]}})
OTHER_TASK = make_fix(make_clear(make_task(task_id="other")))


# Each holds against a policy whose only rule says auto to everything.
@pytest.mark.parametrize(
    ("given", "verdict", "guard"),
    [
        pytest.param({"paused": True}, Verdict.NEVER, "kill switch", id="kill switch"),
        pytest.param({"rejected": (make_retry().id,)}, Verdict.NEVER, "tried plan", id="a rejected plan"),
        pytest.param({"plan": make_fix()}, Verdict.NEVER, "valid plan", id="an empty plan"),
        pytest.param(
            {"plan": make_fix(Action(name="drop_table"))}, Verdict.NEVER, "valid plan", id="unknown action"
        ),
        pytest.param(
            {"plan": make_fix(set_contract('{"password": "***"}'))},
            Verdict.NEVER,
            "valid plan",
            id="a masked value",
        ),
        pytest.param(
            {
                "plan": make_fix(
                    Action(name="set_variable", target={"key": "x", "base": "1"}, args={"value": "2"})
                )
            },
            Verdict.NEVER,
            "valid plan",
            id="a Variable that is no contract",
        ),
        pytest.param({"plan": OTHER_TASK}, Verdict.NEVER, "own target", id="another task's clear"),
        pytest.param(
            {"plan": make_fix(make_clear(make_task(run_id="manual__2")))},
            Verdict.NEVER,
            "own target",
            id="another run's clear",
        ),
        pytest.param(
            {
                "plan": make_fix(make_clear(make_task(run_id="manual__3"))),
                "members": (make_task(run_id="manual__2"),),
            },
            Verdict.NEVER,
            "own target",
            id="a clear of what is no member of the incident",
        ),
        pytest.param(
            {
                "plan": make_fix(AT_NOBODY),
                "members": (make_task(run_id="manual__2"),),
            },
            Verdict.NEVER,
            "valid plan",
            id="a clear whose tasks are not task instances",
        ),
        pytest.param(
            {"diagnosis": make_diagnosis(transient=False)},
            Verdict.NEVER,
            "unchanged retry",
            id="an unchanged retry of what does not pass",
        ),
        pytest.param(
            {"diagnosis": make_diagnosis(transient=False, root_cause=RootCause.EXTERNAL_JOB_FAILED)},
            Verdict.ASK,
            "unchanged retry",
            id="a silent external job",
        ),
        pytest.param(
            {
                "diagnosis": make_diagnosis(transient=False, root_cause=RootCause.AUTHENTICATION_FAILED),
                "plan": make_retry(remediation=Remediation.RENEW_CREDENTIALS),
            },
            Verdict.ASK,
            "unchanged retry",
            id="a retry after a person renewed credentials",
        ),
        pytest.param({"dag": tagged()}, Verdict.ASK, "re-run safety", id="nothing declares it safe"),
        pytest.param(
            {"dag": tagged("airmedic:rerun-safe=other")}, Verdict.ASK, "re-run safety", id="another is safe"
        ),
        pytest.param(
            {"dag": tagged("airmedic:rerun-safe", "airmedic:rerun-unsafe")},
            Verdict.ASK,
            "re-run safety",
            id="unsafe wins over safe",
        ),
        pytest.param(
            {"dag": tagged("airmedic:rerun-safe", "airmedic:rerun-unsafe=load")},
            Verdict.ASK,
            "re-run safety",
            id="the one unsafe task",
        ),
        pytest.param(
            {"reruns": (Rerun(dag_id="orders", task_id="report"),)},
            Verdict.ASK,
            "re-run safety",
            id="a task downstream that ran before",
        ),
        pytest.param(
            {"plan": make_fix(UPSTREAM, make_clear())},
            Verdict.ASK,
            "re-run safety",
            id="another DAG that was not read",
        ),
        pytest.param(
            {"diagnosis": make_diagnosis(root_cause=RootCause.UNKNOWN)},
            Verdict.ASK,
            "unknown cause",
            id="an unknown cause",
        ),
        pytest.param(
            {"diagnosis": make_diagnosis(confidence=0.59)}, Verdict.ASK, "confidence", id="low confidence"
        ),
        pytest.param(
            {"diagnosis": make_diagnosis(disputed=RootCause.CODE_ERROR)},
            Verdict.ASK,
            "disputed cause",
            id="only printed lines speak for the cause",
        ),
        pytest.param(
            {"plan": make_fix(Action(name="set_variable", target={"key": "orders_path", "base": None}))},
            Verdict.ASK,
            "missing value",
            id="a value that a person must give",
        ),
        pytest.param(
            {"counters": Counters(attempts_today=6)}, Verdict.ASK, "budget", id="attempts of the day used up"
        ),
        pytest.param(
            {"counters": Counters(actions_last_hour=60)}, Verdict.ASK, "budget", id="actions of the hour"
        ),
        pytest.param(
            {"counters": Counters(actions_last_hour_dag=20)},
            Verdict.ASK,
            "budget",
            id="actions of the hour on this DAG",
        ),
        pytest.param(
            {"counters": Counters(failed_heals=5, last_failed_heal=START)},
            Verdict.ASK,
            "circuit breaker",
            id="failed heals overall",
        ),
        pytest.param(
            {"counters": Counters(failed_heals_dag=3)},
            Verdict.ASK,
            "circuit breaker",
            id="failed heals of this DAG",
        ),
        pytest.param(
            {"counters": Counters(failed_heals=5, last_failed_heal=START - timedelta(minutes=61), trials=1)},
            Verdict.ASK,
            "circuit breaker",
            id="a heal that is tried after the cooldown",
        ),
    ],
)
def test_a_guard_holds_whatever_the_file_says(given: dict[str, Any], verdict: Verdict, guard: str) -> None:
    decision = decided(ALL_AUTO, **given)

    assert (decision.verdict, decision.rule) == (verdict, guard)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"dag": tagged("airmedic:rerun-safe=load")}, id="this task is declared safe"),
        pytest.param(
            {
                "plan": make_fix(UPSTREAM, make_clear()),
                "reruns": (Rerun(dag_id="feed", task_id="publish", tags=("airmedic:rerun-safe",)),),
            },
            id="the other DAG was read and is safe",
        ),
        pytest.param(
            {"plan": make_fix(set_contract(), make_clear()), "diagnosis": make_diagnosis(transient=False)},
            id="a retry with something changed",
        ),
        pytest.param(
            {"counters": Counters(failed_heals_dag=3, last_failed_heal_dag=START - timedelta(minutes=61))},
            id="the breaker has cooled down",
        ),
        pytest.param(
            {"counters": Counters(failed_heals=4, last_failed_heal=START, trials=9, trials_dag=9)},
            id="heals under way, and the breaker never opened",
        ),
        pytest.param({"counters": Counters(attempts_today=5)}, id="one attempt left"),
    ],
)
def test_no_guard_speaks_when(given: dict[str, Any]) -> None:
    assert decided(ALL_AUTO, **given).verdict is Verdict.AUTO


def test_retries_prove_something_only_when_the_policy_trusts_them() -> None:
    given: dict[str, Any] = {
        "dag": tagged(),
        "reruns": (Rerun(dag_id="orders", task_id="load", retries=2),),
    }
    trusting = ALL_AUTO.model_copy(update={"trust_retries": True})

    assert decided(ALL_AUTO, **given).verdict is Verdict.ASK
    assert decided(trusting, **given).verdict is Verdict.AUTO


def test_a_task_without_retries_proves_nothing_to_a_policy_that_trusts_them() -> None:
    trusting = ALL_AUTO.model_copy(update={"trust_retries": True})
    given: dict[str, Any] = {
        "dag": tagged(),
        "reruns": (Rerun(dag_id="orders", task_id="load", retries=0),),
    }

    assert decided(trusting, **given).rule == "re-run safety"


def test_trusted_retries_do_not_outweigh_a_tag_that_forbids() -> None:
    unsafe = ("airmedic:rerun-unsafe=load",)
    trusting = ALL_AUTO.model_copy(update={"trust_retries": True})
    given: dict[str, Any] = {
        "dag": tagged(*unsafe),
        "reruns": (Rerun(dag_id="orders", task_id="load", tags=unsafe, retries=2),),
    }

    assert decided(trusting, **given).verdict is Verdict.ASK


def test_an_open_breaker_may_forbid() -> None:
    strict = ALL_AUTO.model_copy(update={"breaker": Breaker(verdict=Verdict.NEVER)})

    assert decided(strict, counters=Counters(failed_heals=5)).verdict is Verdict.NEVER


def test_maintenance_holds_for_its_dags_in_its_hours() -> None:
    night = Hours.model_validate({"from": "22:00", "to": "04:00"})
    window = Maintenance(name="backup", hours=night, dag=("ord*",), verdict=Verdict.NEVER)
    policy = ALL_AUTO.model_copy(update={"maintenance": (window,)})

    assert decided(policy, now=START).rule == "maintenance window"
    assert decided(policy, now=START.replace(hour=12)).verdict is Verdict.AUTO
    elsewhere = policy.model_copy(
        update={"maintenance": (window.model_copy(update={"dag": ("finance_*",)}),)}
    )
    assert decided(elsewhere, now=START).verdict is Verdict.AUTO


def test_shadow_decides_and_says_so() -> None:
    decision = decided(shadow=True)

    assert decision.verdict is Verdict.AUTO
    assert decision.shadow


# --- rules ------------------------------------------------------------------------------------------------


def rules(*several: Rule) -> Policy:
    return Policy(version=1, rules=several)


def only(**match: Any) -> Policy:
    return rules(Rule(name="this", match=Match.model_validate(match), verdict=Verdict.AUTO))


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ({"cause": "network_unreachable"}, True),
        ({"cause": ["timeout", "network_unreachable"]}, True),
        ({"cause": "timeout"}, False),
        ({"transient": True}, True),
        ({"transient": False}, False),
        ({"remediation": "retry"}, True),
        ({"remediation": "raise_limit"}, False),
        ({"action": ["wait", "clear_task"]}, True),
        ({"action": ["clear_task"]}, False),
        ({"kind": "irreversible"}, True),
        ({"kind": "reversible"}, False),
        ({"contract_edit": "rename"}, False),
        ({"dag": "ord*"}, True),
        ({"dag": "finance_*"}, False),
        ({"tag": "airmedic:*"}, True),
        ({"tag": "team:*"}, False),
        ({"owner": "ada"}, True),
        ({"owner": "bob"}, False),
        ({"environment": "production"}, True),
        ({"environment": ["staging"]}, False),
        ({"hours": {"from": "02:00", "to": "04:00"}}, True),
        ({"hours": {"from": "04:00", "to": "02:00"}}, False),
        ({"hours": {"days": ["sun"]}}, True),
        ({"hours": {"days": ["mon", "tue"]}}, False),
        ({"confidence_at_least": 0.9}, True),
        ({"confidence_at_least": 0.99}, False),
        ({"radius_at_most": {"task_instances": 2}}, True),
        ({"radius_at_most": {"task_instances": 1}}, False),
        ({"cause": "network_unreachable", "dag": "finance_*"}, False),
    ],
    ids=str,
)
def test_a_rule_matches(match: dict[str, Any], holds: bool) -> None:
    assert (decided(only(**match)).verdict is Verdict.AUTO) is holds


def test_contract_edits_match_by_what_they_do() -> None:
    given: dict[str, Any] = {
        "plan": make_fix(set_contract(), make_clear()),
        "diagnosis": make_diagnosis(transient=False, root_cause=RootCause.SCHEMA_DRIFT),
    }

    assert decided(only(contract_edit=["add_optional", "cast"]), **given).verdict is Verdict.AUTO
    assert decided(only(contract_edit=["cast"]), **given).verdict is Verdict.ASK


def test_the_edits_may_be_all_that_a_rule_names() -> None:
    plan = make_fix(set_contract(), make_clear())
    edits = sorted(edit.value for edit in edits_of(plan))
    given: dict[str, Any] = {
        "plan": plan,
        "diagnosis": make_diagnosis(transient=False, root_cause=RootCause.SCHEMA_DRIFT),
    }

    assert decided(only(contract_edit=edits), **given).verdict is Verdict.AUTO


def test_the_first_rule_that_matches_decides() -> None:
    never = Rule(name="not this DAG", match=Match(dag=("orders",)), verdict=Verdict.NEVER)
    anything = Rule(name="anything", verdict=Verdict.AUTO)

    assert decided(rules(never, anything)).rule == "not this DAG"
    assert decided(rules(anything, never)).verdict is Verdict.AUTO


def test_without_a_rule_a_person_is_asked() -> None:
    assert decided(rules()).rule == "otherwise"


def test_beyond_its_caps_a_rule_asks() -> None:
    decision = decided(radius=BlastRadius(task_instances=1001, dag_runs=1, dags=1))

    assert decision.verdict is Verdict.ASK
    assert "1001 task instances (at most 1000)" in decision.reasons[0]


def test_a_rule_names_who_may_approve() -> None:
    admins = Rule(name="admins", verdict=Verdict.ASK, approvers=Role.ADMIN)

    assert decided(rules(admins)).approvers is Role.ADMIN


def test_a_rule_may_go_by_class() -> None:
    policy = only(kind=[ActionClass.REVERSIBLE.value])

    assert decided(policy, plan=make_fix(SETTINGS["pool"])).verdict is Verdict.AUTO
    assert decided(policy, plan=make_fix(SETTINGS["pool"], make_clear(TASK))).verdict is Verdict.ASK


@pytest.mark.parametrize(
    ("hours", "moment", "inside"),
    [
        ({"from": "22:00", "to": "06:00", "days": ["fri"]}, datetime(2026, 3, 6, 23, tzinfo=UTC), True),
        ({"from": "22:00", "to": "06:00", "days": ["fri"]}, datetime(2026, 3, 7, 5, tzinfo=UTC), True),
        ({"from": "22:00", "to": "06:00", "days": ["fri"]}, datetime(2026, 3, 6, 5, tzinfo=UTC), False),
        ({"from": "22:00", "to": "06:00", "days": ["fri"]}, datetime(2026, 3, 7, 6, tzinfo=UTC), False),
        ({"from": "09:00", "to": "10:00", "timezone": "Asia/Tokyo"}, START.replace(hour=0), True),
        ({"from": "09:00", "to": "10:00"}, datetime(2026, 3, 2, 9, tzinfo=UTC), True),
        ({"from": "09:00", "to": "10:00"}, datetime(2026, 3, 2, 10, tzinfo=UTC), False),
        ({"from": "09:00", "to": "10:00"}, datetime(2026, 3, 2, 8, 59, tzinfo=UTC), False),
        ({"from": "09:00", "to": "10:00"}, datetime(2026, 3, 2, 23, tzinfo=UTC), False),
        ({"from": "22:00", "to": "06:00", "days": ["fri"]}, datetime(2026, 3, 6, 22, tzinfo=UTC), True),
        ({"from": "07:00", "to": "07:00", "days": ["mon"]}, datetime(2026, 3, 2, 6, tzinfo=UTC), True),
        ({"from": "07:00", "to": "07:00", "days": ["mon"]}, datetime(2026, 3, 3, 6, tzinfo=UTC), False),
        ({"days": ["sun"]}, datetime(2026, 3, 1, 0, tzinfo=UTC), True),
        ({"days": ["sun"]}, datetime(2026, 3, 2, 0, tzinfo=UTC), False),
    ],
)
def test_hours_hold_from_their_start_to_before_their_end(
    hours: dict[str, Any], moment: datetime, inside: bool
) -> None:
    assert Hours.model_validate(hours).contains(moment) is inside


# --- words ------------------------------------------------------------------------------------------------


def test_a_rule_that_gives_no_reason_is_named_as_the_reason() -> None:
    named = Rule(name="nights", verdict=Verdict.ASK)

    assert decided(rules(named)).reasons == ("rule 'nights' says ask",)
    assert decided(rules(named.model_copy(update={"reason": "too late"}))).reasons == ("too late",)


def test_a_policy_is_told_in_words() -> None:
    text = """
version: 1
trust_retries: true
maintenance: [{name: backup, hours: {from: "22:00", to: "04:00"}, dag: ["ord*"], verdict: never}]
rules:
  - {name: small, verdict: auto, match: {cause: timeout, confidence_at_least: 0.9}, caps: {dag_runs: 2}}
  - {name: the rest, verdict: ask, approvers: admin}
"""
    told = in_words(parse_policy(text, "p.yaml"))

    assert "declared retries prove that a task is safe to run again" in told
    assert "maintenance 'backup', every day 22:00 to 04:00 UTC, DAGs ord*: never" in told
    assert "1. small: auto when cause timeout; confidence_at_least 0.9, up to 2 dag runs" in told
    assert "2. the rest: ask (admin approves) when always" in told
    assert "declared retries do not prove that a task is safe to run again" in in_words(ALL_AUTO)


def test_some_days_are_told_by_name() -> None:
    hours = Hours.model_validate({"days": ["fri", "sat"], "timezone": "Asia/Tokyo"})

    assert str(hours) == "fri, sat 00:00 to 00:00 Asia/Tokyo"


def test_an_explanation_names_rule_policy_and_reasons() -> None:
    words = explain(decided(dag=tagged(), counters=Counters(attempts_today=6)))

    assert words.startswith(f"ask, decided by 're-run safety' of policy {DEFAULT.digest}")
    assert "at least operator may approve" in words
    assert "nothing declares orders.load safe to run again" in words
    assert "6 attempts at this task in a day already (at most 6)" in words


def test_the_digest_changes_with_the_policy() -> None:
    assert DEFAULT.digest != DEFAULT.model_copy(update={"trust_retries": True}).digest


def test_a_malformed_base_contract_is_no_reason_to_fall_over() -> None:
    action = set_contract().model_copy(update={"target": {"key": "airmedic_contract_x", "base": "not JSON"}})

    assert decided(plan=make_fix(action)).verdict is Verdict.ASK


def test_deciding_twice_gives_the_same() -> None:
    question = make_question(dag=SAFE)

    assert decide(question, DEFAULT, CATALOGUE) == decide(question, DEFAULT, CATALOGUE)


def test_a_rule_in_a_file_cannot_loosen_a_guard() -> None:
    policy = parse_policy("version: 1\nrules: [{name: all, verdict: auto}]", "p.yaml")

    assert decided(policy, diagnosis=make_diagnosis(transient=False)).verdict is Verdict.NEVER


@pytest.mark.parametrize(
    ("actions", "verdict"),
    [
        pytest.param((make_clear(),), Verdict.ASK, id="what is cleared would start at any time"),
        pytest.param(
            (Action(name="unpause_dag", target={"dag_id": "orders"}), make_clear()),
            Verdict.AUTO,
            id="the plan lets it go again itself",
        ),
        pytest.param((Action(name="notify", args={"message": "look"}),), Verdict.AUTO, id="nothing runs"),
    ],
)
def test_a_paused_dag_is_a_persons(actions: tuple[Action, ...], verdict: Verdict) -> None:
    policy = Policy(version=1, rules=(Rule(name="all", verdict=Verdict.AUTO),))
    dag = SAFE.model_copy(update={"is_paused": True})

    made = decided(policy, dag=dag, plan=make_retry(actions=actions))

    assert made.verdict is verdict
    assert (f"the DAG {PAUSED}" in made.reasons) is (verdict is Verdict.ASK)


FEED = make_retry(actions=(UPSTREAM, make_clear()))


def test_another_dag_that_is_paused_is_a_persons_too() -> None:
    again = Rerun(dag_id="feed", task_id="publish", tags=("airmedic:rerun-safe",), is_paused=True)

    made = decided(ALL_AUTO, plan=FEED, reruns=(again,))

    assert made.verdict is Verdict.ASK
    assert made.reasons == (f"DAG 'feed' {PAUSED}",)


def test_a_window_holds_for_every_dag_that_the_plan_touches() -> None:
    window = Maintenance(name="month end", hours=Hours(), dag=("fe*",), verdict=Verdict.NEVER)
    policy = ALL_AUTO.model_copy(update={"maintenance": (window,)})
    again = Rerun(dag_id="feed", task_id="publish", tags=("airmedic:rerun-safe",))

    assert decided(policy, plan=FEED, reruns=(again,)).rule == "maintenance window"
    assert decided(policy).verdict is Verdict.AUTO
