from __future__ import annotations

import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from evals.benchmarks.redaction import measure_false_alarms, measure_recall, ordinary_lines
from evals.benchmarks.redaction_canaries import all_kinds, plant
from tools.redaction import kinds, redact, redact_all, redact_json
from tools.redaction_rules import compiled
from tools.redaction_tokens import ODD_TOKENS, TOKENS

TEXTS = st.text(st.characters(codec="utf-8", categories=None) | st.sampled_from("\n\r\x85\u2028:=@/'\"[]-"))


def test_recall_over_all_kinds_and_places_is_at_least_995_in_a_thousand() -> None:
    recall = measure_recall(seed=11, rounds=2)

    assert len({kind.name for kind in all_kinds()}) >= 80
    assert recall.planted > 4000
    assert recall.share >= 0.995, recall.missed[:5]


def test_ordinary_log_text_is_left_alone() -> None:
    alarms = measure_false_alarms(ordinary_lines(seed=3, count=4000))

    assert alarms.touched / alarms.tokens <= 0.01, alarms.examples[:5]


def test_there_are_eighty_kinds_of_placeholder() -> None:
    assert len(kinds()) >= 80


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "postgresql://etl:s3cr3t@db.prod:5432/shop",
            "postgresql://etl:[password]@db.prod:5432/shop",
            id="url",
        ),
        pytest.param(
            '{"host": "db", "password": "a\\"b,c"}', '{"host": "db", "password": "[password]"}', id="json"
        ),
        pytest.param("    password = 'hunter2'", "    password = '[password]'", id="traceback locals"),
        pytest.param("export DB_PASSWORD=s3;x", "export DB_PASSWORD=[password]", id="environment"),
        pytest.param(
            "    args = ('etl', 'Xk9#kd8sQ')", "    args = ('etl', '[password]')", id="positional arguments"
        ),
        pytest.param(
            "  args=('svc_etl', 'pw12')", "  args=('svc_etl', '[password]')", id="short ones of a user"
        ),
        pytest.param(
            "ftp.login('etl', 'Pa55word!')", "ftp.login('etl', '[password]')", id="a call that logs in"
        ),
        pytest.param(
            "oracle: cannot log on as scott/tiger@ORCL",
            "oracle: cannot log on as scott/[password]@ORCL",
            id="user/password@service",
        ),
        pytest.param(
            "signed with key AKq83hdkQ9dkW82ndkeE refused", "signed with key [api-key] refused", id="with key"
        ),
        pytest.param("--db-password s3cr3t --port 5432", "--db-password [password] --port 5432", id="flag"),
        pytest.param(
            "CREATE USER x IDENTIFIED BY 's3'", "CREATE USER x IDENTIFIED BY '[password]'", id="sql"
        ),
        pytest.param("Authorization: Bearer abc.def", "Authorization: Bearer [authorization]", id="header"),
        pytest.param("Cookie: a=b; c=d", "Cookie: [cookie]", id="cookie"),
        pytest.param(
            "from jane.doe@example.org", "from [email]@example.org", id="the domain of a mail stays"
        ),
        pytest.param("AKIAIOSFODNN7EXAMPLE", "[aws-access-key-id]", id="a known shape"),
        pytest.param(
            "job cXVlcnk6aHVudGVyMg== ended", "job [encoded-secret] ended", id="base64 of user and password"
        ),
        pytest.param("a 4111 1111 1111 1111 b", "a [card-number] b", id="a card by its check digit"),
    ],
)
def test_a_secret_becomes_its_type(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("connect to db.prod:5432 (10.0.0.5) failed: SQLSTATE 08001", id="hosts and codes"),
        pytest.param("run manual__2026-11-22T22:33:19.273862+00:00 try 2", id="run ids and times"),
        pytest.param(
            "01a20564-755b-7821-b329-4e4a13cdeded 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", id="uuid, sha"
        ),
        pytest.param('password authentication failed for user "etl"', id="an error about a password"),
        pytest.param("uses: actions/checkout@v4, repo/app@sha256:9f86d081884c7d65", id="versions after an @"),
        pytest.param("object with key data/2024/part-0001.parquet is missing", id="the key of an object"),
        pytest.param("  args=('orders', '2026-11-22')", id="arguments that are no login"),
        pytest.param("Access denied for user 'etl'@'10.0.0.5' (using password: YES)", id="MySQL's refusal"),
        pytest.param("  conn = connect(password=self.password, token=get_token())", id="source code"),
        pytest.param("def connect(user: str, password: str | None = None):", id="a signature"),
        pytest.param("SyntaxError: Unexpected token: end of input", id="parser talk"),
        pytest.param("next_page_token=CAUQAA", id="a paging cursor"),
        pytest.param("password=*** token={{ var.value.t }} secret=${SECRET}", id="masks and templates"),
        pytest.param("git@github.com airflow@sftp-1.example.com", id="accounts of machines"),
        pytest.param("etl@shop.iam.gserviceaccount.com", id="a service account"),
        pytest.param("PWD=/opt/airflow", id="the working directory"),
        pytest.param("return code -9, exit code 137, 4111 1111 1111 1112", id="numbers"),
        pytest.param("http://proxy:8080/a/user:b@2", id="a port is no password"),
        pytest.param("/opt/airflow/venv/lib/python3.11/site-packages/x/token.py:12", id="paths"),
    ],
)
def test_what_a_diagnosis_needs_survives(text: str) -> None:
    assert redact(text) == text


