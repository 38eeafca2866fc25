"""Every error answer of the API, in one form: RFC 9457 `application/problem+json`."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from graph import errors
from tools.redaction import redact

log = structlog.get_logger("api")

MEDIA_TYPE = "application/problem+json"
NAMESPACE = "urn:airmedic:problem:"
RETRY_AFTER = "5"  # seconds; for what may work later

# The first class an error is an instance of decides; the message is the detail.
STATUS: tuple[tuple[type[errors.AirmedicError], int, str], ...] = (
    (errors.NotAuthentic, 401, "not-authentic"),
    (errors.EventInvalid, 422, "event-invalid"),
    (errors.IncidentNotFound, 404, "incident-not-found"),
    (errors.DecisionConflict, 409, "decision-conflict"),
    (errors.DecisionInvalid, 422, "decision-invalid"),
    (errors.ActionRefused, 422, "action-refused"),
    (errors.QueryInvalid, 422, "query-invalid"),
    (errors.StalePlan, 409, "plan-stale"),
    (errors.LeaseLost, 409, "lease-lost"),
    (errors.StoreUnavailable, 503, "database-unavailable"),
    (errors.SignInUnavailable, 503, "sign-in-unavailable"),
    (errors.ModelUnavailable, 503, "model-unavailable"),
    (errors.AirflowUnreachable, 503, "airflow-unreachable"),
    (errors.NotFound, 404, "airflow-knows-none"),
    (errors.AirflowError, 502, "airflow-refused"),
)


class FieldProblem(BaseModel):
    """One field that is wrong. Its value is never repeated."""

    field: str
    message: str


class Problem(BaseModel):
    """An RFC 9457 problem."""

    type: str = Field(examples=[NAMESPACE + "decision-conflict"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str
    instance: str = Field(examples=["/api/incidents/12/decision"])
    request_id: str
    errors: list[FieldProblem] = []


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: schema}}
        for status in statuses
    }


def problem_response(
    *,
    status: int,
    name: str,
    detail: str,
    path: str,
    request_id: str,
    fields: Sequence[FieldProblem] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """The answer that says what is wrong."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    problem = Problem(
        type="about:blank" if name == "" else NAMESPACE + name,
        title=title,
        status=status,
        detail=redact(detail),
        instance=path,
        request_id=request_id,
        errors=list(fields),
    )
    return JSONResponse(
        problem.model_dump(mode="json"), status_code=status, media_type=MEDIA_TYPE, headers=headers
    )


def _answer(request: Request, status: int, name: str, detail: str, **more: Any) -> JSONResponse:
    request_id = request.scope.get("state", {}).get("request_id", "")
    return problem_response(
        status=status, name=name, detail=detail, path=request.url.path, request_id=request_id, **more
    )


def of_error(request: Request, exc: Exception) -> JSONResponse:
    """The answer to an error of ours; one that nobody foresaw says nothing but that."""
    for kind, status, name in STATUS:
        if isinstance(exc, kind):
            headers = {"retry-after": RETRY_AFTER} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
            if status == HTTPStatus.UNAUTHORIZED:
                headers["www-authenticate"] = "Webhook-Signature"
            return _answer(request, status, name, str(exc), headers=headers)
    log.error("request_failed", path=request.url.path, error=str(exc), kind=type(exc).__name__)
    return _answer(request, 500, "internal", "the server could not do this; its log says why")


def _of_http(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    headers = dict(exc.headers) if exc.headers else None
    return _answer(request, exc.status_code, "", str(exc.detail), headers=headers)


def _of_validation(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    fields = [
        FieldProblem(
            # Positions and names only: the input itself may hold what must not be repeated.
            field=".".join(str(part) for part in error["loc"])[:200],
            message=str(error["msg"])[:300],
        )
        for error in list(exc.errors())[:20]
    ]
    detail = "; ".join(f"{one.field}: {one.message}" for one in fields[:3]) or "the request is not valid"
    return _answer(request, 422, "request-invalid", detail, fields=fields)


def add_problem_handlers(app: FastAPI) -> None:
    """Map the error tree, HTTP errors and validation errors to problems."""
    app.add_exception_handler(errors.AirmedicError, of_error)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
