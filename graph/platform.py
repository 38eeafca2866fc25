"""The compiled graph without a checkpointer, for LangGraph's own tools (`langgraph.json`)."""

from __future__ import annotations

from graph.builder import build_graph

graph = build_graph().compile(name="airmedic")
