"""Which failures have one cause: the family of the cause, the thing that failed, and the error's template.

Only causes in the infrastructure correlate beyond one task, and only when the error names one thing that
failed. The thing is read from the text as it is, never from its template: two broken hosts are two causes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from graph.domain import DomainType, RootCause, digest
from tools.signature import template

# Everything that is not here (data, code, queries, settings) correlates within one task and no further.
FAMILIES: Mapping[RootCause, str] = MappingProxyType(
    {
        RootCause.NETWORK_UNREACHABLE: "network",
        RootCause.UPSTREAM_UNAVAILABLE: "service",
        RootCause.RATE_LIMITED: "quota",
        RootCause.AUTHENTICATION_FAILED: "credentials",
        RootCause.CAPACITY_UNAVAILABLE: "capacity",
        RootCause.WORKER_LOST: "worker",
    }
)
# What shows by another of these, or by time that ran out, may still be the same outage.
KIN = frozenset({*FAMILIES, RootCause.TIMEOUT})
KERNEL_CHARS = 160
READ_CHARS = 2000  # of an error are looked at
LOOPBACK = re.compile(r"localhost|127(?:\.\d+){3}|::1|0\.0\.0\.0")
SCHEME_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "postgres": 5432, "mysql": 3306}
STORES = frozenset({"s3", "s3a", "s3n", "gs", "gcs", "wasb", "wasbs", "abfs", "abfss", "hdfs", "oss", "cos"})
WORDS = frozenset({"host", "the", "name", "hostname", "address", "port"})  # of a sentence, no hosts
FILES = re.compile(
    r"\.(?:py|pyx|java|scala|go|rs|c|cc|cpp|h|js|ts|rb|php|sql|sh|kt|jar|log|ya?ml|json)$", re.I
)

_HOST = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
_NAMED = r"(?:to|by|at|from|on|of|host|server|resolve)"
_PLACES = (
    re.compile(rf"\bhost=['\"](?P<host>{_HOST})['\"](?:,\s*port=['\"]?(?P<port>\d+))?"),
    re.compile(rf"server at \"(?P<host>{_HOST})\"(?: \([^)]*\))?, port (?P<port>\d+)"),
    re.compile(
        r"(?i)(?:resolve|translate|look ?up)(?: the)?(?: host)?(?: ?name)?:? ?['\"]?"
        rf"(?P<host>{_HOST})(?![\w.-])"
    ),
    re.compile(rf"(?i)\b(?:ENOTFOUND|EAI_AGAIN) (?P<host>{_HOST})"),
    re.compile(rf"(?i)\b{_NAMED}\s+['\"(]?(?P<host>{_HOST})['\")]?,?\s+(?:tcp\s+)?port[ =:]\s*(?P<port>\d+)"),
    re.compile(rf"(?i)\bserver on '(?P<host>{_HOST})(?::(?P<port>\d+))?'"),
)
# Here a file with a line number looks the same.
_BARE = (
    re.compile(rf"(?i)\b{_NAMED}:?\s+['\"(]?(?P<host>{_HOST}):(?P<port>\d{{2,5}})(?![\w.:-])"),
    re.compile(r"(?<![\w./@:-])(?P<host>(?:\d{1,3}\.){3}\d{1,3}):(?P<port>\d{2,5})(?![\w.:-])"),
    re.compile(r"(?<![\w./@:-])(?P<host>[A-Za-z0-9][\w-]*(?:\.[\w-]+)+):(?P<port>\d{2,5})(?![\w.:-])"),
)
# A page to read is no place that failed: `see https://…`, `(Background on this error at: https://…)`.
_TO_READ = re.compile(
    r"(?i)\b(?:see|visit|consult|refer to|learn more|more (?:info(?:rmation)?|details|help)"
    r"|background on this error|docs|documentation|troubleshooting)\b"
    r"(?:,? (?:see|visit|consult|here|at|on|in|it|this|the|docs|documentation|page|guide))*[:,]?\s*['\"(<]?$"
)
_BEFORE = 60  # characters before a URL that say what it is for
_URL = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+]*)://(?:[^\s/@'\"]*@)?(?P<host>[\w.-]+)(?::(?P<port>\d+))?")
_NAMES = {
    "conn": re.compile(r"(?i)\bconn(?:ection)?[_ ]id[ =:]*[`'\"]([\w.-]+)[`'\"]"),
    "bucket": re.compile(r"(?i)\bbucket(?: ?name)?[ =:]*[`'\"]([\w.-]+)[`'\"]"),
}
_OF_FAMILY = {
    "capacity": ("pool", re.compile(r"(?i)\bpool(?: ?name)?[ =:]*[`'\"]([\w.-]+)[`'\"]")),
    "worker": ("worker", re.compile(r"(?i)\b(?:hostname|host|node|worker)[ =:]*[`'\"]([\w.-]+)[`'\"]")),
}
_STAMP = re.compile(r"^\s*\[[^\]]{8,40}\]\s*(?:\{[^}]*\}\s*)?(?:[A-Z]+\s*-\s*)?")
_CLASS = re.compile(r"^(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)(?=: )")
_URL_PATH = re.compile(r"(\b[a-z][a-z0-9+]*://[^\s/?#'\"]+)[/?#][^\s'\")]*")
_WITH_URL = re.compile(r"(with url: )\S+")
_OBJECT = re.compile(r"<[\w.]+ object at 0x[0-9a-fA-F]+>")
_QUOTES = re.compile(r"[\"'`]")


class Cause(DomainType):
    """What several failures may have in common."""

    key: str
    family: str
    resource: str  #: what failed, as the error names it
    kernel: str  #: the error without what changes from one failure to the next


def cause_of(airflow: str, root_cause: RootCause, error: str, *, loopback: bool = False) -> Cause | None:
    """What this error shares with others; None when it may have nothing to do with any other task.

    `loopback`: all tasks run on one machine, so that its own address is the same place for all of them.
    """
    family = FAMILIES.get(root_cause)
    if family is None:
        return None
    resource = resource_of(error, family, loopback=loopback)
    if resource is None:
        return None
    core = kernel(error)
    key = digest([airflow, family, resource, core])
    return Cause(key=key, family=family, resource=resource, kernel=core)


def kernel(error: str) -> str:
    """The error's first line as a template: no time, no module path, no path of a URL, no values."""
    lines = (line.strip() for line in error[:READ_CHARS].splitlines())
    first = next((line for line in lines if line), "")
    core = _CLASS.sub(r"\1", _STAMP.sub("", first))
    core = _OBJECT.sub("<object>", _WITH_URL.sub(r"\1<url>", _URL_PATH.sub(r"\1", core)))
    return template(_QUOTES.sub("'", core))[:KERNEL_CHARS]


