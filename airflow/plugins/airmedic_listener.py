"""Tells Airmedic which tasks fail in this Airflow. One file, standard library only, Airflow 2.7+ and 3.x.

Copy it into the plugins folder of the workers, the scheduler, the DAG processor and the API server
(2.x: webserver), and set `AIRMEDIC_URL` and `AIRMEDIC_WEBHOOK_SECRET` there. Without `AIRMEDIC_URL` it does
nothing. DAGs can also opt in one by one: `on_failure_callback` and `AirmedicNotifier` below need no plugin.

An event is written to the spool first and then sent, because a task's process ends right after the hook
returns: Airflow leaves it with `os._exit`, daemon threads are cut off and exit handlers of older versions
never run. The hook therefore waits for the delivery, one second at most; what did not get through stays in
the spool and goes out, signed afresh, with a later event.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import hmac
import http.client
import importlib
import inspect
import json
import logging
import os
import socket
import threading
import time
import urllib.parse
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    from airflow.plugins_manager import AirflowPlugin
except ImportError:  # outside Airflow, in a test
    AirflowPlugin = object  # type: ignore[assignment,misc]

try:
    from airflow.listeners import hookimpl
except ImportError:

    def hookimpl(function: Any) -> Any:
        """Stands in for pluggy's marker."""
        return function


try:
    from airflow.sdk import BaseNotifier
except ImportError:
    try:
        from airflow.notifications.basenotifier import BaseNotifier
    except ImportError:
        BaseNotifier = object  # type: ignore[assignment,misc]

log = logging.getLogger("airmedic.listener")

HOOK_WAIT = 1.0  # seconds a hook may hold its process
REQUEST_TIMEOUT = 3.0  # seconds per socket operation; a hook that waited HOOK_WAIT goes on without it
SLOW_BACKOFF = 15.0  # seconds without attempts after one that was too slow
REDELIVERY_DELAYS = (15.0, 30.0, 60.0, 120.0, 300.0)  # seconds, in processes that live on
BACKLOG_MIN_AGE = 5.0  # seconds; younger files are being sent by the process that wrote them
THREADS_MAX = 8
SPOOL_MAX_FILES = 1000
SPOOL_MAX_BYTES = 8_000_000
SPOOL_MAX_AGE = 86_400.0  # seconds; by then the poll has found the failure
ERROR_MAX = 500  # characters
STACKTRACE_MAX = 8000  # characters
FAILED_TASKS_MAX = 50  # per run; the poll finds the others
REFUSED_FOR_GOOD = frozenset({400, 404, 410, 413, 422})
ALREADY_THERE = 409


@dataclass(frozen=True)
class Config:
    """Where events go, as the environment says."""

    url: str
    secret: str
    airflow_id: str
    spool: Path

    @classmethod
    def from_env(cls) -> Config | None:
        """None when Airmedic is not configured here."""
        url = os.environ.get("AIRMEDIC_URL", "").strip().rstrip("/")
        if not url:
            return None
        home = os.environ.get("AIRFLOW_HOME") or os.path.expanduser("~/airflow")
        return cls(
            url=url + "/webhook",
            secret=os.environ.get("AIRMEDIC_WEBHOOK_SECRET", ""),
            airflow_id=os.environ.get("AIRMEDIC_AIRFLOW_ID") or "default",
            spool=Path(os.environ.get("AIRMEDIC_SPOOL_DIR") or os.path.join(home, "airmedic_spool")),
        )


# --- delivery ---------------------------------------------------------------------------------------------


