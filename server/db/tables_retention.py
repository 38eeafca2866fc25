"""What retention looks for: the oldest closed incidents and the oldest logs."""

from __future__ import annotations

from sqlalchemy import Index
from sqlmodel import col

from server.db.tables import IncidentRow, LogRow

Index("incident_closed", col(IncidentRow.closed_at))
Index("log_stored", col(LogRow.stored_at))
