"""What is refused over the API, and what is switched, stands in the audit trail."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.serving import Api, open_api


async def kinds(api: Api) -> list[tuple[str, str]]:
    found = [json.loads(entry.body) async for entry in api.service.audit.entries()]
    return [(one["kind"], one["by"]) for one in found]


async def test_a_switch_is_recorded_with_who_and_what_was_before(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.http.post("/api/control", json={"paused": True})
        assert answer.status_code == 200
        (entry,) = [
            json.loads(one.body) async for one in api.service.audit.entries() if one.kind == "control"
        ]

    assert (entry["by"], entry["data"]["paused"]) == ("local operator", True)
    assert entry["data"]["before"]["paused"] is False


async def test_an_answer_that_is_refused_leaves_an_entry(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        number = await api.fail()
        version = (await api.incident(number))["version"]
        edited = await api.decide(number, {"type": "edit", "version": version, "args": [{"run_id": "other"}]})
        late = await api.decide(number, {"type": "approve", "version": version + 5})
        found = [json.loads(one.body) async for one in api.service.audit.entries() if one.kind == "refused"]

    assert (edited.status_code, late.status_code) == (422, 409)
    assert [(one["by"], one["incident"]) for one in found] == [("local operator", number)] * 2
