"""What an action is: its parameters, and the five things it can do.

`tools.carry_out` decides when each is called; an action itself keeps nothing and never decides. Your own
action is a subclass named by an entry point of the group `airmedic.actions`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from graph.domain import Action, ActionClass, BlastRadius, DomainType, TaskRef
from graph.errors import ActionRefused
from tools.gateway import AirflowGateway

MASK = "***"  # what Airflow puts in place of a secret


class Parameters(BaseModel):
    """Base of an action's target and arguments: closed and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoArgs(Parameters):
    """Nothing to choose."""


class Rerun(DomainType):
    """A task that would run a second time, and what its DAG declares about that."""

    dag_id: str
    task_id: str
    tags: tuple[str, ...] = ()
    retries: int = 0
    is_paused: bool = False  #: its DAG is


class Preview(DomainType):
    """What would change, in words and numbers."""

    words: tuple[str, ...] = ()
    radius: BlastRadius = BlastRadius()
    diff: str = ""
    tasks: tuple[TaskRef, ...] = ()  #: task instances that ran before and would run again
    reruns: tuple[Rerun, ...] = ()  #: the same by task, with what their DAGs say; filled by the catalogue


class Found(StrEnum):
    """What a read-back shows of a write."""

    DONE = "done"
    NOT_DONE = "not_done"  #: the world is as it was before
    OVERTAKEN = "overtaken"  #: neither as before nor as written: somebody else moved it


class Confirmation(DomainType):
    """The answer of a read-back."""

    found: Found
    after: JsonValue = None
    why: str = ""


T = TypeVar("T", bound=Parameters)
A = TypeVar("A", bound=Parameters)
P = TypeVar("P", bound=Parameters)


class ActionKind(ABC, Generic[T, A]):
    """One kind of action. Instances hold no state."""

    name: ClassVar[str]
    kind: ClassVar[ActionClass]
    writes: ClassVar[bool] = True  #: False: nothing is sent to Airflow
    undoable: ClassVar[bool] = True
    target: type[T]  #: set by the planner, from the incident; nobody edits it
    args: type[A]  #: what a person may edit

    def read(self, action: Action) -> tuple[T, A]:
        """The typed parameters. `ActionRefused` names the place that is wrong."""
        return self._parse(self.target, action.target, "target"), self._parse(self.args, action.args, "args")

    def _parse(self, into: type[P], value: dict[str, JsonValue], part: str) -> P:
        if MASK in str(value):
            raise ActionRefused(f"{self.name}: {part} holds a masked value ({MASK}), which is never written")
        try:
            return into.model_validate(value)
        except ValidationError as exc:
            wrong = exc.errors()[0]
            place = ".".join([part, *(str(one) for one in wrong["loc"])])
            raise ActionRefused(f"{self.name}: {place}: {wrong['msg']}") from exc

    @abstractmethod
    def describe(self, action: Action) -> str:
        """One sentence for a person."""

    def missing(self, action: Action) -> tuple[str, ...]:
        """Arguments that a person must give before it can be carried out."""
        return ()

    def diff(self, action: Action) -> str:
        """What becomes of a text, as a unified diff; empty when it changes none."""
        return ""

    def reruns(self, action: Action) -> tuple[TaskRef, ...]:
        """The task instances that the target names for another run."""
        return ()

    @abstractmethod
    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        """What would change, from Airflow's own dry run where it has one."""

    @abstractmethod
    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        """The before-image. `ActionRefused` when masked, `StalePlan` when the plan no longer fits."""

    @abstractmethod
    async def apply(self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str) -> None:
        """Send the write, once."""

    @abstractmethod
    async def confirm(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str
    ) -> Confirmation:
        """Read Airflow back."""

    async def finished(self, airflow: AirflowGateway, action: Action, *, key: str) -> bool:
        """False while Airflow works on it and the plan's next action has to wait for that."""
        return True

    async def undo(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, after: JsonValue
    ) -> None:
        """Restore the before-image and read it back; harmless when it stands already.

        `UndoBlocked` when the present value is neither what we wrote nor the before-image.
        """
        raise ActionRefused(f"{self.name} cannot be undone")


class Harmless(ActionKind[T, A]):
    """Changes nothing in Airflow: it is done once the ledger has it."""

    writes: ClassVar[bool] = False
    undoable: ClassVar[bool] = False

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        return Preview(words=(self.describe(action),))

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        return None

    async def apply(self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str) -> None:
        return None

    async def confirm(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str
    ) -> Confirmation:
        return Confirmation(found=Found.DONE)


AnyKind = ActionKind[Any, Any]


def listed(names: Iterable[str], *, most: int = 5) -> str:
    """Names for a sentence, cut when there are many."""
    several = list(names)
    rest = f" and {len(several) - most} more" if len(several) > most else ""
    return ", ".join(several[:most]) + rest
