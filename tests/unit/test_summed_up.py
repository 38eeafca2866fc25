"""Code that sums up what went wrong in words of its own: the reason stands before, with what it names."""

from __future__ import annotations

import pytest

from graph.domain import Diagnosis, RootCause, TaskLog
from tools import evidence
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase

STAMP = "[2026-03-02T04:10:04.000000Z]"
USER = '  File "/opt/airflow/dags/orders.py", line 12, in load'
WORK = [f"INFO - order {number} written" for number in range(60)]


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def failed(error: str, *before: str) -> str:
    head = [f"{STAMP} ERROR - Task failed with exception", "Traceback (most recent call last):", USER]
    return "\n".join([*(f"{STAMP} {line}" for line in before), *head, error])


def read(base: KnowledgeBase, log: str) -> Diagnosis:
    return base.diagnose(Case(log=TaskLog(text=log)))


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            failed(
                "RuntimeError: no data for north, south",
                "INFO - east: 40 rows",
                "WARNING - north: left out (429 Too Many Requests)",
                "WARNING - south: left out (429 Too Many Requests)",
                "INFO - west: 40 rows",
            ),
            RootCause.RATE_LIMITED,
            id="names divided by commas",
        ),
        pytest.param(
            failed(
                "ValueError: close not possible, no balance of ['bank/giro', 'bank/depot']",
                "WARNING - bank giro skipped, could not parse the answer: 401 Unauthorized",
                "WARNING - bank depot skipped, could not parse the answer: 401 Unauthorized",
                "INFO - 3 balances written",
            ),
            RootCause.AUTHENTICATION_FAILED,
            id="names in quotes, spelled another way before",
        ),
        pytest.param(
            failed(
                "RuntimeError: 1 of 6 files refused",
                'WARNING - f5.csv: [90, "amount", "type-error", "Type error in the cell \\"n/a\\""]',
                *WORK,
            ),
            RootCause.TYPE_MISMATCH,
            id="nothing named, and one complaint long before",
        ),
        pytest.param(
            failed(
                "ValueError: max() arg is an empty sequence",
                "WARNING - folder A could not be listed: invalid_grant: Invalid JWT Signature.",
                "INFO - 0 documents in 1 folder",
            ),
            RootCause.AUTHENTICATION_FAILED,
            id="nothing came of a login that was refused",
        ),
        pytest.param(
            failed(
                "UnboundLocalError: cannot access local variable 'res' where it has no value",
                "WARNING - attempt 1: 503 Service Unavailable",
                "WARNING - attempt 2: 503 Service Unavailable",
            ),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="a name that only an answer would have set",
        ),
        pytest.param(
            failed(
                "IndexError: list index out of range",
                "INFO - run 17: state RUNNING",
                "INFO - run 17: state FAILED",
                "INFO - outputs: []",
            ),
            RootCause.EXTERNAL_JOB_FAILED,
            id="nothing came of a job that failed",
        ),
        pytest.param(
            failed(
                "RuntimeError: 9 of 9 messages were not delivered",
                "ERROR - Connect to ipv4#127.0.0.1:9092 failed: Connection refused",
                "ERROR - Connect to ipv4#127.0.0.1:9093 failed: Connection refused",
                "INFO - flush returned, 9 failed: {'Local: Message timed out': 9}",
            ),
            RootCause.NETWORK_UNREACHABLE,
            id="that a wait ended is no reason of what was there before",
        ),
        pytest.param(
            failed(
                "AttributeError: The CRS of a frame without an active geometry column is not defined",
                "INFO - north.parquet: columns ['meter', 'geometry']",
                "INFO - north: 200 of 200 assigned",
                "INFO - west.parquet: columns ['meter', 'geometry']",
                "INFO - west: 200 of 200 assigned",
                "INFO - east.parquet: columns ['meter', 'geom']",
            ),
            RootCause.SCHEMA_DRIFT,
            id="what came last has other names than all before it",
        ),
        pytest.param(
            failed(
                "AttributeError: 'Error' object has no attribute 'data'",
                "WARNING - add_rows: the value did not conform to the strict requirements for type DATE.",
            ),
            RootCause.TYPE_MISMATCH,
            id="an answer that is an error has nothing else in it",
        ),
        pytest.param(
            failed(
                "PublishError: report.xlsx not published after 3 attempts",
                "WARNING - upload 3: 423 Locked: the resource you are attempting to access is locked",
            ),
            RootCause.LOCK_CONTENTION,
            id="what we could not publish is not somebody's data that is late",
        ),
        pytest.param(
            failed(
                "ValueError: not one property returned rows",
                "INFO - shop-de: 40 rows",
                "WARNING - shop-at skipped: invalid_grant: Token has been expired or revoked.",
            ),
            RootCause.AUTHENTICATION_FAILED,
            id="a sum in a class that says nothing",
        ),
        pytest.param(
            failed(
                "RuntimeError: no readings for lines of the plant",
                "INFO - CONNACK: Not authorized",
                "INFO - disconnected: Protocol error",
                "INFO - CONNACK: Not authorized",
                "INFO - disconnected: Protocol error",
            ),
            RootCause.AUTHENTICATION_FAILED,
            id="nothing came from who did not let us in",
        ),
        pytest.param(
            failed("IndexError: list index out of range", "INFO - clouds < 30: 0 scenes"),
            RootCause.MISSING_DATA,
            id="a count of nothing at the end of a line",
        ),
    ],
)
def test_the_reason_of_a_sum(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    assert read(base, log).root_cause is cause


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(
            failed(
                "RuntimeError: no data for north, south",
                "INFO - north: 0 rows",
                "WARNING - east: left out (429 Too Many Requests)",
                "INFO - east: 40 rows",
            ),
            id="the complaint is of another one, which came after all",
        ),
        pytest.param(
            failed(
                "ValueError: nothing to load in 'orders'",
                "WARNING - orders: 503 Service Unavailable, trying again",
                "INFO - orders: 200 OK",
                "INFO - 0 orders found",
            ),
            id="it was got over",
        ),
    ],
)
def test_what_is_named_and_was_well_in_the_end(base: KnowledgeBase, log: str) -> None:
    assert read(base, log).root_cause in {RootCause.MISSING_DATA, RootCause.UNKNOWN}


