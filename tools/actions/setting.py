"""What actions on one setting share: write a value, find it again, put the old one back."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from pydantic import JsonValue

from graph.domain import Action, canonical_json
from graph.errors import UndoBlocked
from tools.actions.kind import A, ActionKind, Confirmation, Found, T
from tools.gateway import AirflowGateway
from tools.json_text import json_of

V = TypeVar("V")


class SettingKind(ActionKind[T, A]):
    """An action on one value that can be read and written whole."""

    @abstractmethod
    def wanted(self, action: Action, before: JsonValue) -> JsonValue:
        """The value after the write."""

    @abstractmethod
    async def present(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        """The value now, in the form of the before-image; None when there is none."""

    @abstractmethod
    async def write(self, airflow: AirflowGateway, action: Action, value: JsonValue) -> None:
        """Make it this value; None removes it."""

    async def apply(self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str) -> None:
        await self.write(airflow, action, self.wanted(action, before))

    async def confirm(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str
    ) -> Confirmation:
        wanted, now = self.wanted(action, before), await self.present(airflow, action)
        if same(now, wanted):
            return Confirmation(found=Found.DONE, after=wanted)
        if same(now, before):
            return Confirmation(found=Found.NOT_DONE, why="the value is still the old one")
        return Confirmation(found=Found.OVERTAKEN, after=wanted, why="somebody else changed the value")

    async def undo(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, after: JsonValue
    ) -> None:
        now = await self.present(airflow, action)
        if same(now, before):
            return
        if not same(now, after):
            raise UndoBlocked(f"{self.describe(action)}: the value was changed by somebody else since")
        await self.write(airflow, action, before)
        if not same(await self.present(airflow, action), before):
            raise UndoBlocked(f"{self.describe(action)}: the old value was written and does not read back")


def same(one: JsonValue, other: JsonValue) -> bool:
    """Equal as canonical JSON; a text that is JSON counts by its value, for Airflow reformats it."""
    return canonical_json(_plain(one)) == canonical_json(_plain(other))


def _plain(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if not isinstance(value, str):
        return value
    try:
        found = json_of(value)
    except ValueError:
        return value
    # Only objects and lists: "5" and "5.0" are different texts, whatever JSON makes of them.
    return {"json": found} if isinstance(found, dict | list) else value
