"""One tree of errors: each has a stable code that travels on the wire, and one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

if TYPE_CHECKING:
    from schemas.replies import Result

ErrorCode = Literal[
    "invalid_request",
    "payload_too_large",
    "context_exceeded",
    "unknown_model",
    "unknown_strategy",
    "unknown_request",
    "result_evicted",
    "unknown_worker",
    "unauthenticated",
    "not_permitted",
    "request_id_conflict",
    "overloaded",
    "not_ready",
    "cancelled",
    "deadline_exceeded",
    "model_unusable",
    "pull_failed",
    "no_room",
    "generation_failed",
    "worker_failed",
    "no_answers",
    "answers_unreadable",
    "undecided",
    "document_unreadable",
    "poison_message",
    "unsupported_version",
    "mesh_unreachable",
    "broker_unavailable",
    "query_refused",
    "query_failed",
    "configuration",
    "internal",
]


def known_code(code: object) -> object:
    """A code that a newer version has and this one does not is an error without a better name."""
    return "internal" if isinstance(code, str) and code not in get_args(ErrorCode) else code


_COMMANDS = dict.fromkeys([code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"])


def _without_commands(text: str) -> str:
    return text if text.isprintable() else text.translate(_COMMANDS)


PlainText = Annotated[str, AfterValidator(_without_commands)]
"""A text for people: what would command their terminal is left out. Errors quote what strangers have sent."""


class ErrorBody(BaseModel):
    """What an error looks like on the wire: `{"code", "message", "field"?, "retry_after_s"?, ...}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Annotated[ErrorCode, BeforeValidator(known_code)]
    message: PlainText
    field: PlainText | None = None
    retry_after_s: float | None = None
    request_id: str | None = None
    known: tuple[PlainText, ...] | None = None


class ChoirError(Exception):
    """Any failure that Choir has a name for.

    `result` is the failed result that a client was sent, if one was: the answers that there were are in it.
    """

    code: ClassVar[ErrorCode] = "internal"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        known: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s
        self.known = known
        self.result: Result | None = None

    def body(self, request_id: str | None = None) -> ErrorBody:
        """The wire form of this error."""
        return ErrorBody(
            code=self.code,
            message=self.message,
            field=self.field,
            retry_after_s=self.retry_after_s,
            request_id=request_id,
            known=self.known,
        )


class InvalidRequest(ChoirError):
    """Raised when a message is not what its schema says, or a value is absurd."""

    code = "invalid_request"


class PayloadTooLarge(ChoirError):
    """Raised when a message would be larger than the broker carries."""

    code = "payload_too_large"


class ContextExceeded(ChoirError):
    """Raised when a prompt has more tokens than the model's context."""

    code = "context_exceeded"


class UnknownModel(ChoirError):
    """Raised when no live agent serves the model that was asked for."""

    code = "unknown_model"


class UnknownStrategy(ChoirError):
    """Raised when a strategy is asked for that is not in the table."""

    code = "unknown_strategy"


class UnknownRequest(ChoirError):
    """Raised when a request id is neither in flight nor answered."""

    code = "unknown_request"


class ResultEvicted(ChoirError):
    """Raised when the result of a request is no longer kept, or may have been kept and is not any more."""

    code = "result_evicted"


class UnknownWorker(ChoirError):
    """Raised when no external worker is registered under an id."""

    code = "unknown_worker"


class Unauthenticated(ChoirError):
    """Raised when nobody knows who asks: there is no key, or not one that is valid."""

    code = "unauthenticated"


class NotPermitted(ChoirError):
    """Raised when whoever asks may not do that."""

    code = "not_permitted"


class RequestIdConflict(ChoirError):
    """Raised when two different requests come under one request id."""

    code = "request_id_conflict"


class Overloaded(ChoirError):
    """Raised at admission when the queue of work is full."""

    code = "overloaded"


class NotReady(ChoirError):
    """Raised when a result is asked for that is still being made."""

    code = "not_ready"


class Cancelled(ChoirError):
    """Raised when a request was cancelled by its client."""

    code = "cancelled"


class DeadlineExceeded(ChoirError):
    """Raised when the time allowed for a request has run out."""

    code = "deadline_exceeded"


class ModelUnusable(ChoirError):
    """Raised when a model file is missing, damaged or of a kind that cannot be run."""

    code = "model_unusable"


class PullFailed(ChoirError):
    """Raised when the files of a model could not be fetched, or are not what they were said to be."""

    code = "pull_failed"


class NoRoom(ChoirError):
    """Raised when a store has no room for the files of a model."""

    code = "no_room"


class GenerationFailed(ChoirError):
    """Raised when a backend could not generate an answer."""

    code = "generation_failed"


class WorkerFailed(ChoirError):
    """Raised when an external server, or the thread that computes a model, fails for a reason that another
    one of the same model may not share."""

    code = "worker_failed"


class NoAnswers(ChoirError):
    """Raised when not a single member of an ensemble has answered in time."""

    code = "no_answers"


class AnswersUnreadable(ChoirError):
    """Raised in a client when an ensemble has answered and no strategy could read any of the answers."""

    code = "answers_unreadable"


class Undecided(ChoirError):
    """Raised when an ensemble has answered, and is less sure of its answer than was asked for."""

    code = "undecided"


class DocumentUnreadable(ChoirError):
    """Raised when a file of a batch has no text that can be read."""

    code = "document_unreadable"


class PoisonMessage(ChoirError):
    """Raised when a message cannot be worked on, however often it is tried."""

    code = "poison_message"


class UnsupportedVersion(ChoirError):
    """Raised when a message is of a newer version than this service reads."""

    code = "unsupported_version"


class MeshUnreachable(ChoirError):
    """Raised in a client when no broker or no router answers."""

    code = "mesh_unreachable"


class BrokerUnavailable(ChoirError):
    """Raised when the broker did not take a message in time."""

    code = "broker_unavailable"


class QueryRefused(ChoirError):
    """Raised when a statement would do anything but read the event database."""

    code = "query_refused"


class QueryFailed(ChoirError):
    """Raised when a statement cannot be run as it stands: its syntax, a name, a type, its need of memory."""

    code = "query_failed"


class ConfigurationError(ChoirError):
    """Raised when choir.toml or the environment says something that cannot be."""

    code = "configuration"


class InternalError(ChoirError):
    """Raised for a failure that Choir has no better name for."""

    code = "internal"


ERRORS_BY_CODE: dict[str, type[ChoirError]] = {
    error.code: error
    for error in (
        InvalidRequest,
        PayloadTooLarge,
        ContextExceeded,
        UnknownModel,
        UnknownStrategy,
        UnknownRequest,
        ResultEvicted,
        UnknownWorker,
        Unauthenticated,
        NotPermitted,
        RequestIdConflict,
        Overloaded,
        NotReady,
        Cancelled,
        DeadlineExceeded,
        ModelUnusable,
        PullFailed,
        NoRoom,
        GenerationFailed,
        WorkerFailed,
        NoAnswers,
        AnswersUnreadable,
        Undecided,
        DocumentUnreadable,
        PoisonMessage,
        UnsupportedVersion,
        MeshUnreachable,
        BrokerUnavailable,
        QueryRefused,
        QueryFailed,
        ConfigurationError,
        InternalError,
    )
}


def error_from_body(body: ErrorBody) -> ChoirError:
    """The exception that a wire error stands for."""
    return ERRORS_BY_CODE[body.code](
        body.message, field=body.field, retry_after_s=body.retry_after_s, known=body.known
    )
