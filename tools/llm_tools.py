"""What a language model may look at. Every tool reads, and none takes a target from the model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graph.errors import AirmedicError
from tools.diagnosis import Case
from tools.llm_prompt import estimate_tokens, fenced, inert
from tools.redaction import redact

READ_LOG = "read_log"
MOST_LINES = 40  # of one reading


@dataclass(frozen=True)
class ReadOnlyTool:
    """One thing a caller lets the model look at: the DAG's source, the task's history, a connection's test.

    `read` gets the case, so the target is always the incident's own; the model passes no arguments.
    """

    name: str
    description: str
    read: Callable[[Case], Awaitable[str]]


class _LogRange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    first: int = Field(ge=1)
    last: int = Field(ge=1)


class Toolbox:
    """The tools of one incident. `shown` grows by the log lines that were read: they may be cited then."""

    def __init__(self, case: Case, log: str, shown: dict[int, str], tools: tuple[ReadOnlyTool, ...]) -> None:
        self._case = case
        self._lines = log.split("\n")
        self.shown = shown
        self._tools = {tool.name: tool for tool in tools}

    def specs(self) -> list[dict[str, object]]:
        """Their descriptions, in the form the endpoint wants."""
        whole = {"type": "integer"}
        read_log = _spec(
            READ_LOG,
            f"Log lines first..last (at most {MOST_LINES}; the log has {len(self._lines)})",
            {"first": whole, "last": whole},
        )
        return [read_log, *(_spec(tool.name, tool.description, {}) for tool in self._tools.values())]

    async def run(self, name: str, args: Mapping[str, Any], budget: int) -> str:
        """What a tool says, redacted and cut to the tokens that are left; an unknown tool says so."""
        if name == READ_LOG:
            return self._read_log(args, budget)
        tool = self._tools.get(name)
        if tool is None:
            return f"there is no tool {name[:40]!r}"
        if args:
            return f"{name} takes no arguments: it reads this incident's own task"
        try:
            text = redact(await tool.read(self._case))
        except AirmedicError as exc:
            return f"{name} is not available now: {type(exc).__name__}"
        return "<<<\n" + _fitting(text, budget) + "\n>>>"

    def _read_log(self, args: Mapping[str, Any], budget: int) -> str:
        try:
            wanted = _LogRange.model_validate(dict(args))
        except ValidationError:
            return "read_log needs two line numbers: first and last"
        last = min(wanted.last, wanted.first + MOST_LINES - 1, len(self._lines))
        lines: dict[int, str] = {}
        for number in range(wanted.first, last + 1):
            budget -= estimate_tokens(inert(self._lines[number - 1])) + 4
            if budget < 0:
                break
            lines[number] = self._lines[number - 1]
        self.shown.update(lines)
        return "<<<\n" + fenced(lines) + "\n>>>" if lines else "no such lines"


def _spec(name: str, description: str, properties: dict[str, object]) -> dict[str, object]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    # The client insists on strict tools beside a schema for the answer.
    function = {"name": name, "description": description, "strict": True, "parameters": parameters}
    return {"type": "function", "function": function}


def _fitting(text: str, budget: int) -> str:
    """The last lines that fit: errors stand at the end."""
    kept: list[str] = []
    for line in map(inert, reversed(text.split("\n"))):
        budget -= estimate_tokens(line) + 1
        if budget < 0:
            break
        kept.append(line)
    return "\n".join(reversed(kept))
