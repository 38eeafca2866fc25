"""How fast redaction is, what it finds and touches by mistake, next to one pattern per kind in a loop.

`python -m evals.benchmarks.redaction [--megabytes 20]`.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from evals.benchmarks.redaction_canaries import Canary, all_kinds, plant
from evals.benchmarks.report import Report, Row, finish
from tools.redaction import redact

Redact = Callable[[str], str]


@dataclass
class Recall:
    """How many planted secrets are gone."""

    planted: int = 0
    missed: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return 1 - len(self.missed) / max(1, self.planted)


@dataclass
class FalseAlarms:
    """How many ordinary tokens were touched."""

    tokens: int = 0
    touched: int = 0
    examples: list[str] = field(default_factory=list)


def survives(canary: Canary, redacted: str) -> bool:
    """True when the secret, or half of a long one, can still be read; an e-mail's domain may stay."""
    if canary.context.startswith("base64"):
        return redacted == canary.text
    lines = [line for line in canary.secret.split("\n") if "-----" not in line]
    if any(line in redacted for line in lines if len(line) > 8):
        return True
    half = canary.secret[len(canary.secret) // 2 :]
    return canary.kind != "email" and "\n" not in half and len(half) >= 12 and half in redacted


def measure_recall(*, seed: int, rounds: int, function: Redact = redact) -> Recall:
    """Plant every kind in every place, `rounds` times."""
    rng = random.Random(seed)
    recall = Recall()
    for _ in range(rounds):
        for canary in (canary for kind in all_kinds() for canary in plant(kind, rng)):
            recall.planted += 1
            if survives(canary, function(canary.text)):
                recall.missed.append(f"{canary.kind} / {canary.context}: {canary.text[:200]}")
    return recall


def measure_false_alarms(lines: Iterable[str], function: Redact = redact) -> FalseAlarms:
    """Count the words of ordinary lines that change."""
    alarms = FalseAlarms()
    for line in lines:
        words = line.split()
        alarms.tokens += len(words)
        redacted = function(line)
        if redacted == line:
            continue
        after = redacted.split()
        alarms.touched += sum(a != b for a, b in zip(words, after, strict=False)) + abs(
            len(words) - len(after)
        )
        alarms.examples.append(f"{line} -> {redacted}")
    return alarms


_PLAIN = """
[{ts}] {{taskinstance.py:{n}}} INFO - Starting attempt {d} of 3
{ts} [info     ] Task started [task] dag_id=orders_{w} run_id=scheduled__{ts} task_id={w} ti_id={uuid}
{ts} [error    ] Task failed with exception [task] error_detail=psycopg.OperationalError
  File "/opt/airflow/venv/lib/python3.11/site-packages/{w}/{w}.py", line {n}, in {w}
psycopg2.OperationalError: connection to server at "{w}-db.internal" (10.0.{d}.{d}), port 5432 failed: timeout
sqlalchemy.exc.ProgrammingError: (psycopg2.errors.UndefinedColumn) column "{w}_id" does not exist
requests.exceptions.HTTPError: 503 Server Error for url: https://{w}.example.com/api/v{d}/{w}?page={n}&size=100
botocore.exceptions.ClientError: An error occurred (AccessDenied) when calling PutObject: s3://{w}/{w}
INFO - Running command: ['/usr/bin/bash', '-c', 'dbt run --select {w} --target prod --profiles-dir /opt/{w}']
{ts} WARN TaskSetManager: Lost task {d}.0 in stage {n}.0 (TID {n}) ({w}-{d} executor {d}): ExecutorLostFailure
	at org.apache.spark.sql.{w}.{W}Exec.$anonfun$doExecute${d}({W}Exec.scala:{n})
commit {sha} built image registry.example.com/{w}@sha256:{sha}{sha24}
kubernetes: pod {w}-{h8}-{h5} phase=Failed reason=OOMKilled exit_code=137 node=ip-10-0-{d}-{d}.ec2.internal
rows={n} bytes={n}{n} duration={d}.{n}s ratio=0.{n}{n} offset={n}{n}{n} key=customer_{n} partition={ts}
"""
# Lines that talk about secrets and hold none.
_TRAPS = """
    return self.{w}(token=self.token, password=conn.password, timeout={n})
KeyError: 'password'
Variable {w}_api_key not found; Connection {w}_default has no password set
ValueError: Invalid token: expected NUMBER, got '{w}' at position {n}; token_count={n}, max_tokens=4000
Secret: {w}-secret in namespace {w} was not mounted; serviceaccount token is missing
CREATE TABLE {w} (id BIGINT PRIMARY KEY, email TEXT, password_hash TEXT, token_type VARCHAR(20))
"""


def ordinary_lines(*, seed: int, count: int, traps: float = 0.4) -> list[str]:
    """Log lines without secrets; a share of them talks about passwords and tokens nevertheless."""
    rng = random.Random(seed)
    words = [
        "orders",
        "customers",
        "fetch",
        "load",
        "token",
        "session",
        "secret",
        "warehouse",
        "daily",
        "auth",
    ]
    plain, tricky = _PLAIN.strip("\n").split("\n"), _TRAPS.strip("\n").split("\n")
    lines = []
    for _ in range(count):
        hexes = "".join(rng.choices("0123456789abcdef", k=64))
        values = {
            "ts": f"2026-11-{rng.randint(10, 28)}T22:04:05.{rng.randint(100000, 999999)}+00:00",
            "n": rng.randint(10, 99999),
            "d": rng.randint(1, 9),
            "sha": hexes[:40],
            "sha24": hexes[40:],
            "h8": hexes[:8],
            "h5": hexes[8:13],
            "uuid": f"{hexes[:8]}-{hexes[8:12]}-{hexes[12:16]}-{hexes[16:20]}-{hexes[20:32]}",
        }
        word = rng.choice(words)
        templates = tricky if rng.random() < traps else plain
        lines.append(rng.choice(templates).format(**values, w=word, W=word.title()))
    return lines


def naive_redact() -> Redact:
    """The baseline: Python's `re`, one pattern per kind, one after the other over the whole text."""
    names = [
        "password",
        "passwd",
        "pwd",
        "secret",
        "token",
        "api_?key",
        "access_?key",
        "private_?key",
        "credential",
    ]
    sources = [rf"(?i)\b[\w.-]*{name}\b[\"']?\s*[=:]\s*[\"']?([^\s\"',;&]{{3,}})" for name in names]
    sources += [r"\b[a-z][a-z0-9+.-]*://[^\s:/@]*:([^\s@/]+)@", r"(?i)bearer\s+([\w.~+/=-]{12,})"]
    sources += [r"(\beyJ[\w-]+\.[\w-]+\.[\w-]*)", r"([\w.+-]+@[\w-]+\.[\w.]+)", r"(\bAKIA[A-Z0-9]{16}\b)"]
    sources += [
        r"(\bgh[opsur]_\w{36})",
        r"(\bxox[abprs]-[\w-]{10,})",
        r"(\bsk-[\w-]{20,})",
        r"(\bglpat-[\w-]{20})",
    ]
    patterns = [re.compile(source) for source in sources]

    def run(text: str) -> str:
        for pattern in patterns:
            text = pattern.sub(lambda match: match.group().replace(match.group(1), "[secret]"), text)
        return text

    return run


def measure_speed(function: Redact, *, megabytes: float, every: int) -> float:
    """MB/s over ordinary lines with one planted secret in `every` lines."""
    rng = random.Random(1)
    canaries = [canary.text for kind in all_kinds() for canary in plant(kind, rng)]
    rng.shuffle(canaries)
    lines = ordinary_lines(seed=1, count=20_000, traps=0.02)
    for index in range(0, len(lines), every):
        lines[index] = canaries[index // every % len(canaries)]
    text = "\n".join(lines)
    text *= max(1, round(megabytes * 1e6 / len(text)))
    start = time.perf_counter()
    function(text)
    return len(text.encode()) / 1e6 / (time.perf_counter() - start)


def measured(name: str, function: Redact, *, megabytes: float, baseline: bool = False) -> list[Row]:
    """Everything about one implementation."""
    alarms = measure_false_alarms(ordinary_lines(seed=2, count=20_000), function)
    recall = measure_recall(seed=1, rounds=3, function=function).share
    figures = (
        ("a secret in 1,000 lines", measure_speed(function, megabytes=megabytes, every=1000), "MB/s"),
        ("a secret in 20 lines", measure_speed(function, megabytes=megabytes, every=20), "MB/s"),
        ("planted secrets found", 100 * recall, "%"),
    )
    rows = [Row(name=f"{name}: {what}", value=n, unit=unit, baseline=baseline) for what, n, unit in figures]
    false = 100 * alarms.touched / alarms.tokens
    what = f"{name}: ordinary words touched"
    return [*rows, Row(name=what, value=false, unit="%", better="lower", baseline=baseline)]


def measure(megabytes: float) -> Report:
    """Ours, and one pattern for each kind in a loop."""
    rows = measured("redaction", redact, megabytes=megabytes)
    rows += measured("one pattern per kind", naive_redact(), megabytes=megabytes / 4, baseline=True)
    notes = (f"{len({kind.name for kind in all_kinds()})} kinds of secrets",)
    return Report(name="redaction", title="redaction, one core", rows=tuple(rows), notes=notes)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    megabytes: Annotated[float, typer.Option(min=1, help="of ordinary lines")] = 20,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    finish(measure(megabytes), report, typer.echo)


if __name__ == "__main__":
    app()
