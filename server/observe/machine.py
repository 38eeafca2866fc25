"""This machine and this process, for the figures."""

from __future__ import annotations

from pathlib import Path

import psutil

from graph.domain import DomainType
from server.db.checkup import sqlite_file


class Machine(DomainType):
    """What the process uses and what is left; bytes."""

    cpu_percent: float  #: of one core, by this process since the question before
    machine_cpu_percent: float
    memory: int
    memory_available: int
    memory_total: int
    disk_free: int  #: where the database or, with Postgres, the working folder is
    disk_total: int


class MachineWatch:
    """Holds the process between two looks: the share of a processor is counted from look to look."""

    def __init__(self, database_url: str) -> None:
        file = sqlite_file(database_url)
        self._place = file.absolute().parent if file is not None else Path.cwd()
        self._process = psutil.Process()
        self._process.cpu_percent()
        psutil.cpu_percent()

    def look(self) -> Machine:
        """The figures of this moment."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(self._place))
        return Machine(
            cpu_percent=self._process.cpu_percent(),
            machine_cpu_percent=psutil.cpu_percent(),
            memory=self._process.memory_info().rss,
            memory_available=memory.available,
            memory_total=memory.total,
            disk_free=disk.free,
            disk_total=disk.total,
        )
