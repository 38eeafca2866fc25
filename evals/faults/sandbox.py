"""A real Airflow of our own: installed when missing, started, watched, ended.

The demo, the bench and the integration tests run against it. Nothing of the caller's environment reaches it
but what `open_sandbox` is given, and nothing of it outlives the caller (see `evals.faults.leash`).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import secrets
import shutil
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import httpx

from graph.errors import SandboxFailed

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "airflow"
LEASH = Path(__file__).with_name("leash.py")
USERNAME = "admin"

START_TIMEOUT = 240.0  # seconds
LOCK_TIMEOUT = 30  # seconds that scheduler and DAG processor wait for the locked database
# The API server writes its access log on the event loop, which it also needs to end a write that has begun:
# of two writes at once it waits for itself. Only this timeout ends that, with a 500 to one of them.
API_LOCK_TIMEOUT = 2  # seconds
STOP_TIMEOUT = 20.0  # seconds; longer than the leash needs
POLL = 0.25  # seconds
LOG_TAIL = 25  # lines quoted when a start fails

COMPONENTS = ("api-server", "scheduler", "dag-processor")

# What a program needs of the machine; keys and settings of the caller stay out.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "SSL_CERT_FILE", "SSL_CERT_DIR")

FAST = {
    "API__WORKERS": "1",
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "CORE__PARALLELISM": "3",
    "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "1",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "3",
    "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "2",
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
    "DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "60",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "USAGE_DATA_COLLECTION__ENABLED": "False",
}


def silent(message: str) -> None:
    """The progress callback of callers that do not want one."""


class Sandbox:
    """A running Airflow."""

    def __init__(
        self,
        *,
        url: str,
        password: str,
        home: Path,
        env: Mapping[str, str],
        leash: asyncio.subprocess.Process,
    ) -> None:
        self.url = url
        self.username = USERNAME
        self.password = password
        self.home = home
        self.log_dir = _log_dir(home)  #: one file for each component
        self._env = env
        self._leash = leash
        self._started = datetime.now(UTC)

    @property
    def running(self) -> bool:
        """False once a component of it has ended."""
        return self._leash.returncode is None

    @property
    def port(self) -> int:
        """The port of the API server."""
        return int(self.url.rpartition(":")[2])

    async def wait_ready(self, *, within: float = START_TIMEOUT) -> None:
        """Return when API server, scheduler and DAG processor all report; else `SandboxFailed`."""
        async with httpx.AsyncClient(base_url=self.url, timeout=5, trust_env=False) as client:
            await self._until("Airflow", within, lambda: _healthy(client, self._started))

    async def wait_dag(self, dag_id: str, *, within: float = 60.0) -> None:
        """Return when Airflow has parsed this DAG."""
        async with httpx.AsyncClient(base_url=self.url, timeout=5, trust_env=False) as client:
            login = {"username": self.username, "password": self.password}
            answer = await client.post("/auth/token", json=login)
            client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            await self._until(f"DAG {dag_id!r}", within, lambda: _parsed(client, dag_id))

    async def _until(self, what: str, seconds: float, ready: Callable[[], Awaitable[bool]]) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not (self.running and await ready()):
                    if not self.running:
                        raise SandboxFailed(f"Airflow ended while starting\n{_tail(self.log_dir)}")
                    await asyncio.sleep(POLL)
        except TimeoutError as exc:
            raise SandboxFailed(f"{what} not ready after {seconds:.0f} s\n{_tail(self.log_dir)}") from exc


@asynccontextmanager
async def open_sandbox(
    *,
    home: Path,
    dags: Path,
    plugins: Path | None = None,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = silent,
    triggerer: bool = False,
) -> AsyncIterator[Sandbox]:
    """Install what is missing, start Airflow, yield it when it is ready, end it whatever happens.

    `home` is its AIRFLOW_HOME; a second start in the same `home` finds database and password again.
    """
    home = _made(home)
    await install(progress=progress)
    port = port or free_port()
    _refuse_taken(port)
    secret = _secrets(home)
    environment = _environment(
        home=home, dags=dags, plugins=plugins, port=port, secret=secret, extra=env or {}
    )
    await _migrate(home, environment, progress)
    progress(f"starting Airflow on port {port}")
    parts = (*COMPONENTS, "triggerer") if triggerer else COMPONENTS
    leash = await _start(home, environment, parts)
    try:
        sandbox = Sandbox(
            url=f"http://127.0.0.1:{port}",
            password=secret["password"],
            home=home,
            env=environment,
            leash=leash,
        )
        await sandbox.wait_ready()
        progress("Airflow is ready")
        yield sandbox
    finally:
        await asyncio.shield(_stop(leash))


async def install(*, progress: Callable[[str], None] = silent) -> None:
    """Install the `airflow/` project when its environment is missing."""
    if _executable().exists():
        return
    progress("installing Airflow (once)")
    uv = shutil.which("uv") or str(ROOT / ".airmedic" / "tools" / "bin" / "uv")
    env = {**machine_env(), "UV_PYTHON_DOWNLOADS": "never"}
    await _run([uv, "sync", "--frozen", "--quiet"], env=env, what="uv sync")


def free_port() -> int:
    """A TCP port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refuse_taken(port: int) -> None:
    """Whoever listens there would be taken for our Airflow until ours finds that it cannot."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise SandboxFailed(f"port {port} is in use: choose another") from exc


def _made(home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    return home.resolve()


def _executable() -> Path:
    return PROJECT / ".venv" / "bin" / "airflow"


def machine_env() -> dict[str, str]:
    """What a program needs of the machine, and nothing else of the caller's environment."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def _environment(
    *,
    home: Path,
    dags: Path,
    plugins: Path | None,
    port: int,
    secret: Mapping[str, str],
    extra: Mapping[str, str],
) -> dict[str, str]:
    env = machine_env()
    env["PATH"] = f"{_executable().parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    env["NO_PROXY"] = "127.0.0.1,localhost"
    env["AIRFLOW_HOME"] = str(home)
    settings = {
        **FAST,
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__BASE_URL": f"http://127.0.0.1:{port}",
        # Without it every task dies before its first line, on any port but 8080.
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "DATABASE__SQL_ALCHEMY_CONN": _database(home, LOCK_TIMEOUT),
        "CORE__FERNET_KEY": secret["fernet"],
        "API_AUTH__JWT_SECRET": secret["jwt"],
        "API__SECRET_KEY": secret["session"],
        "CORE__DAGS_FOLDER": str(dags.resolve()),
        "CORE__PLUGINS_FOLDER": str(plugins.resolve() if plugins else home / "plugins"),
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
    }
    return {**env, **{f"AIRFLOW__{name}": value for name, value in settings.items()}, **extra}


