"""Actions that only say something."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, JsonValue

from graph.domain import Action, ActionClass, BlastRadius
from graph.errors import ActionRefused
from tools.actions.kind import Confirmation, Found, Harmless, Parameters, Preview
from tools.actions.running import NOTE, OneTask
from tools.actions.setting import SettingKind
from tools.gateway import AirflowGateway


class NoteArgs(Parameters):
    """What is added."""

    text: str = Field(min_length=1, max_length=800)


class AddNote(SettingKind[OneTask, NoteArgs]):
    """Adds a line to a task instance's note; what people wrote stays."""

    name: ClassVar[str] = "add_note"
    kind: ClassVar[ActionClass] = ActionClass.REVERSIBLE
    target = OneTask
    args = NoteArgs

    def describe(self, action: Action) -> str:
        target, args = self.read(action)
        return f"add a note to {target.ref}: {args.text}"

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        return Preview(
            words=(self.describe(action),), radius=BlastRadius(task_instances=1, dag_runs=1, dags=1)
        )

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        before = await self.present(airflow, action)
        if len(str(self.wanted(action, before))) > NOTE:
            raise ActionRefused(f"{self.describe(action)}: the note would pass {NOTE} characters")
        return before

    def wanted(self, action: Action, before: JsonValue) -> JsonValue:
        text = self.read(action)[1].text
        return f"{before}\n{text}" if before else text

    async def present(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        return (await airflow.task(self.read(action)[0].ref)).note

    async def write(self, airflow: AirflowGateway, action: Action, value: JsonValue) -> None:
        await airflow.set_task_note(self.read(action)[0].ref, str(value or ""))

    async def undo(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, after: JsonValue
    ) -> None:
        """Only our words go: a clear of ours, or a person, may have added to the note since."""
        now, text = str(await self.present(airflow, action)), self.read(action)[1].text
        ours = now.find(text, len(str(before)))
        if ours >= 0 and now.startswith(str(before)):
            rest = now[ours + len(text) :].lstrip("\n") if not before else now[ours + len(text) :]
            await self.write(airflow, action, str(before) + rest)


class Audience(Parameters):
    """Whom; the notifier knows the addresses."""

    people: str = "on_call"


class Message(Parameters):
    """What."""

    message: str = Field(min_length=1, max_length=2000)


class Notify(Harmless[Audience, Message]):
    """A message for people. The ledger is its record, and whoever reads the ledger delivers it."""

    name: ClassVar[str] = "notify"
    kind: ClassVar[ActionClass] = ActionClass.IRREVERSIBLE
    target = Audience
    args = Message

    def describe(self, action: Action) -> str:
        target, args = self.read(action)
        return f"tell {target.people}: {args.message}"

    async def confirm(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str
    ) -> Confirmation:
        return Confirmation(found=Found.DONE, after=self.read(action)[1].message)
