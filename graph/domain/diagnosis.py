"""Why a task failed: the causes, the remediations, and a diagnosis with its evidence."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from graph.domain.domain_type import DomainType


class RootCause(StrEnum):
    """Why the task failed. The list is closed; `graph/taxonomy.md` explains each."""

    NETWORK_UNREACHABLE = "network_unreachable"  #: a remote host could not be reached or hung up
    AUTHENTICATION_FAILED = "authentication_failed"  #: the identity was not accepted
    PERMISSION_DENIED = "permission_denied"  #: the identity is known and not allowed
    RATE_LIMITED = "rate_limited"  #: the remote side asked to slow down, or a quota is used up
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"  #: the service answered that it is broken or busy
    TLS_ERROR = "tls_error"  #: the TLS handshake failed
    TIMEOUT = "timeout"  #: work did not end inside its limit
    OUT_OF_MEMORY = "out_of_memory"  #: memory ran out
    STORAGE_EXHAUSTED = "storage_exhausted"  #: disk, inodes or file handles ran out
    WORKER_LOST = "worker_lost"  #: the process or machine running the task went away
    CAPACITY_UNAVAILABLE = "capacity_unavailable"  #: the task could not get the compute it asked for
    LOCK_CONTENTION = "lock_contention"  #: another writer holds what the task needs
    SCHEMA_DRIFT = "schema_drift"  #: the structure of the data differs from what the task expects
    TYPE_MISMATCH = "type_mismatch"  #: a value does not fit the expected type, format or encoding
    CONSTRAINT_VIOLATION = "constraint_violation"  #: the data breaks a rule it must keep
    MISSING_DATA = "missing_data"  #: an input is absent or empty
    MISSING_CONFIGURATION = "missing_configuration"  #: a setting is absent or wrong
    DEPENDENCY_ERROR = "dependency_error"  #: software the task needs is absent or incompatible
    CODE_ERROR = "code_error"  #: the DAG, task or operator code is wrong
    QUERY_ERROR = "query_error"  #: the SQL (or other query) is wrong
    EXTERNAL_JOB_FAILED = "external_job_failed"  #: a job submitted elsewhere failed, the log says no more
    PLATFORM_ERROR = "platform_error"  #: Airflow itself, its metadata database or executor is at fault
    UNKNOWN = "unknown"  #: the evidence does not say


class Remediation(StrEnum):
    """The family of the fix that resolves a cause."""

    RETRY = "retry"  #: clear the task and run it again, after a wait where the cause needs one
    RERUN_UPSTREAM = "rerun_upstream"  #: produce the missing input first
    RAISE_LIMIT = "raise_limit"  #: more memory, time, slots, disk or connections
    UPDATE_CONFIGURATION = "update_configuration"  #: set or mend a Variable, Connection or parameter
    RENEW_CREDENTIALS = "renew_credentials"  #: a person with the authority renews or grants
    ADAPT_SCHEMA = "adapt_schema"  #: evolve the contract or mapping
    QUARANTINE_DATA = "quarantine_data"  #: set offending rows aside and go on, with a count
    CHANGE_CODE = "change_code"  #: the DAG, query, image or dependency pin must change
    REPAIR_PLATFORM = "repair_platform"  #: Airflow or its infrastructure must be mended
    ESCALATE = "escalate"  #: a person must look


class DiagnosedBy(StrEnum):
    """Who named the cause."""

    MEMORY = "memory"  #: a signature seen before, whose record is good
    KNOWLEDGE = "knowledge"  #: the knowledge base
    MODEL = "model"  #: the language model, with citations that were checked
    PERSON = "person"  #: an operator's correction


class EvidenceLine(DomainType):
    """One line of the log, after redaction, with its number (the first line is 1)."""

    line: int = Field(ge=1)
    text: str


class RuledOut(DomainType):
    """A cause that was considered and dropped, and why."""

    root_cause: RootCause
    why: str


class CodeLocation(DomainType):
    """Where in the user's code the failure was raised."""

    file: str
    line: int
    function: str = ""


class ColumnProblem(DomainType):
    """One thing a data check found wrong, as the pipeline itself reported it."""

    kind: Literal["missing", "unexpected", "type", "null", "duplicate", "empty"]
    column: str
    rows: int = 0  #: rows affected; 0 when the whole column is concerned
    expected: str = ""  #: the type the contract expects
    found: str = ""  #: the type, format or shape that was seen, never a value
    required: bool = True


class DataReport(DomainType):
    """What a task says about its data in the XCom `airmedic_report`."""

    contract: str | None = None  #: the Airflow Variable that holds the contract
    satisfied: bool | None = None
    rows_in: int | None = None
    rows_out: int | None = None
    rows_expected: int | None = None
    rows_quarantined: int | None = None
    quarantine_limit: int | None = None  #: rows
    problems: tuple[ColumnProblem, ...] = ()


class Facts(DomainType):
    """What the evidence says that a fix can use. Values from logs choose waits and words, never targets."""

    retry_after: float | None = None  #: seconds the remote side asked us to wait
    wait: float | None = None  #: seconds worth waiting, by what knowledge says of this very error
    host: str | None = None
    conn_id: str | None = None
    variable: str | None = None
    pool: str | None = None
    report: DataReport | None = None


class ModelCost(DomainType):
    """What asking the language model about one incident cost, and what came of it."""

    model: str
    outcome: str  #: `tools.llm_usage.Outcome`
    error: str = ""  #: why its answer was not used
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None  #: None when the price is not known
    seconds: float = 0.0


class Diagnosis(DomainType):
    """One named cause and the log lines that prove it."""

    root_cause: RootCause
    transient: bool
    confidence: float = Field(ge=0, le=1)  #: calibrated: of ten diagnoses at 0.8, eight are right
    remediation: Remediation
    evidence: tuple[EvidenceLine, ...] = ()
    summary: str = ""  #: one sentence a person on call understands
    ruled_out: tuple[RuledOut, ...] = ()
    alternatives: tuple[Remediation, ...] = ()  #: after `remediation`, best first
    by: DiagnosedBy = DiagnosedBy.KNOWLEDGE
    location: CodeLocation | None = None
    facts: Facts = Facts()
    signature: str = ""  #: error template with values masked, and where; the key of memory
    cost: ModelCost | None = None  #: None when the model was not asked
    context: tuple[str, ...] = ()  #: what Airflow knows beyond the log and how it moved the answer
    #: what the exception that ended the task speaks for, when only other lines speak for a cause that passes
    disputed: RootCause | None = None
