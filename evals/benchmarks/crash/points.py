"""The places where a promise changes hands, and what a process under test does there: note it, die, or stop.

The product knows nothing of this: the functions are wrapped by name in the harness's own processes.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from evals.benchmarks.crash.history import CLAIM, SENT, WRITE
from graph.domain import Step

Fits = Callable[[tuple[Any, ...], dict[str, Any]], bool]


def _always(_args: tuple[Any, ...], _given: dict[str, Any]) -> bool:
    return True


def _moves_to(step: Step) -> Fits:
    def fits(args: tuple[Any, ...], _given: dict[str, Any]) -> bool:
        return args[2] is step and args[1].action.name not in {"wait", "notify"}

    return fits


def _in_earnest(_args: tuple[Any, ...], given: dict[str, Any]) -> bool:
    return given.get("dry_run") is False


def _a_write(args: tuple[Any, ...], _given: dict[str, Any]) -> bool:
    return bool(args[1].write)


@dataclass(frozen=True)
class Place:
    """A function of the product; `<name> …` and `… <name>` are the two points at its ends."""

    name: str
    module: str
    path: str
    fits: Fits = _always
    ends: tuple[str, ...] = ("before", "after")


PLACES = (
    Place("intake", "server.store", "IncidentStore.accept"),
    Place("opening", "server.store", "IncidentStore.open_incident"),
    Place("claim", "server.driving", "StoreDriving.claim_due"),
    Place("take up", "graph.checkpoint", "CarriedSaver.take_up"),
    Place("resume", "server.runner", "Runner._next_input"),
    Place("intent", "server.ledger", "StoreLedger.intend"),
    Place("sent", "server.ledger", "StoreLedger.advance", _moves_to(Step.SENT)),
    Place("request", "tools.airflow_rest", "AirflowRest.clear", _in_earnest),
    Place("answer", "tools.airflow_line", "Line.answered", _a_write),
    Place("read back", "tools.actions.running", "Clearing.confirm"),
    Place("confirmed", "server.ledger", "StoreLedger.advance", _moves_to(Step.CONFIRMED)),
    Place("transaction", "server.driving", "StoreDriving.write_found"),
    Place("commit", "server.db.group_writer", "GroupWriter._write"),
    Place("settle", "server.draft", "Draft.settle"),
    Place("suspend", "nodes.waiting", "interrupt", ends=("before",)),
    Place("wake", "server.store", "IncidentStore.wake"),
    Place("decision", "server.store", "IncidentStore.answer"),
)


def labels() -> tuple[str, ...]:
    """Every labelled point."""
    return tuple(f"{end} {place.name}" for place in PLACES for end in place.ends)


@dataclass
class Plan:
    """What this process does at which point."""

    at: str = ""  #: a label
    signal: int = signal.SIGKILL
    after: int = 0  #: how often the point is passed unharmed
    then: list[str] = field(default_factory=list)  #: the points after it, for who survives the signal
    tell: Callable[[str], None] = field(default=lambda _label: None)
    history: int = -1  #: file descriptor, opened to append

    def reach(self, label: str) -> None:
        """The point is reached: the end, or not yet."""
        if label != self.at:
            return
        if self.after:
            self.after -= 1
            return
        self.at = self.then.pop(0) if self.then else ""
        self.tell(label)
        os.kill(os.getpid(), self.signal)

    def note(self, kind: str, lease: Any, begin: float, key: str = "") -> None:
        """Write an operation down that succeeded, at once: whoever dies has said it before."""
        line = {"kind": kind, "incident": lease.incident_id, "epoch": lease.epoch, "begin": begin}
        os.write(self.history, (json.dumps(line | {"end": time.monotonic(), "key": key}) + "\n").encode())


def install(plan: Plan) -> None:
    """Wrap every place, once in the life of a process."""
    for place in PLACES:
        owner, name, function = find(place)
        setattr(owner, name, _wrapped(function, place, plan))
    _install_history(plan)


def find(place: Place) -> tuple[Any, str, Callable[..., Any]]:
    """Owner, name and function of a place."""
    owner: Any = importlib.import_module(place.module)
    *outer, name = place.path.split(".")
    for one in outer:
        owner = getattr(owner, one)
    function: Callable[..., Any] = getattr(owner, name)
    return owner, name, function


def _wrapped(function: Callable[..., Any], place: Place, plan: Plan) -> Callable[..., Any]:
    before, after = f"before {place.name}", f"after {place.name}"

    @wraps(function)
    async def waiting(*args: Any, **given: Any) -> Any:
        if not place.fits(args, given):
            return await function(*args, **given)
        plan.reach(before)
        result = await function(*args, **given)
        plan.reach(after)
        return result

    @wraps(function)
    def plain(*args: Any, **given: Any) -> Any:
        if not place.fits(args, given):
            return function(*args, **given)
        plan.reach(before)
        result = function(*args, **given)
        plan.reach(after)
        return result

    return waiting if inspect.iscoroutinefunction(function) else plain


def _install_history(plan: Plan) -> None:
    from server.draft import Draft
    from server.driving import StoreDriving
    from server.ledger import StoreLedger

    claim, flush, record = StoreDriving.claim_due, Draft.flush, StoreDriving.record

    async def claimed(self: Any, **given: Any) -> Any:
        begin = time.monotonic()
        leases = await claim(self, **given)
        for lease in leases:
            plan.note(CLAIM, lease, begin)
        return leases

    async def flushed(self: Any, **given: Any) -> None:
        begin = time.monotonic()
        await flush(self, **given)
        plan.note(WRITE, self.lease, begin)
        for ledger in [part for part in self.parts if isinstance(part, StoreLedger)]:
            for line in ledger._lines.values():
                if line.stored is Step.SENT:
                    plan.note(SENT, self.lease, begin, line.entry.key)

    async def recorded(self: Any, lease: Any, **given: Any) -> None:
        begin = time.monotonic()
        await record(self, lease, **given)
        plan.note(WRITE, lease, begin)

    for owner, name, function in (
        (StoreDriving, "claim_due", claimed),
        (Draft, "flush", flushed),
        (StoreDriving, "record", recorded),
    ):
        setattr(owner, name, function)
