"""The two servers that `ingest` compares: `python -m evals.benchmarks.ingest_server KIND PORT DIR AIRFLOW`.

`ours` is `airmedic serve` itself, without the console: it asks that Airflow about what came in, opens
incidents, diagnoses and heals them while it is measured. `bare` is a FastAPI endpoint that stores nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import uvicorn
from fastapi import FastAPI, Request

from evals.benchmarks.herd import unlimited_policy
from server.events import TaskEvent
from server.loop import run as run_loop

SECRET = "whsec_c2VjcmV0LW9mLXRoZS1iZW5jaG1hcms="
DATABASE = "ingest.db"


def bare() -> FastAPI:
    """Parses the same body with the same type, and stores nothing."""
    app = FastAPI()

    @app.post("/webhook", status_code=202)
    async def receive(request: Request) -> dict[str, object]:
        event = TaskEvent.model_validate_json(await request.body())
        return {"accepted": True, "event": event.event}

    return app


def serve(folder: Path, port: int, airflow: str, database_url: str) -> NoReturn:
    """Become `airmedic serve`. Settings as they ship, but healing is on, and the console off."""
    settings = {
        "AIRFLOW_URL": airflow,
        "AIRFLOW_TOKEN": "unused",
        "DATABASE_URL": database_url or f"sqlite:///{folder / DATABASE}",
        "LOG_FILE": str(folder / "airmedic.log"),
        "WEBHOOK_SECRET": SECRET,
        "HEALING": "on",
        "POLICY": str(unlimited_policy(folder)),
        "CONSOLE": "false",
        "PORT": str(port),
    }
    given = {f"AIRMEDIC_{name}": value for name, value in settings.items()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRMEDIC_")}
    airmedic = Path(sys.executable).with_name("airmedic")
    os.chdir(folder)  # whoever runs this may have an .env
    os.execve(airmedic, [str(airmedic), "serve"], kept | given)


def main(kind: str, port: int, folder: Path, airflow: str, database_url: str = "") -> None:
    """Serve until killed."""
    if kind == "ours":
        serve(folder, port, airflow, database_url)
    config = uvicorn.Config(bare(), port=port, log_config=None, access_log=False, ws="none")
    run_loop(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
