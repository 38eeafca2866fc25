"""What the bench found: in the terminal, as JSON, and as one page that stands alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evals.faults.results import Result, figures


def show(results: Sequence[Result], *, tell: Callable[[str], None]) -> None:
    tell(figures(results).model_dump_json(indent=1, exclude={"per_class"}))


def write(results, folder): ...
