"""The whole flow, top to bottom. Compiled elsewhere, so that everyone brings their own checkpointer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args, get_type_hints

from langchain_core.runnables import Runnable, RunnableConfig
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


class Route(Runnable[HealState, str]):
    """A router as LangGraph runs it in place: a plain function it would hand to a thread and wait for."""

    def __init__(self, router: Callable[[HealState], str]) -> None:
        self._router = router
        self.name = router.__name__

    def invoke(self, input: HealState, config: RunnableConfig | None = None, **_: Any) -> str:
        """The next node."""
        return self._router(input)

    async def ainvoke(self, input: HealState, config: RunnableConfig | None = None, **_: Any) -> str:
        """The same."""
        return self._router(input)

    @property
    def ends(self) -> list[str]:
        """The nodes it may name, as its return type says."""
        return list(_names(get_type_hints(self._router)["return"]))


def _names(hint: Any) -> Iterator[str]:
    for part in get_args(hint):
        if isinstance(part, str):
            yield part
        else:
            yield from _names(part)


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
    routers = {
        "monitor": after_monitor,
        "diagnose": after_diagnose,
        "human": after_human,
        "fix": after_fix,
        "verify": after_verify,
    }
    for name, router in routers.items():
        route = Route(router)
        graph.add_conditional_edges(name, route, route.ends)
    return graph