def test_a_private_key_over_many_lines_keeps_its_lines() -> None:
    body = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj" * 2] * 3 + ["AbC="]
    log = [
        "[INFO] before",
        "-----BEGIN RSA PRIVATE KEY-----",
        *body,
        "-----END RSA PRIVATE KEY-----",
        "after",
    ]

    lines = redact("\n".join(log)).split("\n")

    assert lines == [*log[:2], *["[private-key]"] * 4, *log[-2:]]


def test_a_private_key_behind_a_logger_s_prefix_goes_too() -> None:
    text = "INFO - -----BEGIN PRIVATE KEY-----\nINFO - " + "Ab3d" * 16 + "\nINFO - -----END PRIVATE KEY-----"

    assert redact(text).split("\n")[1] == "INFO - [private-key]"


def test_the_same_secret_gets_the_same_placeholder_everywhere() -> None:
    first, second = redact("a token=abc123def"), redact("b\ntoken=abc123def")

    assert first.split("=")[1] == second.split("=")[1] == "[token]"


def test_structured_content_is_redacted_by_key_and_by_text() -> None:
    value: JsonValue = {
        "event": "login with password=s3cr3t",
        "conn": {"password": "plain words", "port": 5432, "extra": [{"api_key": "k-123"}]},
        "secrets": {"db": "x1y2z3"},
        "exit_code": 137,
        "token": None,
    }

    assert redact_json(value) == {
        "event": "login with password=[password]",
        "conn": {"password": "[password]", "port": 5432, "extra": [{"api_key": "[api-key]"}]},
        "secrets": {"db": "[secret]"},
        "exit_code": 137,
        "token": None,
    }


def test_every_scan_finds_what_its_rule_finds() -> None:
    rng = random.Random(5)
    texts = [canary.text.encode() for kind in all_kinds() for canary in plant(kind, rng)]

    for rule in (*TOKENS, *ODD_TOKENS):
        trigger = compiled(rule.trigger, captures=False)
        assert all(trigger.search(text) for text in texts if rule.pattern.search(text)), rule.name


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("password=\u2028x\x85y z")
@example("-----BEGIN PRIVATE KEY-----\nAAAA\n[private-key]\nname: token\n value: é")
@example("name: DB_PASSWORD\r\n  value: s3cr3t")
def test_lines_are_kept_and_twice_is_once(text: str) -> None:
    once = redact(text)

    assert once.count("\n") == text.count("\n")
    assert len(once.splitlines()) == len(text.splitlines())
    assert redact(once) == once


PIECES = st.lists(
    st.sampled_from(
        [
            *"\n :='\"[](){}@/;,&\\-*",
            "password",
            "token",
            "://",
            "Bearer ",
            "eyJhbGciOi",
            "name: ",
            "value: ",
            "a.b",
            "-----BEGIN PRIVATE KEY-----",
            "AAAAAAAAAAAAAAAAAAAA",
            "-----END PRIVATE KEY-----",
            "dXNlcjpwYXNzd29yZA==",
            "[password]",
            "é",
            "4111111111111111",
            "+49 171 2345678",
            "curl -u a",
            "Authorization",
            "x@y.org",
            "PASS ",
        ]
    ),
    max_size=30,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(PIECES)
def test_twice_is_once_for_text_made_of_traps(text: str) -> None:
    once = redact(text)

    assert once.count("\n") == text.count("\n")
    assert redact(once) == once


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES | TEXTS, max_size=5))
@example(["name: token", " value: s3cr3t"])
@example(["-----BEGIN PRIVATE KEY-----", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"])
def test_texts_that_are_looked_at_together_are_redacted_as_each_alone(texts: list[str]) -> None:
    assert redact_all(texts) == [redact(text) for text in texts]


def test_one_secret_among_many_clean_texts_is_found() -> None:
    rng = random.Random(7)
    clean = ordinary_lines(seed=3, count=20, traps=0.0)
    for canary in (canary for kind in all_kinds() for canary in plant(kind, rng)):
        alone = redact(canary.text)
        assert redact_all([*clean, canary.text, *clean])[20] == alone


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS, st.integers(0, 10**9))
def test_a_known_shape_never_survives_in_any_surroundings(before: str, after: str, seed: int) -> None:
    rng = random.Random(seed)
    kind = rng.choice([kind for kind in all_kinds() if kind.bare and kind.name.endswith(("token", "key"))])
    secret = kind.make(rng)

    assert secret not in redact(f"{before} {secret} {after}")


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXTS, lambda v: st.lists(v) | st.dictionaries(TEXTS, v)
    )
)
def test_structured_content_is_redacted_once(value: JsonValue) -> None:
    once = redact_json(value)

    assert redact_json(once) == once
    json.dumps(once)
