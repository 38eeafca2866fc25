"""What is easily had: the majority class, a keyword list, and a classifier fitted on the cases themselves."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence

from evals.cases import EvalCase
from graph.domain import RootCause

FOLDS = 5
TAIL = 6_000  # characters of a log that the keyword list sees
END = 600  # characters that the classifier sees: with more of them it did worse
# Times, stack frames and Airflow's start-up say nothing of the cause.
_FRAME = re.compile(
    r"^\[[^\]]*\] |^  File .*$|^.*(?:::|DAG bundles|DagBag|Worker startup|Bash command failed).*$|\d+",
    re.MULTILINE,
)

# What a person would grep for on a first afternoon, in this order.
KEYWORDS: tuple[tuple[str, RootCause], ...] = (
    (r"out of memory|MemoryError|heap space|OOMKilled", RootCause.OUT_OF_MEMORY),
    (r"No space left|disk full|quota exceeded", RootCause.STORAGE_EXHAUSTED),
    (r"certificate|SSLError|handshake", RootCause.TLS_ERROR),
    (r"deadlock|is locked|lock timeout", RootCause.LOCK_CONTENTION),
    (r"429|rate limit|throttl|Too Many Requests", RootCause.RATE_LIMITED),
    (r"401|authentication failed|invalid credentials|login failed", RootCause.AUTHENTICATION_FAILED),
    (r"403|permission denied|access denied|forbidden", RootCause.PERMISSION_DENIED),
    (r"50[0234]|service unavailable", RootCause.UPSTREAM_UNAVAILABLE),
    (r"connection refused|connection reset|could not resolve", RootCause.NETWORK_UNREACHABLE),
    (r"timed out|timeout", RootCause.TIMEOUT),
    (r"No module named|ImportError|command not found", RootCause.DEPENDENCY_ERROR),
    (r"syntax error", RootCause.QUERY_ERROR),
    (r"unique constraint|not-null|foreign key", RootCause.CONSTRAINT_VIOLATION),
    (r"column .* does not exist|KeyError", RootCause.SCHEMA_DRIFT),
    (r"could not convert|invalid literal|cannot cast", RootCause.TYPE_MISMATCH),
    (r"No such file|not found|does not exist", RootCause.MISSING_DATA),
    (r"SIGTERM|SIGKILL|zombie", RootCause.WORKER_LOST),
    (r"TypeError|NameError|AttributeError", RootCause.CODE_ERROR),
    (r"non-zero exit code", RootCause.EXTERNAL_JOB_FAILED),
)


def majority(labels: Sequence[RootCause]) -> list[RootCause]:
    """Always the most frequent cause."""
    most = Counter(labels).most_common(1)[0][0]
    return [most] * len(labels)


def keywords(logs: Sequence[str]) -> list[RootCause]:
    """The first keyword that stands in the last lines."""
    compiled = [(re.compile(pattern, re.IGNORECASE), cause) for pattern, cause in KEYWORDS]
    found = []
    for log in logs:
        tail = log[-TAIL:]
        found.append(next((cause for pattern, cause in compiled if pattern.search(tail)), RootCause.UNKNOWN))
    return found


def tfidf(cases: Sequence[EvalCase]) -> list[RootCause] | None:
    """TF-IDF and logistic regression, each case predicted by a model that did not see it.

    None without scikit-learn, or with too few cases to split.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
    except ImportError:
        return None
    labels = [case.root_cause.value for case in cases if case.root_cause is not None]
    logs = [_FRAME.sub(" ", case.log)[-END:] for case in cases if case.root_cause is not None]
    splits = min(FOLDS, max(Counter(labels).values(), default=0))
    if len(set(labels)) < 2 or len(labels) < 2 * FOLDS or splits < 2:
        return None
    # Pieces of words did better than words, and words better than pairs of them.
    pieces = TfidfVectorizer(sublinear_tf=True, max_df=0.4, analyzer="char_wb", ngram_range=(3, 5))
    classifier = make_pipeline(pieces, LogisticRegression(C=100, max_iter=500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fold may lack a rare class: that is the baseline's problem
        folds = StratifiedKFold(splits, shuffle=True, random_state=7)
        predicted = cross_val_predict(classifier, logs, labels, cv=folds)
    return [RootCause(str(label)) for label in predicted]
