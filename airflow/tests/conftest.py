"""The DAGs and the plugin are imported as Airflow imports them: from their folders on the path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
DAGS = PROJECT / "dags"


def pytest_configure() -> None:
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    for folder in ("dags", "plugins"):
        sys.path.insert(0, str(PROJECT / folder))


@pytest.fixture(scope="session", autouse=True)
def _own_airflow_home(tmp_path_factory):
    """Nothing of the machine's own Airflow is read or written."""
    home = tmp_path_factory.mktemp("airflow_home")
    os.environ["AIRFLOW_HOME"] = str(home)
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{home}/airflow.db"
    os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)
