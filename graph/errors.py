"""The error tree. The name says what happened; `retryable` says whether asking again can help."""


class AirmedicError(Exception):
    """Base of every error this application raises."""

    retryable = False


class SettingsInvalid(AirmedicError):
    """A setting or a settings file is wrong; the message names it and says what to do."""


class AirflowError(AirmedicError):
    """Airflow did not do what it was asked."""


class AirflowUnreachable(AirflowError):
    """No answer from Airflow, or a broken one; the same call may work later."""

    retryable = True


class AirflowDoubt(AirflowUnreachable):
    """A write was sent and its answer was lost: read back, never resend blind."""

    retryable = False


class AirflowRefused(AirflowError):
    """Airflow answered no; asking again changes nothing."""


class NotFound(AirflowRefused):
    """The thing asked for does not exist in Airflow."""


class NotAuthenticated(AirflowRefused):
    """Airflow does not accept our credentials."""


class NotPermitted(AirflowRefused):
    """Airflow knows us and does not allow this."""


class Conflict(AirflowRefused):
    """The world is not as the call assumed (HTTP 409): read it again."""


class InvalidRequest(AirflowRefused):
    """Airflow could not accept the call's parameters (HTTP 400, 422)."""


class ActionRefused(AirmedicError):
    """An action may not be carried out as asked: unknown, out of bounds, masked value, wrong target."""


class StalePlan(AirmedicError):
    """The world moved since the plan was made; it is withdrawn."""


class NotYet(AirmedicError):
    """An earlier action of the plan is still at work in Airflow; the plan goes on when it has ended."""

    retryable = True


class OnHold(NotYet):
    """The kill switch or shadow mode was thrown after the plan was begun; it goes on without them."""


class UndoBlocked(AirmedicError):
    """Undo would overwrite a change somebody else made since; a person must decide."""


class LeaseLost(AirmedicError):
    """Another worker owns the incident now; nothing more may be written for it."""


class TokenInvalid(AirmedicError):
    """No access token is called that, or a new one may not be; the message says why."""


class SignInUnavailable(AirmedicError):
    """The sign-in service cannot be asked for its keys; the same call may work later."""

    retryable = True


class NotAuthentic(AirmedicError):
    """A delivery's signature is missing, wrong or out of time."""


class EventInvalid(AirmedicError):
    """A delivery is authentic and says nothing we can use."""


class IncidentNotFound(AirmedicError):
    """No incident has this number."""


class DecisionConflict(AirmedicError):
    """The question was answered already, has expired, or was withdrawn."""


class DecisionInvalid(AirmedicError):
    """The answer does not fit the question: wrong kind, arguments out of bounds, a changed target."""


class QueryInvalid(AirmedicError):
    """A list cannot be read as asked: a cursor of another sort, parts that do not go together."""


class KnowledgeInvalid(SettingsInvalid):
    """A knowledge file is malformed; the message names file and entry."""


class PolicyInvalid(SettingsInvalid):
    """A policy file is malformed; the message names file, place and what is expected."""


class ModelUnavailable(AirmedicError):
    """The language model gave no usable answer; the diagnosis from knowledge stands."""

    retryable = True


class StoreUnavailable(AirmedicError):
    """The database did not answer, or is full; nothing was stored."""

    retryable = True


class StoreDoubt(StoreUnavailable):
    """A commit was sent and its answer was lost: read what is stored, never write it again blind."""

    retryable = False


class SandboxFailed(AirmedicError):
    """The sandbox's Airflow could not be installed or started; the message ends with its last log lines."""
