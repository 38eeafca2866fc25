"""The two servers that `ingest` compares: `python -m evals.benchmarks.ingest_server ours|bare PORT DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request

from server.app import create_app
from server.events import TaskEvent
from server.logs import open_logs
from server.loop import run as run_loop
from server.settings import load_settings

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


def ours(folder: Path, port: int) -> FastAPI:
    """Airmedic as `airmedic serve` builds it, without the console and without an Airflow."""
    settings = load_settings(
        {},
        _env_file=None,
        AIRMEDIC_AIRFLOW_URL="http://127.0.0.1:1",
        AIRMEDIC_AIRFLOW_TOKEN="unused",
        database_url=f"sqlite:///{folder / DATABASE}",
        log_file=folder / "airmedic.log",
        webhook_secret=SECRET,
        console=False,
        port=port,
        rate_webhook="off",
    )
    return create_app(settings)


def main(kind: str, port: int, folder: Path) -> None:
    """Serve until killed."""
    app = bare() if kind == "bare" else ours(folder, port)
    with open_logs(folder / "airmedic.log", terminal=None):
        config = uvicorn.Config(app, port=port, log_config=None, access_log=False, ws="none")
        run_loop(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