def _database(home: Path, timeout: int) -> str:
    return f"sqlite:///{home / 'airflow.db'}?timeout={timeout}"


def _secrets(home: Path) -> dict[str, str]:
    """The admin's password and Airflow's keys: random, made once, readable by the owner only."""
    file, passwords, config = home / "secrets.json", home / "passwords.json", home / "airflow.cfg"
    if not file.exists():
        made = {name: secrets.token_urlsafe(32) for name in ("password", "jwt", "session")}
        made["fernet"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        for path, held in ((file, made), (passwords, {USERNAME: made["password"]})):
            path.touch(mode=0o600)
            path.write_text(json.dumps(held))
    # Each component would write this file when it is missing, all at the same time.
    config.touch()
    return dict(json.loads(file.read_text()))


async def _migrate(home: Path, env: Mapping[str, str], progress: Callable[[str], None]) -> None:
    """Make the metadata database: a copy of the first one this lock file made is much faster."""
    database, template = home / "airflow.db", _template()
    if (home / "migrated").exists():
        return
    if not template.exists():
        progress("making Airflow's database (once)")
        await _run([str(_executable()), "db", "migrate"], env=env, what="airflow db migrate")
        _keep_journal(database)
        template.parent.mkdir(parents=True, exist_ok=True)
        unfinished = template.with_suffix(f".{os.getpid()}")
        shutil.copyfile(database, unfinished)
        unfinished.replace(template)
    else:
        shutil.copyfile(template, database)
    (home / "migrated").touch()


def _template() -> Path:
    lock = hashlib.sha256((PROJECT / "uv.lock").read_bytes()).hexdigest()[:12]
    return ROOT / ".airmedic" / "airflow-databases" / f"{lock}.db"


def _keep_journal(database: Path) -> None:
    """Readers and the writer stop blocking each other; the file remembers the mode."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


async def _start(home: Path, env: Mapping[str, str], parts: Sequence[str]) -> asyncio.subprocess.Process:
    log_dir = _log_dir(home)
    _emptied(log_dir)
    commands = {part: [str(_executable()), part] for part in parts}
    impatient = f"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN={_database(home, API_LOCK_TIMEOUT)}"
    commands["api-server"] = ["env", impatient, *commands["api-server"]]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(LEASH),
        str(log_dir),
        json.dumps(commands),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=env,
        cwd=PROJECT,
        start_new_session=True,
    )


async def _stop(leash: asyncio.subprocess.Process) -> None:
    if leash.stdin is not None:
        leash.stdin.close()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await leash.wait()
    except TimeoutError as exc:
        raise SandboxFailed(f"Airflow did not end within {STOP_TIMEOUT:.0f} s") from exc


async def _run(command: Sequence[str], *, env: Mapping[str, str], what: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=PROJECT,
            start_new_session=True,
        )
    except OSError as exc:
        raise SandboxFailed(f"{what}: {command[0]} does not start: {exc.strerror}") from exc
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = (err or out).decode(errors="replace").splitlines()[-LOG_TAIL:]
        raise SandboxFailed("\n".join([f"{what} failed with status {process.returncode}", *lines]))
    return out.decode(errors="replace")


def _log_dir(home: Path) -> Path:
    return home / "components"


def _emptied(log_dir: Path) -> None:
    shutil.rmtree(log_dir, ignore_errors=True)
    log_dir.mkdir()


def _tail(log_dir: Path) -> str:
    """The last lines of the component that ended, else of every one."""
    ended = log_dir / "ended"
    files = [log_dir / f"{ended.read_text()}.log"] if ended.exists() else sorted(log_dir.glob("*.log"))
    lines = LOG_TAIL // max(len(files), 1)
    return "\n".join(
        f"{file.stem}: {line}"
        for file in files
        for line in file.read_text(errors="replace").splitlines()[-lines:]
    )


async def _healthy(client: httpx.AsyncClient, started: datetime) -> bool:
    """True when each component has reported since `started`: a database remembers an earlier start."""
    try:
        answer = await client.get("/api/v2/monitor/health")
    except httpx.TransportError:
        return False
    if answer.status_code != httpx.codes.OK:
        return False
    parts = answer.json()
    beats = [parts[part][f"latest_{part}_heartbeat"] for part in ("scheduler", "dag_processor")]
    return all(beat is not None and datetime.fromisoformat(beat) > started for beat in beats)


async def _parsed(client: httpx.AsyncClient, dag_id: str) -> bool:
    try:
        answer = await client.get(f"/api/v2/dags/{dag_id}")
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK
