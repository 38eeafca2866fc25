"""The switches people set while Airmedic runs: the kill switch and shadow mode."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from pydantic import JsonValue

from graph.domain import Role
from server.access.entry import OperatorDep, ServiceDep, ViewerDep
from server.audit.chain import AuditEntry
from server.problems import documented
from server.records import CONTROL
from server.schemas import ControlIn, ControlOut
from server.service import Service

router = APIRouter(prefix="/control", tags=["control"])


async def read_switches(service: Service) -> ControlOut:
    """What people set last, else what the settings say."""
    given = await service.store.setting(CONTROL)
    known = given if isinstance(given, dict) else {}
    shadow = known.get("shadow")
    by = known.get("by")
    return ControlOut(
        paused=known.get("paused") is True,
        shadow=service.settings.healing == "shadow" if shadow is None else shadow is True,
        by=by if isinstance(by, str) else None,
    )


@router.get("", responses=documented(401, 503))
async def read_control(service: ServiceDep, _by: ViewerDep) -> ControlOut:
    """Whether Airmedic may write to Airflow at this moment."""
    return await read_switches(service)


@router.post("", responses=documented(400, 401, 403, 408, 413, 415, 422, 503))
async def set_control(body: ControlIn, service: ServiceDep, by: OperatorDep) -> ControlOut:
    """Pause or resume all writing, or switch shadow mode: from the next write on, and over restarts.

    Any operator may stop or resume; switching shadow mode off, which lets Airmedic act, is for admins.
    """
    if body.shadow is False and not by.may(Role.ADMIN):
        raise HTTPException(403, f"only an admin switches shadow mode off; {by.name!r} is {by.role.value}")
    before = await read_switches(service)
    chosen: dict[str, JsonValue] = {
        "paused": before.paused if body.paused is None else body.paused,
        "shadow": before.shadow if body.shadow is None else body.shadow,
        "by": by.name,
    }
    entry = AuditEntry(kind="control", by=by.name, data={**chosen, "before": before.model_dump(mode="json")})
    await service.store.remember(CONTROL, chosen, entry=entry)
    await service.store.add_event("control", level="warning", data=chosen)
    service.runner.ring()
    return await read_switches(service)