def child(*lines: str) -> str:
    said = [f"{STAMP} INFO - {line}" for line in ("Output:", *lines, "Command exited with return code 1")]
    frame = (
        '  File "/opt/venv/site-packages/airflow/providers/standard/operators/bash.py", line 227, in execute'
    )
    wrapper = "AirflowException: Bash command failed. The command returned a non-zero exit code 1."
    return "\n".join([*said, failed(wrapper).replace(USER, frame)])


def test_words_give_way_to_what_is_known_by_name(base: KnowledgeBase) -> None:
    log = child(
        "Error: Error acquiring the state lock",
        *(f"  {part}: x{number}" for number, part in enumerate(("ID", "Path", "Who", "Version", "Created"))),
        "It is held to protect the state from being written by two at the same time.",
        "The output variable requested could not be found in the state file.",
    )
    told = read(base, log)
    assert (told.root_cause, told.transient) == (RootCause.LOCK_CONTENTION, True)


def test_what_was_skipped_with_all_the_others_was_not_got_over(base: KnowledgeBase) -> None:
    skipped = [
        f'account {n} skipped: Get "https://bank.test": remote error: tls: bad certificate' for n in "ab"
    ]
    assert read(base, child(*skipped, "2 of 2 accounts without statement, refusing a part")).root_cause is (
        RootCause.TLS_ERROR
    )
    told = read(base, child(*skipped, "2 of 9 accounts without statement, which is allowed", *WORK))
    assert told.root_cause is not RootCause.TLS_ERROR


