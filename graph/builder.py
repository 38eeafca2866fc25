"""The whole flow, top to bottom. Compiled elsewhere, so that everyone brings their own checkpointer."""

from __future__ import annotations

from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy

from graph.errors import AirmedicError
from graph.routing import after_diagnose, after_fix, after_human, after_monitor, after_verify
from graph.state import HealState
from nodes.deps import Deps
from nodes.diagnose import diagnose
from nodes.fix import fix
from nodes.human import human
from nodes.monitor import monitor
from nodes.verify import verify


def is_retryable(error: Exception) -> bool:
    """Whether running the node again at once can help; longer outages are the runner's business."""
    return isinstance(error, AirmedicError) and error.retryable


def build_graph() -> StateGraph[HealState, Deps, HealState, HealState]:
    """monitor → diagnose → (human →) fix → verify, with the ways back."""
    again = RetryPolicy(initial_interval=0.5, max_attempts=3, retry_on=is_retryable)
    graph = StateGraph(HealState, context_schema=Deps)
    graph.add_node("monitor", monitor, retry_policy=again)
    graph.add_node("diagnose", diagnose, retry_policy=again)
    graph.add_node("human", human, retry_policy=again)
    graph.add_node("fix", fix, retry_policy=again)
    graph.add_node("verify", verify, retry_policy=again)
    graph.add_edge(START, "monitor")
    graph.add_conditional_edges("monitor", after_monitor)
    graph.add_conditional_edges("diagnose", after_diagnose)
    graph.add_conditional_edges("human", after_human)
    graph.add_conditional_edges("fix", after_fix)
    graph.add_conditional_edges("verify", after_verify)
    return graph
