"""The plugin in the Airflow that is locked here, and against the hook forms of earlier versions."""

from __future__ import annotations

import pluggy
import pytest
from airflow.listeners.listener import get_listener_manager as core_listeners
from airflow.sdk import BaseNotifier
from airflow.sdk.listener import get_listener_manager as task_listeners
from airmedic_listener import (
    AirmedicNotifier,
    AirmedicPlugin,
    ListenerWithError,
    ListenerWithoutError,
    describe,
)

hookspec = pluggy.HookspecMarker("airflow")


class Airflow27:
    """The hooks' form in 2.7 to 2.9."""

    @hookspec
    def on_task_instance_failed(self, previous_state, task_instance, session): ...

    @hookspec
    def on_task_instance_success(self, previous_state, task_instance, session): ...


class Airflow210:
    """The hooks' form in 2.10 and 2.11."""

    @hookspec
    def on_task_instance_failed(self, previous_state, task_instance, error, session): ...


class TaskInstance:
    """The little of an ORM task instance that an event needs."""

    dag_id, run_id, task_id, map_index, try_number = "d", "r", "t", 3, 2


@pytest.mark.parametrize("managers", [core_listeners, task_listeners], ids=["core", "task runner"])
def test_the_listener_registers_in_this_airflow(managers):
    manager = managers().pm

    name = manager.register(AirmedicPlugin.listeners[0])

    assert name is not None
    assert [impl.plugin_name for impl in manager.hook.on_task_instance_failed.get_hookimpls()] == [name]


def test_this_airflow_passes_the_error():
    assert isinstance(AirmedicPlugin.listeners[0], ListenerWithError)


@pytest.mark.parametrize(
    ("specs", "listener"),
    [
        pytest.param(Airflow27, ListenerWithoutError, id="2.7 to 2.9 pass a session and no error"),
        pytest.param(Airflow210, ListenerWithError, id="2.10 and 2.11 pass both"),
    ],
)
def test_the_hooks_fit_earlier_forms(specs, listener, monkeypatch):
    monkeypatch.delenv("AIRMEDIC_URL", raising=False)
    manager = pluggy.PluginManager("airflow")
    manager.add_hookspecs(specs)
    manager.register(listener())
    given = {"previous_state": None, "task_instance": TaskInstance(), "error": None, "session": None}
    known = manager.hook.on_task_instance_failed.spec.argnames

    manager.hook.on_task_instance_failed(**{name: given[name] for name in known})


def test_an_orm_task_instance_is_described():
    event = describe("task_instance_failed", TaskInstance(), "state mismatch")

    assert (event["map_index"], event["try_number"], event["error"]) == (3, 2, "state mismatch")


def test_the_notifier_is_one_of_airflows():
    assert issubclass(AirmedicNotifier, BaseNotifier)
