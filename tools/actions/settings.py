"""Actions on Airflow's settings: Variables (contracts above all), Connections, pools."""

from __future__ import annotations

import difflib
import json
import re
from typing import ClassVar

from pydantic import Field, JsonValue, model_validator

from graph.domain import Action, ActionClass, BlastRadius
from graph.errors import ActionRefused, NotFound, StalePlan
from tools import contracts
from tools.actions.kind import MASK, NoArgs, Parameters, Preview
from tools.actions.setting import SettingKind, same
from tools.gateway import AirflowGateway
from tools.json_text import json_of

SECRET_NAME = re.compile(
    r"passw|secret|token|api_?key|private|credential|authorization|bearer", re.IGNORECASE
)
ONE_SETTING = BlastRadius(settings=1)


class VariableTarget(Parameters):
    """A Variable, and the text the plan was made on: the edit holds only while that still stands."""

    key: str = Field(min_length=1, max_length=250)
    base: str | None = None  #: None: there is no such Variable yet


class VariableArgs(Parameters):
    """What it becomes; None while a person has yet to give the value."""

    value: str | None = Field(None, min_length=1, max_length=64_000)


class SetVariable(SettingKind[VariableTarget, VariableArgs]):
    """Edits a contract (`airmedic_contract_*`), or creates a Variable that is missing."""

    name: ClassVar[str] = "set_variable"
    kind: ClassVar[ActionClass] = ActionClass.REVERSIBLE
    target = VariableTarget
    args = VariableArgs

    def read(self, action: Action) -> tuple[VariableTarget, VariableArgs]:
        target, args = super().read(action)
        contract = target.key.startswith(contracts.PREFIX)
        if target.base is not None and not contract:
            raise ActionRefused(
                f"set_variable: only Variables called {contracts.PREFIX}* are edited, not {target.key!r}"
            )
        if SECRET_NAME.search(target.key):
            raise ActionRefused(f"set_variable: {target.key!r} sounds like a secret; a person sets it")
        if contract and args.value is not None:
            contracts.parse(args.value)
        return target, args

    def describe(self, action: Action) -> str:
        target, args = self.read(action)
        if target.base is not None:
            return f"edit the contract in Variable {target.key!r}"
        value = "with the value you give" if args.value is None else f"as {args.value!r}"
        return f"create Variable {target.key!r} {value}"

    def missing(self, action: Action) -> tuple[str, ...]:
        return ("value",) if self.read(action)[1].value is None else ()

    def diff(self, action: Action) -> str:
        target, args = self.read(action)
        return text_diff(target.key, target.base, args.value) if args.value is not None else ""

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        return Preview(words=(self.describe(action),), radius=ONE_SETTING, diff=self.diff(action))

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        if self.missing(action):
            raise ActionRefused(f"{self.describe(action)}: nobody gave it yet")
        target, _ = self.read(action)
        now = await self.present(airflow, action)
        if not same(now, target.base):
            raise StalePlan(f"Variable {target.key!r} is not what the plan was made on")
        return now

    def wanted(self, action: Action, before: JsonValue) -> JsonValue:
        return self.read(action)[1].value

    async def present(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        target, _ = self.read(action)
        try:
            found = await airflow.variable(target.key)
        except NotFound:
            return None
        if found.masked:
            raise ActionRefused(f"Variable {target.key!r} holds a masked value and is left alone")
        return found.value

    async def write(self, airflow: AirflowGateway, action: Action, value: JsonValue) -> None:
        target, _ = self.read(action)
        if value is None:
            await airflow.delete_variable(target.key)
        else:
            await airflow.set_variable(target.key, str(value))


class ConnectionTarget(Parameters):
    """A Connection, and its fields when the plan was made."""

    conn_id: str = Field(min_length=1)
    base: dict[str, str | int | None]


class ConnectionArgs(Parameters):
    """Fields that change; those not named stay. There is no password here, and none can be added."""

    host: str | None = None
    port: int | None = Field(None, ge=1, le=65_535)
    schema_name: str | None = Field(None, alias="schema")
    login: str | None = None

    @model_validator(mode="after")
    def _something(self) -> ConnectionArgs:
        if not self.model_fields_set:
            raise ValueError("no field to change")
        return self

    @property
    def fields(self) -> dict[str, JsonValue]:
        """Airflow's names, only what was given."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class PatchConnection(SettingKind[ConnectionTarget, ConnectionArgs]):
    """Puts host, port, schema or login of a Connection right; never a password, never `extra`."""

    name: ClassVar[str] = "patch_connection"
    kind: ClassVar[ActionClass] = ActionClass.REVERSIBLE
    target = ConnectionTarget
    args = ConnectionArgs

    def describe(self, action: Action) -> str:
        target, args = self.read(action)
        told = (f"{name} {target.base.get(name)!r} → {value!r}" for name, value in args.fields.items())
        return f"change Connection {target.conn_id!r}: {', '.join(told)}"

    def diff(self, action: Action) -> str:
        target, args = self.read(action)
        after = {**target.base, **args.fields}
        return text_diff(target.conn_id, json.dumps(target.base), json.dumps(after))

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        return Preview(words=(self.describe(action),), radius=ONE_SETTING, diff=self.diff(action))

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        target, _ = self.read(action)
        now = await self.present(airflow, action)
        if not same(now, dict(target.base)):
            raise StalePlan(f"Connection {target.conn_id!r} is not what the plan was made on")
        return now

    def wanted(self, action: Action, before: JsonValue) -> JsonValue:
        fields = before if isinstance(before, dict) else {}
        return {**fields, **self.read(action)[1].fields}

    async def present(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        target, _ = self.read(action)
        found = await airflow.connection(target.conn_id)
        fields: dict[str, JsonValue] = {
            "host": found.host,
            "port": found.port,
            "schema": found.schema_name,
            "login": found.login,
        }
        if MASK in str(fields):
            raise ActionRefused(f"Connection {target.conn_id!r} holds a masked value and is left alone")
        return fields

    async def write(self, airflow: AirflowGateway, action: Action, value: JsonValue) -> None:
        """Only the fields that this action is about, whatever else the Connection holds."""
        target, args = self.read(action)
        fields = value if isinstance(value, dict) else {}
        await airflow.patch_connection(target.conn_id, {name: fields.get(name) for name in args.fields})


class PoolTarget(Parameters):
    """A pool, and its size when the plan was made."""

    pool: str = Field(min_length=1)
    base: int


class PoolArgs(Parameters):
    """Its size from now on."""

    slots: int = Field(ge=1, le=1024)


class SetPoolSlots(SettingKind[PoolTarget, PoolArgs]):
    """Gives a pool another size."""

    name: ClassVar[str] = "set_pool_slots"
    kind: ClassVar[ActionClass] = ActionClass.REVERSIBLE
    target = PoolTarget
    args = PoolArgs

    def describe(self, action: Action) -> str:
        target, args = self.read(action)
        return f"give pool {target.pool!r} {args.slots} slots instead of {target.base}"

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        return Preview(words=(self.describe(action),), radius=ONE_SETTING)

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        target, _ = self.read(action)
        now = await self.present(airflow, action)
        if now != target.base:
            raise StalePlan(f"pool {target.pool!r} has {now} slots and had {target.base}")
        return now

    def wanted(self, action: Action, before: JsonValue) -> JsonValue:
        return self.read(action)[1].slots

    async def present(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        return (await airflow.pool(self.read(action)[0].pool)).slots

    async def write(self, airflow: AirflowGateway, action: Action, value: JsonValue) -> None:
        if isinstance(value, int):
            await airflow.set_pool_slots(self.read(action)[0].pool, value)


class DagTarget(Parameters):
    """A DAG."""

    dag_id: str = Field(min_length=1)


class _Paused(SettingKind[DagTarget, NoArgs]):
    """The pause flag of a DAG."""

    paused: ClassVar[bool]
    target = DagTarget
    args = NoArgs

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        return Preview(words=(self.describe(action),), radius=BlastRadius(dags=1, settings=1))

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        return await self.present(airflow, action)

    def wanted(self, action: Action, before: JsonValue) -> JsonValue:
        return self.paused

    async def present(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        return (await airflow.dag(self.read(action)[0].dag_id)).is_paused

    async def write(self, airflow: AirflowGateway, action: Action, value: JsonValue) -> None:
        await airflow.set_paused(self.read(action)[0].dag_id, paused=bool(value))


class PauseDag(_Paused):
    """No new runs of the DAG until a person unpauses it."""

    name: ClassVar[str] = "pause_dag"
    kind: ClassVar[ActionClass] = ActionClass.REVERSIBLE
    paused: ClassVar[bool] = True

    def describe(self, action: Action) -> str:
        return f"pause DAG {self.read(action)[0].dag_id!r}"


class UnpauseDag(_Paused):
    """The DAG runs by its schedule again; runs it starts meanwhile are not taken back."""

    name: ClassVar[str] = "unpause_dag"
    kind: ClassVar[ActionClass] = ActionClass.COMPENSABLE
    paused: ClassVar[bool] = False

    def describe(self, action: Action) -> str:
        return f"unpause DAG {self.read(action)[0].dag_id!r}"


def text_diff(name: str, before: str | None, after: str) -> str:
    """A unified diff; JSON is laid out first, one value a line."""
    old = [] if before is None else _laid_out(before)
    lines = difflib.unified_diff(old, _laid_out(after), f"{name} (now)", f"{name} (after)", lineterm="", n=2)
    return "\n".join(lines)


def _laid_out(text: str) -> list[str]:
    try:
        found = json_of(text)
    except ValueError:
        return text.splitlines()
    return json.dumps(found, indent=2, ensure_ascii=False).splitlines()
