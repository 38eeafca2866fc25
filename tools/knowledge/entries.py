"""Loads and checks knowledge files. A malformed file stops the start, naming file and entry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import re2
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graph.domain import Remediation, RootCause
from graph.errors import KnowledgeInvalid
from tools.yaml_text import NotYaml, yaml_of

FOLDER = Path(__file__).parent


class Strict(BaseModel):
    """A part of a knowledge file: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


FileT = TypeVar("FileT", bound=Strict)


class CauseDefaults(Strict):
    """What holds for a root cause unless an entry says otherwise."""

    transient: bool
    remediation: Remediation
    alternatives: tuple[Remediation, ...] = ()
    wait: float | None = None  #: seconds worth waiting before a retry
    says: str


class EntryFile(Strict):
    """One entry as written."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    cause: RootCause
    strength: str
    patterns: tuple[str, ...] = Field(min_length=1)
    unless: tuple[str, ...] = ()
    transient: bool | None = None
    remediation: Remediation | None = None
    wait: float | None = Field(default=None, ge=0)
    says: str | None = None
    plain: bool | None = None


class FamilyFile(Strict):
    """One knowledge file."""

    family: str
    plain: bool = (
        False  #: of its entries, unless they say otherwise: words that an ordinary line may hold too
    )
    entries: tuple[EntryFile, ...] = ()
    drop: tuple[str, ...] = ()  #: names of shipped entries (`family/id`) that do not hold here


class DefaultsFile(Strict):
    """`_causes.yaml`."""

    causes: dict[RootCause, CauseDefaults]
    strengths: dict[str, float]


class OwnDefaults(Strict):
    """What a user's `_causes.yaml` says of one cause; the rest stays as shipped."""

    transient: bool | None = None
    remediation: Remediation | None = None
    alternatives: tuple[Remediation, ...] | None = None
    wait: float | None = Field(default=None, ge=0)
    says: str | None = None


class OwnDefaultsFile(Strict):
    """A user's `_causes.yaml`."""

    causes: dict[RootCause, OwnDefaults] = Field(default_factory=dict)
    strengths: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing the knowledge base knows, defaults filled in."""

    name: str  #: family/id
    cause: RootCause
    strength: float
    transient: bool
    remediation: Remediation
    alternatives: tuple[Remediation, ...]
    wait: float | None  #: seconds worth waiting before a retry, where that is known
    says: str
    unless: tuple[Any, ...]  #: compiled
    own: bool = False  #: the user's
    plain: bool = False  #: words that an ordinary line may hold too: a hint where nothing went wrong


@dataclass(frozen=True, slots=True)
class Knowledge:
    """All entries, and for each pattern the entry it belongs to."""

    entries: tuple[Entry, ...]
    patterns: tuple[str, ...]
    owner: tuple[int, ...]
    causes: dict[RootCause, CauseDefaults]


def load(extra_folder: Path | None = None) -> Knowledge:
    """The shipped knowledge with the user's on top: of two entries of one name the user's counts."""
    if extra_folder is not None and not extra_folder.is_dir():
        raise KnowledgeInvalid(f"AIRMEDIC_KNOWLEDGE or --knowledge names {str(extra_folder)!r}, no folder")
    defaults = _defaults(extra_folder)
    entries: list[Entry] = []
    patterns: list[str] = []
    owner: list[int] = []
    for path, family, entry in _written(extra_folder):
        for pattern in entry.patterns:
            _compile(pattern, path, entry.id)
            patterns.append(pattern)
            owner.append(len(entries))
        entries.append(_entry(entry, family, path, defaults, own=path.parent != FOLDER))
    return Knowledge(tuple(entries), tuple(patterns), tuple(owner), defaults.causes)


def _defaults(extra_folder: Path | None) -> DefaultsFile:
    shipped = read_file(FOLDER / "_causes.yaml", DefaultsFile)
    if missing := set(RootCause) - set(shipped.causes):
        raise KnowledgeInvalid(f"_causes.yaml: no defaults for {sorted(missing)!r}")
    path = extra_folder / "_causes.yaml" if extra_folder is not None else None
    if path is None or not path.exists():
        return shipped
    own = read_file(path, OwnDefaultsFile)
    causes = dict(shipped.causes)
    for cause, changed in own.causes.items():
        causes[cause] = causes[cause].model_copy(update=changed.model_dump(exclude_none=True))
    return DefaultsFile(causes=causes, strengths={**shipped.strengths, **own.strengths})


Written = tuple[Path, str, EntryFile]


def _written(extra_folder: Path | None) -> Iterator[Written]:
    """Every entry with its file and family: the shipped ones that still hold, then the user's."""
    shipped, dropped = _read_folder(FOLDER)
    if dropped:
        raise KnowledgeInvalid(f"{next(iter(dropped.values())).name}: only a user's own folder drops entries")
    if extra_folder is not None:
        own, dropped = _read_folder(extra_folder)
        for name, path in dropped.items():
            if name not in shipped:
                raise KnowledgeInvalid(f"{path.name}: drop: there is no shipped entry {name!r}")
        kept = {name: one for name, one in shipped.items() if name not in dropped}
        shipped = {**kept, **own}
    yield from shipped.values()