def test_an_exit_status_of_255_is_no_answer_that_went_well(base: KnowledgeBase) -> None:
    work = [f"matrix: sku {number * 40} of 90000 done" for number in range(60)]
    fatal = "Fatal error: Maximum execution time of 3 seconds exceeded in /srv/build_matrix.php on line 8"
    assert read(base, child(*work, fatal, "matrix build ended rc=255")).root_cause is RootCause.TIMEOUT


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            failed("ValueError: Connection string must have a key.", "INFO - draining orders, at most 2000"),
            RootCause.MISSING_CONFIGURATION,
            id="draining is what a task may do",
        ),
        pytest.param(
            failed("ftplib.error_temp: 421 Too many connections. Service temporarily unavailable."),
            RootCause.RATE_LIMITED,
            id="a server that is full says so first",
        ),
    ],
)
def test_what_else_the_words_could_mean(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    assert read(base, log).root_cause is cause


def test_what_a_shell_stumbles_over_in_an_answer_is_no_rival_to_it(base: KnowledgeBase) -> None:
    log = child("job.sh: line 10: LOADING Redis is loading the dataset in memory: syntax error in expression")
    told = read(base, log)
    assert (told.root_cause, told.transient) == (RootCause.UPSTREAM_UNAVAILABLE, True)


def test_names_that_were_other_ones_each_time_are_no_drift(base: KnowledgeBase) -> None:
    log = failed(
        "AttributeError: The CRS of a frame without an active geometry column is not defined",
        "INFO - north.parquet: columns ['meter', 'shape']",
        "INFO - west.parquet: columns ['meter', 'geometry']",
        "INFO - east.parquet: columns ['meter', 'geom']",
    )
    assert read(base, log).root_cause is not RootCause.SCHEMA_DRIFT


def test_two_complaints_are_not_the_only_one(base: KnowledgeBase) -> None:
    log = failed(
        "RuntimeError: 2 of 6 files refused",
        "WARNING - f5.csv: [90, 'amount', 'type-error', 'Type error in the cell']",
        "WARNING - f6.csv: [1, 'amount', 'missing-label', 'the label is missing']",
        *WORK,
    )
    assert read(base, log).root_cause is RootCause.UNKNOWN


GROUP = """{stamp} ERROR - Task failed with exception
Traceback (most recent call last):
  File "/opt/airflow/dags/trades.py", line 15, in map_trades
ClassValidationError: While structuring Trade (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/opt/airflow/dags/trades.py", line 15, in structure
    |     trade = Trade(row)
    | ListValidationError: While structuring legs (1 sub-exception)
    | Structuring Trade @ attribute legs
    |   +---------------- 1 ----------------
    |     | Traceback (most recent call last):
    |     |   File "/opt/airflow/dags/trades.py", line 31, in structure
    |     |     quantity = int(row["quantity"])
    |     | ValueError: invalid literal for int() with base 10: '1,250'
    |     +------------------------------------
    +------------------------------------
""".replace("{stamp}", STAMP)


def test_the_innermost_of_an_exception_group_is_read(base: KnowledgeBase) -> None:
    chain = evidence.read(TaskLog(text=GROUP)).chain
    assert chain is not None

    assert [one.type for one in chain.raised] == ["ClassValidationError", "ListValidationError", "ValueError"]
    assert chain.raised[-1].message == "invalid literal for int() with base 10: '1,250'"
    assert [frame.code for frame in chain.raised[-1].frames] == ['quantity = int(row["quantity"])']
    assert read(base, GROUP).root_cause is RootCause.TYPE_MISMATCH


def test_why_it_could_not_connect_may_stand_far_above_what_was_raised(base: KnowledgeBase) -> None:
    library = '  File "/opt/venv/lib/python3.11/site-packages/thrift/transport.py", line {}, in open'
    log = "\n".join(
        [
            f"{STAMP} INFO - Could not connect to ('hive.test', 10000)",
            "Traceback (most recent call last):",
            library.format(1),
            "ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed",
            f"{STAMP} ERROR - Task failed with exception",
            "Traceback (most recent call last):",
            USER,
            *(library.format(number) for number in range(24)),
            "TTransportException: Could not connect to any of [('hive.test', 10000)]",
        ]
    )
    assert read(base, log).root_cause is RootCause.TLS_ERROR


def test_the_address_of_a_manual_makes_nothing_a_side_issue() -> None:
    said = "WARNING - refused: quota used up, see https://services.test/analytics/quotas"
    (piece,) = evidence.read(TaskLog(text=f"{STAMP} {said}")).pieces
    assert not piece.aside


@pytest.mark.parametrize(
    ("complaint", "after", "cause"),
    [
        pytest.param(
            "gzip: stdout: No space left on device",
            ["pack: part 1 ok", "pack: part 2 ok", "pack: CHECK size failed: expected 1200 lines, found 0"],
            RootCause.STORAGE_EXHAUSTED,
            id="a disk that was full",
        ),
        pytest.param(
            "[load] region 3 error: ReferenceError: totl is not defined",
            ["[load] region 4: page 1/1, 80 rows", "Error: load incomplete, 1 of 4 regions missing"],
            RootCause.CODE_ERROR,
            id="a part that broke off",
        ),
    ],
)
def test_what_a_count_misses_in_the_end_was_complained_of_before(
    base: KnowledgeBase, complaint: str, after: list[str], cause: RootCause
) -> None:
    assert read(base, child(complaint, *after)).root_cause is cause
    # What says itself that it was got over is not held against it.
    spared = read(base, child(f"{complaint}, ignored", *after))
    assert spared.root_cause is not cause


def test_a_service_that_is_unavailable_in_the_words_of_the_task(base: KnowledgeBase) -> None:
    refused = (
        "last error: Tls handshake failed: SSL routines:CERTIFICATE_VERIFY_FAILED: self signed certificate"
    )
    log = failed(
        "ScoringUnavailable: service unavailable after 2 attempts",
        f"WARNING - attempt 1/2: StatusCode.UNAVAILABLE failed to connect to all addresses; {refused}",
        f"WARNING - attempt 2/2: StatusCode.UNAVAILABLE failed to connect to all addresses; {refused}",
    )
    told = read(base, log)
    assert (told.root_cause, told.transient) == (RootCause.TLS_ERROR, False)


@pytest.mark.parametrize(
    ("line", "recovered"),
    [
        ("WARN connection reset by peer on part 7, resent ok", True),
        ("WARN connection reset by peer on part 7, 3 parts unsent", False),
    ],
)
def test_what_was_sent_again_with_success(line: str, recovered: bool) -> None:
    pieces = evidence.read(TaskLog(text=f"{STAMP} INFO - {line}\n{STAMP} ERROR - Task failed")).pieces
    assert [piece.recovered for piece in pieces if "reset" in piece.text] == [recovered]


def test_the_number_of_a_ticket_is_no_credential(base: KnowledgeBase) -> None:
    log = failed("RuntimeError: partner answered REJECTED (Q-1190) for ticket A5521")
    assert read(base, log).root_cause is not RootCause.AUTHENTICATION_FAILED


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            child(
                "npm error code E503",
                "npm error 503 Service Unavailable - GET https://registry.acme.example/ledger-codec",
                "bundling",
                "Error: Cannot find module 'ledger-codec'",
                *(
                    f"    at Module.step{number} (node:internal/modules/cjs/loader:{number})"
                    for number in range(9)
                ),
                "  code: 'MODULE_NOT_FOUND',",
            ),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="a module that could not be fetched, told of in several lines",
        ),
        pytest.param(
            child(
                "cat: '/srv/in/2026-03-02_*.csv': No such file or directory",
                'bash: line 4: total / count: division by 0 (error token is "count")',
            ),
            RootCause.MISSING_DATA,
            id="a shell divides by what it did not read",
        ),
        pytest.param(
            failed(
                "Forbidden: {'errors': ['permission denied\\n\\t* invalid token']}, on get /v1/kv/data/db"
            ),
            RootCause.AUTHENTICATION_FAILED,
            id="a vault that does not know the token",
        ),
        pytest.param(
            failed("ValueError: Schema error: Ambiguous reference to unqualified field region"),
            RootCause.QUERY_ERROR,
            id="a field that two tables have",
        ),
    ],
)
def test_what_is_behind_what_is_told_last(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    assert read(base, log).root_cause is cause


@pytest.mark.parametrize(
    ("log", "never"),
    [
        pytest.param(
            "\n".join(f"{STAMP} INFO - page {number}/60: 500 rows" for number in range(40)),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="a number of rows is no status",
        ),
        pytest.param(
            failed("ValueError: too many invoices skipped: 3 (limit 2)"),
            RootCause.RATE_LIMITED,
            id="a limit of what may be skipped is no rate",
        ),
    ],
)
def test_what_a_number_does_not_say(base: KnowledgeBase, log: str, never: RootCause) -> None:
    assert read(base, log).root_cause is not never


@pytest.mark.parametrize(("who", "aside"), [("telemetry-bridge", False), ("telemetry", True)])
def test_a_name_that_begins_like_something_beside_the_work(who: str, aside: bool) -> None:
    text = f"{STAMP} ERROR - FAIL [{who}] SSL handshake failed\n{STAMP} ERROR - Task failed"
    assert [piece.aside for piece in evidence.read(TaskLog(text=text)).pieces if who in piece.text] == [aside]


def test_common_words_beside_an_identifier_take_no_retry(base: KnowledgeBase) -> None:
    error = (
        "HttpError: <HttpError 404 when requesting https://compute.example/instances/train-1?alt=json "
        'returned "The resource instances/train-1 was not found">'
    )
    told = read(
        base,
        failed(
            error,
            "WARNING - operation ended with: The zone 'europe-west4-a' does not have enough resources "
            "available to fulfill the request.",
        ),
    )
    assert (told.root_cause, told.transient) == (RootCause.CAPACITY_UNAVAILABLE, True)


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            failed(
                "SMTPServerDisconnected: please run connect() first",
                "INFO - 40 statements to send",
                "WARNING - c88: SMTPSenderRefused (421, b'4.3.2 Service not available')",
            ),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="a server that hung up had said why",
        ),
        pytest.param(
            failed(
                "RuntimeError: HTTP 503 SERVICE UNAVAILABLE: start of the grid failed",
                "INFO - operation result: [{'code': 'ZONE_RESOURCE_POOL_EXHAUSTED', 'message': 'no room'}]",
            ),
            RootCause.CAPACITY_UNAVAILABLE,
            id="a task's own words for what an operation answered",
        ),
        pytest.param(
            failed(
                "RuntimeError: nightly #51 finished: FAILURE after 90s, console kept on the controller",
                "INFO - build #51 building=False result=FAILURE",
            ),
            RootCause.EXTERNAL_JOB_FAILED,
            id="a build elsewhere that is over",
        ),
    ],
)
def test_what_was_answered_before_it_broke_off(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    assert read(base, log).root_cause is cause
