"""What the demo pipeline makes of a validated employee."""

from __future__ import annotations

from typing import Any


def transform(rows: list[dict[str, Any]], departments: dict[str, str]) -> list[dict[str, Any]]:
    """Spell the department out and tidy the strings; one row out per row in."""
    return [
        {
            "id": row["id"],
            "name": row["name"].strip(),
            "email": row["email"].strip().lower(),
            "department": departments.get(row["department"], row["department"]),
            "salary": row["salary"],
            "hired_on": row["hired_on"],
        }
        for row in rows
    ]
