"""Names in a person's words, found in the store and in Airflow. Nothing else is ever a target."""

from __future__ import annotations

import re
from dataclasses import dataclass

from graph.domain import DagInfo, TaskInfo, TaskRef, TaskSnapshot
from graph.errors import AirflowRefused, IncidentNotFound, NotFound
from server.chat.desk import Desk
from server.chat.say import Unclear, one_line
from server.chat.words import incident_number, names_in, run_in
from server.listing import IncidentQuery
from server.record import IncidentLine, IncidentRecord
from server.store_reads import ENDED
from tools.requested import is_request

MOST_NAMES = 6
LISTED = 5
LOOKED_BACK = 20  # runs of one task
ARTICLES = "it that this the a of in on for from dag task pipeline run incident again now please its"
FILLER = frozenset(ARTICLES.split())


@dataclass(frozen=True)
class Names:
    """What of a person's words names something that exists."""

    dags: tuple[str, ...]
    tasks: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether anything was found."""
        return bool(self.dags or self.tasks)


async def known_names(desk: Desk, text: str, *, strict: bool = False) -> Names:
    """Which of the words are DAGs and tasks; the store is asked first, Airflow for DAGs it does not know."""
    dags: list[str] = []
    tasks: list[str] = []
    unknown: list[str] = []
    for name in [one for one in names_in(text, every=strict) if one not in FILLER][:MOST_NAMES]:
        is_dag, is_task = await _in_store(desk, dag=name), await _in_store(desk, task=name)
        if not is_dag:
            is_dag = await dag_called(desk, name) is not None
        dags += [name] if is_dag else []
        tasks += [name] if is_task else []
        unknown += [] if is_dag or is_task else [name]
    # A task is known by its DAG, too.
    for dag_id in dags:
        if unknown or not tasks:
            infos = {one.task_id for one in await _tasks_of(desk, dag_id)}
            tasks += [name for name in unknown if name in infos]
            tasks += [name for name in dags if name != dag_id and name in infos]
            unknown = [name for name in unknown if name not in infos]
    return Names(tuple(dags), tuple(dict.fromkeys(tasks)), tuple(unknown))


async def _in_store(desk: Desk, *, dag: str | None = None, task: str | None = None) -> bool:
    query = IncidentQuery(dags=(dag,) if dag else (), tasks=(task,) if task else ())
    return bool((await desk.service.store.listing.page(query, cursor=None, limit=1)).items)


async def dag_called(desk: Desk, name: str) -> DagInfo | None:
    """The DAG of this name, as Airflow knows it."""
    if re.fullmatch(r"[A-Za-z0-9_.\-]{1,250}", name) is None or name.strip(".") == "":
        return None
    try:
        return await desk.service.airflow.dag(name)
    except AirflowRefused:
        return None


async def _tasks_of(desk: Desk, dag_id: str) -> tuple[TaskInfo, ...]:
    try:
        return await desk.service.airflow.dag_tasks(dag_id)
    except AirflowRefused:
        return ()


async def incident_in(desk: Desk, text: str) -> IncidentRecord:
    """The incident that these words name. Raises `Unclear`."""
    if (number := incident_number(text)) is not None:
        return await numbered(desk, number)
    names = await known_names(desk, text)
    if names.any:
        return await _named(desk, names)
    if names.unknown and desk.focus is None:
        raise Unclear(f"I know no incident, DAG or task called {', '.join(map(repr, names.unknown))}")
    if desk.focus is not None:
        return await numbered(desk, desk.focus)
    return await _only_open(desk)


async def numbered(desk: Desk, number: int) -> IncidentRecord:
    """The incident of this number. Raises `Unclear`."""
    try:
        return await desk.service.store.incident(number)
    except IncidentNotFound as exc:
        raise Unclear(f"there is no incident {number}") from exc


async def _named(desk: Desk, names: Names) -> IncidentRecord:
    dags, tasks = names.dags, names.tasks
    lines = await _page(desk, IncidentQuery(dags=dags, tasks=tasks))
    if not lines and dags and tasks:
        lines = await _page(desk, IncidentQuery(dags=dags)) or await _page(desk, IncidentQuery(tasks=tasks))
    if not lines:
        told = ", ".join(map(repr, (*dags, *tasks)))
        raise Unclear(f"no incident of {told} is known")
    still = [one for one in lines if one.status not in ENDED] or lines
    if len({(one.task.dag_id, one.task.task_id) for one in still}) > 1:
        raise _which("that could be any of these; name one by its number:", still, desk)
    return await numbered(desk, still[0].id)


async def _only_open(desk: Desk) -> IncidentRecord:
    lines = [one for one in await _page(desk, IncidentQuery()) if one.status not in ENDED]
    if len(lines) == 1:
        return await numbered(desk, lines[0].id)
    if not lines:
        raise Unclear("which incident? None is open; /incidents lists all, /show N opens one")
    raise _which("which incident? These are open; name one by its number:", lines, desk)


async def _page(desk: Desk, query: IncidentQuery) -> list[IncidentLine]:
    return list((await desk.service.store.listing.page(query, cursor=None, limit=50)).items)


def _which(head: str, lines: list[IncidentLine], desk: Desk) -> Unclear:
    shown = lines[:LISTED]
    rest = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    text = "\n".join([head, *(one_line(one, desk.zone) for one in shown), *rest])
    return Unclear(text, links=[one.id for one in shown])


# --- targets of deeds -------------------------------------------------------------------------------------


async def failed_task_in(desk: Desk, text: str, *, strict: bool) -> TaskSnapshot:
    """The failed task instance that these words name, as Airflow shows it now. Raises `Unclear`.

    `strict`: every word must name something; what is left over may be a condition nobody heeded.
    """
    number = incident_number(text)
    names = await known_names(desk, text, strict=strict)
    if strict:
        _all_named(text, names)
    if number is not None and names.any:
        raise Unclear("name the incident by its number, or the task by DAG and task, not both")
    if number is not None or not names.any:
        record = await incident_in(desk, text) if number is not None else await _in_focus(desk)
        if is_request(record.task) or record.task.task_id.startswith("("):
            raise Unclear(f"incident {record.id} is not about a task that could be tried again")
        return await _still_failed(desk, record.task)
    run_id = run_in(text)
    if not names.tasks:
        raise Unclear(f"which task of {names.dags[0]!r}? Say: /retry {names.dags[0]} task [run]")
    if not names.dags:
        record = await _named(desk, names)
        return await _still_failed(desk, record.task)
    pairs = [(dag, task) for dag in names.dags for task in names.tasks if dag != task]
    if len(pairs) != 1:
        raise Unclear("that names more than one task; say: /retry dag task [run]")
    return await _failed_instance(desk, *pairs[0], run_id=run_id)


async def _in_focus(desk: Desk) -> IncidentRecord:
    if desk.focus is None:
        raise Unclear("which one? Name the incident by its number, or say: /retry dag task [run]")
    return await numbered(desk, desk.focus)


async def _failed_instance(desk: Desk, dag_id: str, task_id: str, *, run_id: str | None) -> TaskSnapshot:
    try:
        history = await desk.service.airflow.history(dag_id, task_id, limit=LOOKED_BACK)
    except NotFound as exc:
        raise Unclear(f"Airflow knows no task {task_id!r} in {dag_id!r}") from exc
    found = [one for one in history if run_id is None or one.task.run_id == run_id]
    failed = [one for one in found if one.state == "failed"]
    if not failed:
        where = f" in run {run_id!r}" if run_id else " in its last runs"
        raise Unclear(
            f"Airflow shows no failed instance of {dag_id}.{task_id}{where}: there is nothing to retry"
        )
    if len(failed) > 1:
        listed = "\n".join(f"{one.task}, try {one.try_number}" for one in failed[:LISTED])
        raise Unclear(f"{len(failed)} instances of it have failed; name the run, or the incident:\n{listed}")
    return failed[0]


async def _still_failed(desk: Desk, task: TaskRef) -> TaskSnapshot:
    try:
        now = await desk.service.airflow.task(task)
    except NotFound as exc:
        raise Unclear(f"Airflow knows no {task} any more") from exc
    if now.state != "failed":
        raise Unclear(f"{task} is {now.state} on try {now.try_number} now: there is nothing to retry")
    return now


async def dag_in(desk: Desk, text: str, *, strict: bool) -> DagInfo:
    """The DAG that these words name, as Airflow shows it now. Raises `Unclear`."""
    names = await known_names(desk, text, strict=strict)
    if strict:
        _all_named(text, names)
    dags, number = names.dags, incident_number(text)
    if number is not None and not dags:
        dags = ((await numbered(desk, number)).task.dag_id,)
    if not dags and names.tasks:
        raise Unclear("a task is not paused, its DAG is; name the DAG")
    if not dags and desk.focus is not None and not names.unknown:
        dags = ((await numbered(desk, desk.focus)).task.dag_id,)
    if len(dags) != 1:
        told = "which DAG? Name it: /pause dag" if not dags else f"which of {', '.join(map(repr, dags))}?"
        raise Unclear(told)
    found = await dag_called(desk, dags[0])
    if found is None:
        raise Unclear(f"Airflow knows no DAG {dags[0]!r}")
    return found


def _all_named(text: str, names: Names) -> None:
    """A deed is what the whole message says: "retry load when it is back" is not "retry load"."""
    known = {*names.dags, *names.tasks}
    known |= {f"{dag}.{task}" for dag in names.dags for task in names.tasks}
    run = run_in(text)
    words = [one.strip(",;:'\"").rstrip(".") for one in text.split()]
    left = [
        one
        for one in words
        if one
        and one not in known
        and one.casefold() not in FILLER
        and one != run
        and re.fullmatch(r"#?\d{1,9}", one) is None
    ]
    if left:
        raise Unclear(
            f"I do not know what {' '.join(left)!r} names, so nothing is asked for; "
            "say for example: /retry dag task, /pause dag until nine"
        )
