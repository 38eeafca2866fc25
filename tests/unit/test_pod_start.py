"""A pod that did not start in time: its events may say what kept it."""

from __future__ import annotations

import pytest

from graph.domain import RootCause, TaskLog
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase

LOG = """[2026-09-01T03:00:01.000Z] INFO - Creating pod etl-1 in namespace data
[2026-09-01T03:00:05.000Z] WARNING - The Pod has an Event: {event} from None
[2026-09-01T03:02:05.000Z] WARNING - Pod not yet started: etl-1
[2026-09-01T03:05:05.000Z] ERROR - Task failed with exception
Traceback (most recent call last):
  File "/opt/airflow/providers/cncf/kubernetes/operators/pod.py", line 9, in f
    self.await_pod_start(pod=self.pod)
PodLaunchTimeoutException: Pod took too long to start. More than 300s. Check the pod events in kubernetes.
"""


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


@pytest.mark.parametrize(
    ("event", "cause", "transient"),
    [
        ("Error: ImagePullBackOff", RootCause.DEPENDENCY_ERROR, False),
        (
            'MountVolume.SetUp failed for volume "cfg" : configmap "cfg" not found',
            RootCause.MISSING_CONFIGURATION,
            False,
        ),
        ("0/6 nodes are available: 6 Insufficient cpu.", RootCause.CAPACITY_UNAVAILABLE, True),
        ("Successfully assigned data/etl-1 to node-3", RootCause.CAPACITY_UNAVAILABLE, True),
    ],
    ids=["no image", "no configuration", "no room", "nothing said"],
)
def test_what_kept_it_is_the_cause(
    base: KnowledgeBase, event: str, cause: RootCause, transient: bool
) -> None:
    found = base.diagnose(Case(log=TaskLog(text=LOG.format(event=event))))

    assert (found.root_cause, found.transient) == (cause, transient)