def signature_headers(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of the Standard Webhooks specification."""
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{digest}",
    }


def post(config: Config, message_id: str, event: dict[str, Any]) -> int:
    """Send one event, signed now; returns the HTTP status. Redirects and proxies are not followed."""
    body = json.dumps(event, separators=(",", ":")).encode()
    headers = signature_headers(config.secret, message_id, int(time.time()), body)
    headers["content-type"] = "application/json"
    target = urllib.parse.urlsplit(config.url)
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=REQUEST_TIMEOUT)
    try:
        connection.request("POST", target.path, body=body, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


class Spool:
    """Events on disk, one file each, bounded in number, size and age; the oldest are dropped and counted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._dropped = folder / "dropped"
        self._slow = folder / "slow"

    def put(self, message_id: str, event: dict[str, Any]) -> Path:
        """Store one event. The name sorts by time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{time.time_ns():020d}_{message_id}.json"
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(event))
        part.replace(path)
        self._trim()
        return path

    def files(self) -> list[Path]:
        """What waits here, oldest first."""
        return sorted(self.folder.glob("*.json"))

    def drop(self, path: Path) -> None:
        """Give one event up for good."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            self.count_dropped(1)

    def count_dropped(self, change: int) -> None:
        """Add to the number of events given up and not reported yet."""
        with self.locked("count"):
            self._dropped.write_text(str(self._read_dropped() + change))

    def take_dropped(self) -> int:
        """That number, which the next event reports; put back with `count_dropped` if it is not delivered."""
        if not self._dropped.exists():
            return 0
        with self.locked("count"):
            count = self._read_dropped()
            self._dropped.unlink(missing_ok=True)
        return count

    def mark_slow(self) -> None:
        """Remember for all processes here that the server held us up."""
        self._slow.touch()

    def is_slow(self) -> bool:
        """True for a while after `mark_slow`."""
        try:
            return time.time() - self._slow.stat().st_mtime < SLOW_BACKOFF
        except OSError:
            return False

    @contextlib.contextmanager
    def locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold one of the folder's locks; yields whether it was got. A killed holder's lock is free again."""
        with open(self.folder / f"{name}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _read_dropped(self) -> int:
        try:
            return int(self._dropped.read_text() or 0)
        except (FileNotFoundError, ValueError):
            return 0

    def _trim(self) -> None:
        kept_bytes = 0
        for position, path in enumerate(reversed(self.files())):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                kept_bytes += stat.st_size
                too_many = position >= SPOOL_MAX_FILES or kept_bytes > SPOOL_MAX_BYTES
                if too_many or time.time() - stat.st_mtime > SPOOL_MAX_AGE:
                    self.drop(path)


def deliver(config: Config, spool: Spool, path: Path) -> bool:
    """Send one spooled event; True when the file is done with, False when it must wait."""
    try:
        event = json.loads(path.read_text())
    except FileNotFoundError:
        return True
    except ValueError:
        spool.drop(path)
        return True
    event["dropped"] = dropped = spool.take_dropped()
    status = _attempt(config, spool, path.stem.split("_", 1)[1], event)
    if 200 <= status < 300 or status == ALREADY_THERE:
        path.unlink(missing_ok=True)
        return True
    if dropped:
        spool.count_dropped(dropped)
    if status in REFUSED_FOR_GOOD:
        spool.drop(path)
        return True
    return False


def _attempt(config: Config, spool: Spool, message_id: str, event: dict[str, Any]) -> int:
    """The HTTP status, 0 for no answer."""
    try:
        status = post(config, message_id, event)
        reason = f"HTTP {status}"
    except TimeoutError:
        status, reason = 0, "too slow"
        with contextlib.suppress(OSError):
            spool.mark_slow()
    except (OSError, http.client.HTTPException) as exc:
        status, reason = 0, type(exc).__name__
    if not 200 <= status < 300:
        # This stands in the log of the task that failed: it must not read like the reason why.
        log.info("airmedic: %s is kept and sent later", event.get("event"))
        log.debug("airmedic: not taken: %s", reason)
    return status


def deliver_backlog(config: Config, spool: Spool) -> bool:
    """Send what earlier processes left behind; True when nothing is left for this process to do."""
    with spool.locked("backlog", wait=False) as mine:
        if not mine:
            return True
        for path in spool.files():
            age = time.time() - int(path.name.split("_", 1)[0]) / 1e9
            if age >= BACKLOG_MIN_AGE and not deliver(config, spool, path):
                return False
    return True


class _Slots:
    """How many threads a process may have: some that send, one that stays to send again."""

    def __init__(self) -> None:
        self.renew()
        # The scheduler forks its workers; a slot taken by a thread that the child does not have stays taken.
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.sending = threading.Semaphore(THREADS_MAX)
        self.staying = threading.Lock()


_slots = _Slots()


def _work(config: Config, spool: Spool, events: tuple[dict[str, Any], ...], *, stay: bool) -> None:
    free = _slots.sending.acquire(blocking=False)
    try:
        paths = [_spooled(config, spool, event) for event in events]
        if not free or spool.is_slow():
            return
        sent = all(path is None or deliver(config, spool, path) for path in paths)
        if sent and deliver_backlog(config, spool):
            return
    except Exception:  # a thread's traceback would go to the task's log as an error
        log.warning("airmedic event not sent", exc_info=True)
    finally:
        if free:
            _slots.sending.release()
    if stay:
        _redeliver(config, spool)


def _redeliver(config: Config, spool: Spool) -> None:
    if not _slots.staying.acquire(blocking=False):
        return
    try:
        for delay in REDELIVERY_DELAYS:
            time.sleep(delay)
            if deliver_backlog(config, spool):
                return
    except Exception:  # as in `_work`
        log.warning("airmedic backlog not sent", exc_info=True)
    finally:
        _slots.staying.release()


def _spooled(config: Config, spool: Spool, event: dict[str, Any]) -> Path | None:
    message_id = uuid.uuid4().hex
    try:
        return spool.put(message_id, event)
    except OSError as exc:
        log.warning("airmedic spool not usable (%s), sending without it", exc)
        _attempt(config, spool, message_id, {**event, "dropped": 0})
        return None


def send(*events: dict[str, Any], stay: bool = False) -> None:
    """Spool these events and send them with what waits there. Never raises.

    `stay` is for processes that live on (scheduler, API server): nothing is waited for. The thread lives only
    as long as something waits to be sent, so the scheduler normally forks without it.
    """
    try:
        config = Config.from_env()
        if config is None:
            return
        spool = Spool(config.spool)
        if not events and not spool.files():
            return
        named = tuple({**event, "airflow": config.airflow_id} for event in events)
        thread = threading.Thread(
            target=_work, args=(config, spool, named), kwargs={"stay": stay}, name="airmedic", daemon=True
        )
        thread.start()
        if not stay:
            # A thread, because no socket timeout bounds name resolution.
            thread.join(HOOK_WAIT)
            if thread.is_alive():
                spool.mark_slow()
    except Exception:  # whatever is wrong here must not reach a task or the scheduler
        log.warning("airmedic event not sent", exc_info=True)


# --- what an event says -----------------------------------------------------------------------------------


def _mask(text: str) -> str:
    for module in ("airflow.sdk._shared.secrets_masker", "airflow.utils.log.secrets_masker"):
        with contextlib.suppress(ImportError, AttributeError):
            return str(importlib.import_module(module).redact(text))
    return text


def _short(error: object) -> str:
    if error is None:
        return ""
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
    return _mask(text)[:ERROR_MAX]


def describe(event: str, task_instance: Any, error: object = None) -> dict[str, Any]:
    """One task instance as an event. Takes Airflow 3's RuntimeTaskInstance and the ORM's TaskInstance."""
    task = getattr(task_instance, "task", None)
    map_index = getattr(task_instance, "map_index", None)
    state = getattr(task_instance, "state", None)
    return {
        "event": event,
        "dag_id": task_instance.dag_id,
        "run_id": task_instance.run_id,
        "task_id": task_instance.task_id,
        "map_index": -1 if map_index is None else map_index,
        "try_number": task_instance.try_number,
        "max_tries": getattr(task_instance, "max_tries", 0) or 0,
        "state": None if state is None else str(getattr(state, "value", state)),
        "operator": getattr(task, "task_type", None) or getattr(task_instance, "operator", None),
        "hostname": getattr(task_instance, "hostname", None) or socket.gethostname(),
        "error": _short(error),
        "sent_at": datetime.now(timezone.utc).isoformat(),
    }


def _report(event: str, *task_instances: Any, error: object = None) -> None:
    try:
        described = [describe(event, task_instance, error) for task_instance in task_instances]
        # Only a worker holds Airflow 3's runtime form; the ORM form is the scheduler's or API server's there.
        runtime = any(type(one).__name__.startswith("Runtime") for one in task_instances)
        stay = not runtime and not _is_airflow_2()
    except Exception:  # as in `send`
        log.warning("airmedic could not describe the task instance", exc_info=True)
        return
    send(*described, stay=stay)


def _failed_tasks(dag_run: Any) -> list[Any]:
    try:
        from sqlalchemy.orm import object_session

        # The run's own session: a new one would commit inside the scheduler's transaction.
        session = object_session(dag_run)
        return list(dag_run.get_task_instances(state=["failed"], session=session))[:FAILED_TASKS_MAX]
    except Exception:  # as in `send`
        log.warning("airmedic could not list the run's failed tasks", exc_info=True)
        return []


def _is_airflow_2() -> bool:
    try:
        return str(importlib.import_module("airflow").__version__).startswith("2.")
    except (ImportError, AttributeError):
        return False


# --- the hooks --------------------------------------------------------------------------------------------


class _CommonHooks:
    """The hooks whose form is the same everywhere. pluggy passes only the arguments a hook names."""

    @hookimpl
    def on_task_instance_success(self, task_instance: Any) -> None:
        """A later try went well: wakes whoever waits for it."""
        if (getattr(task_instance, "try_number", 0) or 0) > 1:
            _report("task_instance_recovered", task_instance)
        else:
            send()

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any) -> None:
        """Tells again what failed in the run, and for the first time of tasks that no hook fired for.

        A process killed on its last try and a task stuck in the queue are such; the receiver knows repeats.
        """
        failed = _failed_tasks(dag_run)
        if failed:
            _report("task_instance_failed", *failed)

    @hookimpl
    def on_new_dag_import_error(self, filename: str, stacktrace: str) -> None:
        """A DAG file stopped importing."""
        event = {"event": "dag_import_error", "filename": str(filename), "hostname": socket.gethostname()}
        event["stacktrace"] = _mask(str(stacktrace))[-STACKTRACE_MAX:]
        event["sent_at"] = datetime.now(timezone.utc).isoformat()
        send(event, stay=True)


class ListenerWithError(_CommonHooks):
    """For Airflow 2.10+ and 3.x, which pass the error."""

    @hookimpl
    def on_task_instance_failed(self, task_instance: Any, error: object) -> None:
        """A try failed; fires for tries that Airflow will repeat, too."""
        _report("task_instance_failed", task_instance, error=error)


class ListenerWithoutError(_CommonHooks):
    """For Airflow 2.7 to 2.9."""

    @hookimpl
    def on_task_instance_failed(self, task_instance: Any) -> None:
        """A try failed; fires for tries that Airflow will repeat, too."""
        _report("task_instance_failed", task_instance)


def _make_listener() -> _CommonHooks:
    for module in ("airflow._shared.listeners.spec.taskinstance", "airflow.listeners.spec.taskinstance"):
        with contextlib.suppress(ImportError, AttributeError):
            spec = importlib.import_module(module).on_task_instance_failed
            known = inspect.signature(spec).parameters
            return ListenerWithError() if "error" in known else ListenerWithoutError()
    return ListenerWithError()


class AirmedicPlugin(AirflowPlugin):
    """Registers the listener."""

    name = "airmedic"
    listeners = [_make_listener()]  # noqa: RUF012  the form Airflow asks for


# --- for DAGs that opt in without the plugin --------------------------------------------------------------


def on_failure_callback(context: dict[str, Any]) -> None:
    """`default_args={"on_failure_callback": on_failure_callback}` reports this DAG's final failures."""
    task_instance = context.get("task_instance") or context.get("ti")
    if task_instance is not None:
        _report("task_instance_failed", task_instance, error=context.get("exception"))


class AirmedicNotifier(BaseNotifier):  # type: ignore[misc]
    """`on_failure_callback=AirmedicNotifier()`; also usable where Airflow awaits its notifiers."""

    template_fields = ()

    def notify(self, context: dict[str, Any]) -> None:
        """Report the failure."""
        on_failure_callback(context)

    async def async_notify(self, context: dict[str, Any]) -> None:
        """Report the failure without holding up the event loop."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, on_failure_callback, context)
