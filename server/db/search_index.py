"""The index by which incidents are searched and filtered: words and facets of each, kept by the database.

SQLite keeps a contentless FTS5 table by triggers, Postgres a generated `tsvector` under a GIN index. Words
come from names, reason and summary. Facets are whole words that nobody types (they begin with `§`), one per
thing that can be filtered, so that any combination of filters and words is one walk through sorted lists,
newest first, and never a scan of the table.
"""

from __future__ import annotations

import hashlib
import re

FACETS = {
    "status": "s",
    "outcome": "o",
    "severity": "v",
    "root_cause": "c",
    "dag_id": "d",
    "task_id": "t",
    "operator": "p",
}
NAMES = ("dag_id", "task_id", "operator")  # free text; the others are closed sets
MARK = "§"
LONGEST = 500  # characters of one text that are indexed; Postgres takes no word of 2 kB
WORD = re.compile(r"[a-z0-9\x80-\U0010ffff]+")
SEPARATORS = r"[\x01-\x2f\x3a-\x60\x7b-\x7f]+"  # of lower-cased text: what is no WORD
PREFIXES = "2 3 4 5 6 7 8 9 10"  # letters; only word beginnings with an index of their own are quick
BEGINNING = range(2, 11)
MOST_WORDS = 8

_TEXTS = ("dag_id", "task_id", "run_id", "operator", "root_cause", "outcome", "reason")
_WATCHED = ("dag_id", "task_id", "run_id", "operator", "severity", "status", "outcome", "root_cause")
_CHANGING = ", ".join((*_WATCHED, "reason", "diagnosis"))


def _sqlite_words(row: str) -> str:
    texts = [f"substr(coalesce({row}.{name}, ''), 1, {LONGEST})" for name in _TEXTS]
    texts.append(f"substr(coalesce(json_extract({row}.diagnosis, '$.summary'), ''), 1, {LONGEST})")
    for name, letter in FACETS.items():
        value = f"coalesce({row}.{name}, '')"
        spelled = f"hex({value})" if name in NAMES else f"replace({value}, '_', '')"
        texts.append(f"'{MARK}{letter}' || {spelled}")
    return " || ' ' || ".join(texts)


def _sqlite_trigger(name: str, moment: str, *statements: str) -> str:
    body = " ".join(f"{one};" for one in statements)
    return f"CREATE TRIGGER incident_words_{name} AFTER {moment} ON incident BEGIN {body} END"


_ADD = f"INSERT INTO incident_words(rowid, words) VALUES (new.id, {_sqlite_words('new')})"
_REMOVE = (
    "INSERT INTO incident_words(incident_words, rowid, words) "
    f"VALUES ('delete', old.id, {_sqlite_words('old')})"
)

SQLITE_UP = (
    "CREATE VIRTUAL TABLE incident_words USING fts5("
    f"words, content='', detail='none', columnsize=0, tokenize='ascii', prefix='{PREFIXES}')",
    _sqlite_trigger("added", "INSERT", _ADD),
    _sqlite_trigger("changed", f"UPDATE OF {_CHANGING}", _REMOVE, _ADD),
    _sqlite_trigger("removed", "DELETE", _REMOVE),
    f"INSERT INTO incident_words(rowid, words) SELECT id, {_sqlite_words('incident')} FROM incident",
)
SQLITE_DOWN = (
    "DROP TRIGGER incident_words_removed",
    "DROP TRIGGER incident_words_changed",
    "DROP TRIGGER incident_words_added",
    "DROP TABLE incident_words",
)


def _postgres_words() -> str:
    texts = [f"left(coalesce({name}, ''), {LONGEST})" for name in _TEXTS]
    texts.append(f"left(coalesce(diagnosis ->> 'summary', ''), {LONGEST})")
    joined = " || ' ' || ".join(texts)
    split = f"regexp_split_to_array(lower(({joined}) COLLATE \"C\"), '{SEPARATORS}')"
    facets = []
    for name, letter in FACETS.items():
        value = f"coalesce({name}, '')"
        spelled = f"md5({value})" if name in NAMES else f"replace({value}, '_', '')"
        facets.append(f"('{MARK}{letter}' || {spelled})")
    return f"array_to_tsvector(array_remove({split}, '') || ARRAY[{', '.join(facets)}])"


POSTGRES_UP = (
    f"ALTER TABLE incident ADD COLUMN words tsvector GENERATED ALWAYS AS ({_postgres_words()}) STORED",
    # Without fastupdate no search pays for the writes before it.
    "CREATE INDEX incident_words ON incident USING gin (words) WITH (fastupdate = off)",
)
POSTGRES_DOWN = ("DROP INDEX incident_words", "ALTER TABLE incident DROP COLUMN words")


def words_of(text: str) -> tuple[str, ...]:
    """The words of a search, as both databases cut them."""
    lowered = text.translate({code: code + 32 for code in range(ord("A"), ord("Z") + 1)})
    return tuple(dict.fromkeys(WORD.findall(lowered)))[:MOST_WORDS]


def facet(name: str, value: str, *, sqlite: bool) -> str:
    """The word that stands for this value of a facet."""
    if name not in NAMES:
        spelled = value.replace("_", "")
    elif sqlite:
        spelled = value.encode().hex()
    else:
        # Postgres has md5 built in; it only spells names here.
        spelled = hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()
    return f"{MARK}{FACETS[name]}{spelled}"


def match_expression(text: str, facets: dict[str, tuple[str, ...]], *, sqlite: bool) -> str:
    """All words, the last one as a beginning, and one value of each facet; empty when nothing is asked."""
    *whole, last = words_of(text) or ("",)
    quote = '"' if sqlite else "'"
    both, either = (" AND ", " OR ") if sqlite else (" & ", " | ")
    star = "*" if sqlite else ":*"
    parts = [f"{quote}{word}{quote}" for word in whole]
    if last:
        parts.append(f"{quote}{last}{quote}{star if len(last) in BEGINNING else ''}")
    for name, values in facets.items():
        if values:
            spelled = [f"{quote}{facet(name, value, sqlite=sqlite)}{quote}" for value in values]
            parts.append(f"({either.join(spelled)})")
    return both.join(parts)
