"""What an error says of its cause, read once: an event's own text at intake, the log at diagnosis."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from graph.domain import DiagnosedBy, Diagnosis, RootCause, TaskLog
from tools.aside import aside
from tools.correlation import KIN, Cause, cause_of, kernel, names_one, resource_of
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase

SURE = 0.6  # least confidence of a cause that takes other tasks in
TEXTS = 4096  # errors that are remembered, and as many templates

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The values of the last few keys, so that what comes again and again is worked out once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of this key, made when it is not known."""
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        value = self._known[key] = make()
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return value


class ReadOnce:
    """The knowledge base as a `Diagnostician` that reads one case once, whoever asks about it."""

    def __init__(self, knowledge: KnowledgeBase) -> None:
        self.knowledge = knowledge
        self._read: dict[int, Diagnosis] = {}  # by identity, as long as the case lives

    async def diagnose(self, case: Case) -> Diagnosis:
        """Name the cause."""
        known = self._read.get(id(case))
        if known is None:
            known = await aside(lambda: self.knowledge.diagnose(case), size=len(case.log.text))
            self._read[id(case)] = known
            weakref.finalize(case, self._read.pop, id(case), None)
        return known


class CauseLook:
    """Knowledge's quick look at one error. Never a model, never a request."""

    def __init__(self, reader: ReadOnce, *, loopback: bool = False) -> None:
        self._reader = reader
        self._loopback = loopback
        self._texts: Recent[tuple[str, str], Cause | None] = Recent(TEXTS)
        self._kernels: Recent[str, Diagnosis] = Recent(TEXTS)

    def of_error(self, airflow: str, error: str) -> Cause | None:
        """The cause that an event's own text names; None when it may not take in other tasks."""
        if not error:
            return None
        return self._texts.get((airflow, error), lambda: self._of_error(airflow, error))

    def _of_error(self, airflow: str, error: str) -> Cause | None:
        if not names_one(error, loopback=self._loopback):
            return None  # whatever its cause is
        found = self._kernels.get(kernel(error), lambda: self._quick(error))
        return self._of(airflow, found, error)

    def _quick(self, error: str) -> Diagnosis:
        return self._reader.knowledge.diagnose(Case(log=TaskLog(text=error)))

    def _of(self, airflow: str, found: Diagnosis, text: str) -> Cause | None:
        if found.confidence < SURE or found.by is not DiagnosedBy.KNOWLEDGE:
            return None
        return cause_of(airflow, found.root_cause, text, loopback=self._loopback)

    async def of_case(self, airflow: str, case: Case) -> tuple[Cause, ...]:
        """The causes that the lines behind a diagnosis name, the decisive one first."""
        found = await self._reader.diagnose(case)
        causes = (self._of(airflow, found, line.text) for line in found.evidence)
        return tuple({one.key: one for one in causes if one is not None}.values())

    async def parted(self, case: Case, known: Mapping[str, str]) -> bool:
        """Whether the log surely names something else than the things known by their families."""
        found = await self._reader.diagnose(case)
        if found.confidence < SURE or found.root_cause is RootCause.UNKNOWN:
            return False
        named = {
            resource_of(line.text, family, loopback=self._loopback)
            for line in found.evidence
            for family in known.values()
        } - {None}
        if named & known.keys():
            return False
        return bool(named) or found.root_cause not in KIN
