"""The store's part that gives failures to the incident that stands for their cause, many at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Executable, and_, bindparam, func, literal, or_, select, update
from sqlmodel import col

from graph.domain import Part, Status
from server.db.database import store_errors
from server.db.group_writer import Writing
from server.db.prepared import Prepared, listed, places
from server.db.rows import task_of
from server.db.tables import IncidentRow, OccurrenceRow, table_of
from server.db.tables_work import CauseRow
from server.driving import StoreDriving
from server.members import FRESH, rousing
from server.record import Leader, Occurrence


def _leaders(_dialect: str, names: tuple[str, ...]) -> Executable:
    cause, incident = table_of(CauseRow), table_of(IncidentRow)
    with_whom = incident.c.status != literal(Status.ESCALATED.value)
    lately = cause.c.seen_at >= bindparam("b_since", type_=cause.c.seen_at.type)
    return (
        select(
            cause.c.key,
            incident.c.id,
            incident.c.dag_id,
            incident.c.run_id,
            incident.c.task_id,
            incident.c.map_index,
        )
        .join(incident, incident.c.id == cause.c.incident_id)
        .where(cause.c.key.in_(places("b_key", names)), incident.c.open_key.is_not(None))
        .where(or_(with_whom, lately))
    )


LEADERS = Prepared(_leaders)


class StoreFolding(StoreDriving):
    """One cause, one incident."""

    async def leaders(self, keys: Collection[str]) -> dict[str, Leader]:
        """The open incidents that stand for these causes, and the task instance that each leads with."""
        given = {"b_since": self._clock() - FRESH, **listed("b_key", keys)}
        with store_errors("reading causes"):
            rows = await LEADERS.look(self._engine, given) if keys else []
        return {row.key: Leader(row.id, task_of(row)) for row in rows}

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
