"""Who is told what: AIRMEDIC_NOTIFY_URLS alone, or the YAML file that AIRMEDIC_NOTIFY names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from graph.domain import Severity
from graph.errors import SettingsInvalid
from server.people.notices import EVENTS
from server.people.notifier import Notice
from tools.policy_rules import Hours
from tools.yaml_text import NotYaml, yaml_of

URLS = "urls"  # the target that stands for AIRMEDIC_NOTIFY_URLS
# A comma belongs to the address when no scheme follows it: mailto://...?to=a@b.c,d@e.f
BETWEEN = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]
Severities = Annotated[tuple[Severity, ...], BeforeValidator(_several), Field(min_length=1)]


class Part(BaseModel):
    """Base of everything in the file: closed and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Route(Part):
    """Tells some targets of what fits all its conditions. A condition that is not given fits everything."""

    to: Names
    events: Names | None = None
    severity: Severities | None = None
    dags: Names | None = None
    tags: Names | None = None

    @field_validator("events")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name not in EVENTS:
                raise ValueError(_not_among(name, EVENTS))
        return names

    def fits(self, notice: Notice, tags: Iterable[str] | None) -> bool:
        """Whether this route tells of `notice`. Tags that could not be read count as fitting."""
        if self.events is not None and notice.event not in self.events:
            return False
        if self.severity is not None and notice.severity not in self.severity:
            return False
        if self.dags is not None and not _like([notice.dag_id], self.dags):
            return False
        return self.tags is None or tags is None or _like(tags, self.tags)


class Digest(Part):
    """What is not urgent comes bundled."""

    minutes: int = Field(60, ge=1, le=7 * 24 * 60)
    events: Names | None = None  #: which events wait for the digest; by default what went well

    @field_validator("events")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return Route._known(names)


class Quiet(Part):
    """Hours in which only what is grave goes out at once; the rest comes bundled afterwards."""

    hours: Hours
    but: Severities = (Severity.CRITICAL,)


class NotifyFile(Part):
    """The whole file."""

    version: Literal[1]
    targets: dict[str, Names] = {}  #: name → Apprise URLs; ${NAME} is taken from the environment
    routes: tuple[Route, ...] = Field(min_length=1)
    digest: Digest = Digest()
    quiet: Quiet | None = None


class Routing:
    """Which URLs are told of a notice, and when."""

    def __init__(self, file: NotifyFile, urls: Mapping[str, tuple[str, ...]]) -> None:
        self._file = file
        self._urls = urls

    @property
    def urls(self) -> tuple[str, ...]:
        """Every URL, each once, in the order of the targets."""
        return tuple(dict.fromkeys(url for urls in self._urls.values() for url in urls))

    def targets(self, notice: Notice, tags: Iterable[str] | None = None) -> tuple[str, ...]:
        """The URLs that are told of this notice."""
        fitting = [route for route in self._file.routes if route.fits(notice, tags)]
        names = dict.fromkeys(name for route in fitting for name in route.to)
        return tuple(dict.fromkeys(url for name in names for url in self._urls[name]))

    @property
    def asks_tags(self) -> bool:
        """Whether a route looks at DAG tags."""
        return any(route.tags is not None for route in self._file.routes)

    def wait_for_digest(self, event: str) -> timedelta | None:
        """How long this event waits for others of its kind; None when it goes out at once."""
        chosen = self._file.digest.events
        waits = EVENTS[event].digest if chosen is None else event in chosen
        return timedelta(minutes=self._file.digest.minutes) if waits else None

    def quiet_now(self, severity: Severity, now: datetime) -> bool:
        """Whether a notice of this severity waits for the end of the quiet hours."""
        quiet = self._file.quiet
        return quiet is not None and severity not in quiet.but and quiet.hours.contains(now)


def load_routing(
    urls: str | None, file: Path | None, *, digest: timedelta, environ: Mapping[str, str] | None = None
) -> Routing | None:
    """Who is told; None when nobody is. Raises `SettingsInvalid` with a sentence per mistake."""
    given = split_urls(urls or "")
    if file is None:
        if not given:
            return None
        minutes = max(1, round(digest.total_seconds() / 60))
        everything = NotifyFile(version=1, routes=(Route(to=(URLS,)),), digest=Digest(minutes=minutes))
        return Routing(everything, {URLS: given})
    found = _read(file)
    known: dict[str, tuple[str, ...]] = {URLS: given} if given else {}
    for name, several in found.targets.items():
        known[name] = tuple(
            _filled(one, file, name, os.environ if environ is None else environ) for one in several
        )
    for number, route in enumerate(found.routes):
        for name in route.to:
            if name not in known:
                raise SettingsInvalid(f"{file}: routes[{number}].to: {_not_among(name, known)}")
    return Routing(found, known)


def split_urls(text: str) -> tuple[str, ...]:
    """The URLs in AIRMEDIC_NOTIFY_URLS, which commas or spaces separate."""
    return tuple(part.strip(" ,\n\t") for part in BETWEEN.split(text.strip()) if part.strip(" ,\n\t"))


def _read(path: Path) -> NotifyFile:
    try:
        found = yaml_of(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsInvalid(f"AIRMEDIC_NOTIFY: {path}: cannot be read: {exc}") from exc
    except NotYaml as exc:
        raise SettingsInvalid(f"{path}: not YAML: {exc}") from exc
    if not isinstance(found, dict):
        raise SettingsInvalid(f"{path}: must be a mapping with version, targets and routes")
    try:
        return NotifyFile.model_validate(found)
    except ValidationError as exc:
        wrong = []
        for one in exc.errors():
            place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in one["loc"]).lstrip(".")
            wrong.append(f"{path}: {place or 'the file'}: {one['msg'].removeprefix('Value error, ')}")
        raise SettingsInvalid("\n".join(wrong)) from exc


def _filled(url: str, file: Path, name: str, environ: Mapping[str, str]) -> str:
    missing = [one for one in VARIABLE.findall(url) if one not in environ]
    if missing:
        raise SettingsInvalid(f"{file}: targets.{name}: the variable {missing[0]} is not set")
    return VARIABLE.sub(lambda match: environ[match.group(1)], url)


def _like(names: Iterable[str], patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _not_among(given: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = get_close_matches(given, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{given!r} is not among {', '.join(names) or 'nothing'}{hint}"