def _read_folder(folder: Path) -> tuple[dict[str, Written], dict[str, Path]]:
    found: dict[str, Written] = {}
    dropped: dict[str, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        if path.name.startswith("_"):
            continue
        family = read_file(path, FamilyFile)
        for entry in family.entries:
            name = f"{family.family}/{entry.id}"
            if name in found:
                raise KnowledgeInvalid(f"{path.name}: entry {name!r} is also in {found[name][0].name}")
            if entry.plain is None:
                entry = entry.model_copy(update={"plain": family.plain})
            found[name] = path, family.family, entry
        dropped.update(dict.fromkeys(family.drop, path))
    return found, dropped


def read_file(path: Path, kind: type[FileT]) -> FileT:
    """A checked knowledge file; what is wrong is told with the file and the entry."""
    try:
        data = yaml_of(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return kind.model_validate(data)
    except (OSError, UnicodeDecodeError) as exc:
        raise KnowledgeInvalid(f"{path.name}: cannot be read: {exc}") from exc
    except NotYaml as exc:
        raise KnowledgeInvalid(f"{path.name}: not YAML: {exc}") from exc
    except ValidationError as exc:
        raise KnowledgeInvalid(f"{path.name}: {_first_problem(exc, data)}") from exc


def _first_problem(exc: ValidationError, data: object) -> str:
    """The first thing wrong, with the id of the entry it is in."""
    problem = exc.errors()[0]
    place = problem["loc"]
    name = ""
    if isinstance(data, dict) and len(place) > 1 and place[0] == "entries" and isinstance(place[1], int):
        entry = data["entries"][place[1]]
        name = f"entry {entry.get('id', place[1])!r}: " if isinstance(entry, dict) else f"entry {place[1]}: "
    elif len(place) > 1 and place[0] == "rules" and isinstance(place[1], int):
        name = f"rule {place[1] + 1}: "
    return f"{name}{'.'.join(str(p) for p in place)}: {problem['msg']}"


def options(pattern: str) -> Any:
    """How a pattern is read: `.` also matches a line's end; case counts only for what is written in capitals.

    `ABORTED` is an error code, "aborted" a word; `ORA-00001` and `ENOSPC` are printed one way only.
    """
    letters = re.sub(r"\\.|\(\?\w+\)", "", pattern)
    chosen = re2.Options()
    chosen.case_sensitive = letters != letters.lower() and letters == letters.upper()
    chosen.dot_nl = True
    chosen.log_errors = False
    return chosen


def _compile(pattern: str, path: Path, entry: str) -> Any:
    try:
        return re2.compile(pattern, options(pattern))
    except re2.error as exc:
        raise KnowledgeInvalid(f"{path.name}: entry {entry!r}: pattern {pattern!r}: {exc}") from exc


def _entry(entry: EntryFile, family: str, path: Path, defaults: DefaultsFile, *, own: bool) -> Entry:
    if entry.strength not in defaults.strengths:
        known = ", ".join(defaults.strengths)
        raise KnowledgeInvalid(
            f"{path.name}: entry {entry.id!r}: strength {entry.strength!r} is none of {known}"
        )
    cause = defaults.causes[entry.cause]
    remediation = entry.remediation or cause.remediation
    ranked = [cause.remediation, *cause.alternatives]
    return Entry(
        name=f"{family}/{entry.id}",
        cause=entry.cause,
        strength=defaults.strengths[entry.strength],
        transient=cause.transient if entry.transient is None else entry.transient,
        remediation=remediation,
        alternatives=tuple(r for r in ranked if r is not remediation),
        wait=cause.wait if entry.wait is None else entry.wait,
        says=entry.says or cause.says,
        unless=tuple(_compile(p, path, entry.id) for p in entry.unless),
        own=own,
        plain=bool(entry.plain),
    )
