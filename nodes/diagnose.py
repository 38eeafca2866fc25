"""Names the root cause from evidence, and puts the first plan that policy does not forbid in hand."""

from __future__ import annotations

from langgraph.runtime import Runtime

from graph.state import HealState
from nodes.choosing import choose
from nodes.deps import Deps
from tools.diagnosis import Case
from tools.gathering import gather_context, settled_log


async def diagnose(state: HealState, runtime: Runtime[Deps]) -> HealState:
    """Read the log and the context, name the cause, plan, and ask policy."""
    deps = runtime.context
    failure = state["failure"]
    log = await settled_log(deps.airflow, failure.task, failure.try_number, deps.sleep)
    ready_at = deps.clock()
    context = await gather_context(deps.airflow, failure, tuple(state.get("notes", [])))
    diagnosis = await deps.diagnostician.diagnose(Case(log=log, task=failure, context=context))
    return {
        "log": await deps.archive.put_log(log.text),
        "ready_at": ready_at,
        "diagnosis": diagnosis,
        "rethink": False,
        **await choose(deps, failure=failure, diagnosis=diagnosis, state=state),
    }
