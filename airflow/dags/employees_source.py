"""Reads the employees' HTTP source through an Airflow Connection."""

from __future__ import annotations

import logging
from typing import Any

import requests
from airflow.sdk import BaseHook

PAGE = 50  # rows
TIMEOUT = (3.05, 60)  # seconds to connect, to wait for data

log = logging.getLogger(__name__)


def base_url(conn_id: str) -> str:
    """The address the Connection names."""
    conn = BaseHook.get_connection(conn_id)
    host = conn.host or ""
    scheme = "" if "://" in host else f"{conn.schema or 'http'}://"
    port = f":{conn.port}" if conn.port else ""
    return f"{scheme}{host}{port}"


def get(url: str, **params: int) -> Any:
    """One JSON answer; an HTTP error is raised, what the source says about waiting is logged."""
    session = requests.Session()
    session.trust_env = False
    answer = session.get(url, params=params, timeout=TIMEOUT)
    if "Retry-After" in answer.headers:
        log.warning("source answered %s, Retry-After: %s", answer.status_code, answer.headers["Retry-After"])
    answer.raise_for_status()
    return answer.json()


def employees(conn_id: str, path: str) -> tuple[list[dict[str, Any]], int]:
    """All rows, page by page, and the total the source declares."""
    url = base_url(conn_id) + path
    rows: list[dict[str, Any]] = []
    while True:
        page = get(url, limit=PAGE, offset=len(rows))
        rows += page["employees"]
        if not page["employees"] or len(rows) >= page["total"]:
            return rows, int(page["total"])