def resource_of(error: str, family: str, *, loopback: bool = False) -> str | None:
    """The one thing that the error says has failed; None when it names none, or more than one."""
    text = error[:READ_CHARS]
    places = _places(text)
    if places:
        if len(places) > 1:
            return None
        (place,) = places
        return None if LOOPBACK.fullmatch(place.rpartition(":")[0] or place) and not loopback else place
    named = {f"{kind}:{name}" for kind, pattern in _NAMES.items() for name in pattern.findall(text)}
    if family in _OF_FAMILY and not named:
        kind, pattern = _OF_FAMILY[family]
        named = {f"{kind}:{name}" for name in pattern.findall(text)}
    return named.pop() if len(named) == 1 else None


def names_one(error: str, *, loopback: bool = False) -> bool:
    """Whether the error names one thing that other failures of some family could share."""
    families = ("network", *_OF_FAMILY)  # the others look for what the first one does
    return any(resource_of(error, family, loopback=loopback) is not None for family in families)


def _places(text: str) -> set[str]:
    """Every host[:port] and bucket that the text names, each once."""
    ports: dict[str, set[str]] = {}
    for host, port in _mentions(text):
        ports.setdefault(host, set()).update([port] if port else [])
    found: set[str] = set()
    for host, known in ports.items():
        found |= {f"{host}:{port}" for port in known} or {host}
    return found


def _mentions(text: str) -> Iterator[tuple[str, str]]:
    for url in _URL.finditer(text):
        if _TO_READ.search(text[max(0, url.start() - _BEFORE) : url.start()]):
            continue
        scheme, host = url["scheme"], url["host"].rstrip(".").casefold()
        if scheme in STORES:
            yield f"{scheme[:2]}://{host}", ""
        elif host:
            default = str(SCHEME_PORTS[scheme]) if scheme in SCHEME_PORTS else ""
            yield host, url["port"] or default
    text = _URL.sub(" ", text)
    for pattern in (*_PLACES, *_BARE):
        for match in pattern.finditer(text):
            host = match["host"].rstrip(".").casefold()
            file = pattern in _BARE and FILES.search(host)
            if not file and host not in WORDS:
                yield host, match.groupdict().get("port") or ""
