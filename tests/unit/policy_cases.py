"""Questions for the policy's tests: an incident of the DAG `orders`, with everything filled in."""

from __future__ import annotations

from typing import Any

from graph.domain import Action, BlastRadius, DagInfo, Decision, FixPlan, Remediation
from tests.factories import START, make_clear, make_diagnosis, make_snapshot
from tools.actions import ActionCatalogue
from tools.policy import Policy, Question, decide
from tools.policy_file import load_policy

CATALOGUE = ActionCatalogue.default(plugins=())
DEFAULT = load_policy(None, catalogue=CATALOGUE)
SAFE = DagInfo(dag_id="orders", tags=("airmedic:rerun-safe",), owners=("ada",))


def make_retry(**given: Any) -> FixPlan:
    wait = Action(name="wait", args={"seconds": 20})
    fields = {"remediation": Remediation.RETRY, "actions": (wait, make_clear()), "summary": "retry"}
    return FixPlan(**{**fields, **given})


def make_question(**given: Any) -> Question:
    """A transient fault, a task declared safe to run again, nothing done before."""
    fields = {
        "diagnosis": make_diagnosis(),
        "plan": make_retry(),
        "task": make_snapshot(),
        "dag": SAFE,
        "radius": BlastRadius(task_instances=2, dag_runs=1, dags=1),
        "now": START,
    }
    return Question(**{**fields, **given})


def decided(policy: Policy = DEFAULT, **given: Any) -> Decision:
    return decide(make_question(**given), policy, CATALOGUE)
