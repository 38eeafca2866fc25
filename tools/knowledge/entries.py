"""Loads and checks knowledge files. A malformed file stops the start, naming file and entry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import re2
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graph.domain import Remediation, RootCause
from graph.errors import KnowledgeInvalid

FOLDER = Path(__file__).parent


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


FileT = TypeVar("FileT", bound=_Strict)


class CauseDefaults(_Strict):
    """What holds for a root cause unless an entry says otherwise."""

    transient: bool
    remediation: Remediation
    alternatives: tuple[Remediation, ...] = ()
    wait: float | None = None  #: seconds worth waiting before a retry
    says: str


class EntryFile(_Strict):
    """One entry as written."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    cause: RootCause
    strength: str
    patterns: tuple[str, ...] = Field(min_length=1)
    unless: tuple[str, ...] = ()
    transient: bool | None = None
    remediation: Remediation | None = None
    wait: float | None = None
    says: str | None = None


class FamilyFile(_Strict):
    """One knowledge file."""

    family: str
    entries: tuple[EntryFile, ...]


class DefaultsFile(_Strict):
    """`_causes.yaml`."""

    causes: dict[RootCause, CauseDefaults]
    strengths: dict[str, float]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing the knowledge base knows, defaults filled in."""

    name: str  #: family/id
    cause: RootCause
    strength: float
    transient: bool
    remediation: Remediation
    alternatives: tuple[Remediation, ...]
    wait: float | None
    says: str
    unless: tuple[Any, ...]  #: compiled


@dataclass(frozen=True, slots=True)
class Knowledge:
    """All entries, and for each pattern the entry it belongs to."""

    entries: tuple[Entry, ...]
    patterns: tuple[str, ...]
    owner: tuple[int, ...]
    causes: dict[RootCause, CauseDefaults]


def load(extra_folder: Path | None = None) -> Knowledge:
    """The shipped knowledge, then the user's."""
    defaults = _read(FOLDER / "_causes.yaml", DefaultsFile)
    missing = set(RootCause) - set(defaults.causes)
    if missing:
        raise KnowledgeInvalid(f"_causes.yaml: no defaults for {sorted(missing)!r}")
    entries: list[Entry] = []
    patterns: list[str] = []
    owner: list[int] = []
    for path, written in _written(extra_folder):
        for entry in written.entries:
            for pattern in entry.patterns:
                _compile(pattern, path, entry.id)
                patterns.append(pattern)
                owner.append(len(entries))
            entries.append(_entry(entry, written.family, path, defaults))
    return Knowledge(tuple(entries), tuple(patterns), tuple(owner), defaults.causes)


def _written(extra_folder: Path | None) -> Iterator[tuple[Path, FamilyFile]]:
    if extra_folder is not None and not extra_folder.is_dir():
        raise KnowledgeInvalid(f"knowledge folder {str(extra_folder)!r} does not exist")
    folders: Sequence[Path] = [FOLDER] if extra_folder is None else [FOLDER, extra_folder]
    seen: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            if path.name.startswith("_"):
                continue
            family = _read(path, FamilyFile)
            for entry in family.entries:
                name = f"{family.family}/{entry.id}"
                if name in seen:
                    raise KnowledgeInvalid(f"{path.name}: entry {name!r} is also in {seen[name].name}")
                seen[name] = path
            yield path, family


def _read(path: Path, kind: type[FileT]) -> FileT:
    try:
        data = yaml.load(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return kind.model_validate(data)
    except (OSError, UnicodeDecodeError) as exc:
        raise KnowledgeInvalid(f"{path.name}: cannot be read: {exc}") from exc
    except yaml.YAMLError as exc:
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


def _entry(entry: EntryFile, family: str, path: Path, defaults: DefaultsFile) -> Entry:
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
    )
