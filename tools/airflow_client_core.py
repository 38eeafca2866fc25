"""The part of the generated Airflow client that sends requests, without its two hundred answer models.

Importing the package imports every API and every model: a second of work and 20 MB, for what nothing here
uses. So its package modules stand in empty while those that are needed are imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec

EMPTIED = ("airflow_client.client", "airflow_client.client.models")


@contextmanager
def _emptied() -> Iterator[None]:
    """Whoever imports the whole package afterwards gets it whole."""
    if EMPTIED[0] in sys.modules:  # somebody has: then it costs nothing more
        yield
        return
    for name in EMPTIED:
        spec = find_spec(name)
        if spec is None:
            raise ImportError(f"{name} is not installed")
        sys.modules[name] = module_from_spec(spec)
    try:
        yield
    finally:
        for name in EMPTIED:
            del sys.modules[name]


with _emptied():
    from airflow_client.client.api_client import ApiClient as ApiClient
    from airflow_client.client.configuration import Configuration as Configuration
    from airflow_client.client.rest import should_bypass_proxies as should_bypass_proxies
