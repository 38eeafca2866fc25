"""Fills a store with many incidents, fast: what lists and searches are measured on."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg

from graph.domain import RootCause

BATCH = 20_000  # rows in one transaction
START = datetime(2026, 1, 1, tzinfo=UTC)
APART = timedelta(seconds=30)  # between two incidents
OPEN = 200  # the newest are not closed yet

TEAMS = ("orders", "billing", "customers", "inventory", "ledger", "marketing", "payroll", "shipping")
KINDS = ("daily", "hourly", "export", "snapshot", "sync")
TASKS = ("extract", "load", "transform", "publish", "check_quality", "notify_partners")
OPERATORS = ("PythonOperator", "SQLExecuteQueryOperator", "KubernetesPodOperator", "BashOperator")
OUTCOMES = (
    "healed",
    "recovered_unverified",
    "self_recovered",
    "escalated",
    "dismissed",
    "expired",
    "not_healed",
)
OUTCOME_WEIGHTS = (45, 12, 20, 12, 8, 2, 1)
SEVERITIES, SEVERITY_WEIGHTS = ("critical", "high", "medium", "low"), (3, 70, 20, 7)
COLUMNS = (
    "id", "open_key", "kind", "airflow", "dag_id", "run_id", "task_id", "map_index", "try_number", "operator",
    "severity", "status", "outcome", "reason", "root_cause", "signature", "version", "attempt", "failures",
    "opened_at", "updated_at", "failed_at", "closed_at", "epoch", "diagnosis",
)  # fmt: skip


def rows(count: int, *, seed: int = 11) -> Iterator[tuple[object, ...]]:
    """That many incidents, oldest first."""
    rng = random.Random(seed)
    causes = [cause.value for cause in RootCause]
    weights = [1 / (place + 1) for place in range(len(causes))]
    dags = [f"{team}_{kind}_{number}" for team in TEAMS for kind in KINDS for number in range(10)]
    for number in range(1, count + 1):
        opened = START + APART * number
        cause = rng.choices(causes, weights)[0]
        outcome = rng.choices(OUTCOMES, OUTCOME_WEIGHTS)[0]
        is_open = number > count - OPEN
        status = "waiting_decision" if is_open else "escalated" if outcome == "escalated" else "closed"
        host = f"db{rng.randrange(400)}.internal"
        diagnosis = {
            "root_cause": cause,
            "transient": rng.random() < 0.5,
            "confidence": 0.9,
            "remediation": "retry",
            "evidence": [{"line": 41, "text": f"connection to {host} port 5432 refused after 3 attempts"}],
            "summary": f"{cause.replace('_', ' ')} while talking to {host}, row {rng.randrange(10**7)}",
            "signature": f"{rng.randrange(10_000):016x}",
        }
        yield (
            number,
            f"open-{number}" if is_open else None,
            "failure",
            "default",
            rng.choice(dags),
            f"scheduled__{opened:%Y-%m-%dT%H:%M:%S}",
            rng.choice(TASKS),
            -1,
            1,
            rng.choice(OPERATORS),
            rng.choices(SEVERITIES, SEVERITY_WEIGHTS)[0],
            status,
            None if is_open else outcome,
            "" if is_open else "the task succeeded; its run too; no recurrence in the watch window",
            cause,
            diagnosis["signature"],
            2,
            1,
            0,
            opened,
            opened + timedelta(minutes=rng.randrange(1, 600)),
            opened - timedelta(seconds=2),
            None if is_open else opened + timedelta(minutes=5),
            1,
            json.dumps(diagnosis),
        )


def fill_sqlite(path: str, count: int) -> None:
    """Into a database that has its tables."""
    marks = ", ".join("?" for _ in COLUMNS)
    with sqlite3.connect(path) as database:
        for pragma in ("synchronous = OFF", "cache_size = -200000"):
            database.execute(f"PRAGMA {pragma}")
        batch: list[tuple[object, ...]] = []
        for row in rows(count):
            batch.append(tuple(_sqlite_value(one) for one in row))
            if len(batch) == BATCH:
                _insert(database, marks, batch)
                batch = []
        _insert(database, marks, batch)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert(database: sqlite3.Connection, marks: str, batch: list[tuple[object, ...]]) -> None:
    names = ", ".join(COLUMNS)
    database.executemany(f"INSERT INTO incident ({names}) VALUES ({marks})", batch)
    database.commit()


def _sqlite_value(value: object) -> object:
    return f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else value


def fill_postgres(url: str, count: int) -> None:
    """Into a database that has its tables."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        names = ", ".join(COLUMNS)
        with cursor.copy(f"COPY incident ({names}) FROM STDIN".encode()) as copy:
            for row in rows(count):
                copy.write_row(row)
        connection.commit()
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE incident")
