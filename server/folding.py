"""The store's part that gives failures to the incident that stands for their cause, many at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import and_, func, or_, select, update
from sqlmodel import col

from graph.domain import Part, Status, TaskRef
from server.db.database import store_errors
from server.db.group_writer import Writing
from server.db.tables import IncidentRow, OccurrenceRow
from server.db.tables_work import CauseRow
from server.driving import StoreDriving
from server.members import FRESH, rousing
from server.record import Leader, Occurrence


class StoreFolding(StoreDriving):
    """One cause, one incident."""

    async def leaders(self, keys: Collection[str]) -> dict[str, Leader]:
        """The open incidents that stand for these causes, and the task instance that each leads with."""
        query = (
            select(
                col(CauseRow.key),
                col(IncidentRow.id),
                col(IncidentRow.dag_id),
                col(IncidentRow.run_id),
                col(IncidentRow.task_id),
                col(IncidentRow.map_index),
            )
            .join(IncidentRow, col(IncidentRow.id) == col(CauseRow.incident_id))
            .where(col(CauseRow.key).in_(keys), col(IncidentRow.open_key).is_not(None))
            .where(
                or_(
                    col(IncidentRow.status) != Status.ESCALATED.value,
                    col(CauseRow.seen_at) >= self._clock() - FRESH,
                )
            )
        )
        return {
            key: Leader(number, TaskRef(dag_id=dag, run_id=run, task_id=task, map_index=index))
            for key, number, dag, run, task, index in await self._rows(query)
        }

    async def fold(self, key: str, incident_id: int, occurrences: Sequence[Occurrence]) -> int:
        """Give these to the incident that stands for their cause; how many: 0 when it does no more."""
        now = self._clock()
        numbers = [one.id for one in occurrences]

        async def write(writing: Writing) -> int:
            connection, row = writing.connection, OccurrenceRow
            held = and_(col(CauseRow.key) == key, col(CauseRow.incident_id) == incident_id)
            stands = select(col(CauseRow.key)).where(held).with_for_update()
            if (await connection.execute(stands)).first() is None:
                return 0
            taking = update(row).where(col(row.id).in_(numbers), col(row.status) == "new")
            values = {"status": "incident", "incident_id": incident_id, "part": Part.WAITING.value}
            taken = (await connection.execute(taking.values(**values))).rowcount
            await connection.execute(update(CauseRow).where(held).values(seen_at=now))
            await connection.execute(rousing(incident_id, now))
            return max(taken, 0)

        with store_errors("joining failures of one cause"):
            return await self.writer.run(write)

    async def gathered(self, incident_id: int) -> int:
        """How many failures joined an incident for its cause."""
        row = OccurrenceRow
        query = select(func.count()).where(
            col(row.incident_id) == incident_id, col(row.part) != "", col(row.part) != Part.AGAIN.value
        )
        return int((await self._rows(query))[0])
