"""Names of span attributes: OpenTelemetry's conventions where there is one, `choir.*` for the rest.

The conventions for generative AI still move (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/);
this is the only place that spells them.
"""

from __future__ import annotations

from schemas.events import (
    DecisionMade,
    Event,
    GatherCompleted,
    GatherPulled,
    RequestAccepted,
    RequestCompleted,
    RequestShared,
    RequestSummarised,
    TaskCompleted,
    TaskPulled,
)

Attribute = str | int | float | bool | tuple[str, ...]

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
ERROR_TYPE = "error.type"

SERVICE_NAME = "service.name"
SERVICE_NAMESPACE = "service.namespace"
SERVICE_INSTANCE = "service.instance.id"
SERVICE_VERSION = "service.version"
HOST_NAME = "host.name"

MESSAGING_SYSTEM = "messaging.system"
MESSAGING_DESTINATION = "messaging.destination.name"

REQUEST_ID = "choir.request_id"
TASK_ID = "choir.task_id"
ROUND = "choir.round"
TOPOLOGY = "choir.topology"
MODELS = "choir.requested_models"
STRATEGY = "choir.strategy"
SHARE = "choir.decision.share"
DELIVERY = "choir.delivery"
QUEUE_NS = "choir.queue_duration_ns"
SLOT_NS = "choir.slot_duration_ns"
LOAD_NS = "choir.load_duration_ns"
PROMPT_EVAL_NS = "choir.prompt_eval_duration_ns"
EVAL_NS = "choir.eval_duration_ns"
STORE_NS = "choir.store_duration_ns"
COLLECT_NS = "choir.collect_duration_ns"
DECIDE_NS = "choir.decide_duration_ns"
ROUNDS = "choir.rounds"
PIECES = "choir.pieces"

OWN_PROVIDER = "choir"
CHAT = "chat"


def attributes_of(event: Event) -> dict[str, Attribute]:
    """What an event says of the span in which it happened."""
    named: dict[str, Attribute | None] = {REQUEST_ID: event.request_id, TASK_ID: event.task_id}
    match event:
        case TaskCompleted():
            timings = event.timings
            named |= {
                OPERATION: CHAT,
                PROVIDER: OWN_PROVIDER,
                REQUEST_MODEL: event.model,
                RESPONSE_MODEL: event.model,
                FINISH_REASONS: (event.finish_reason,),
                INPUT_TOKENS: event.prompt_tokens,
                OUTPUT_TOKENS: event.generated_tokens,
                ROUND: event.round,
                SLOT_NS: event.slot_duration_ns,
                LOAD_NS: timings.load_duration_ns,
                PROMPT_EVAL_NS: timings.prompt_eval_duration_ns,
                EVAL_NS: timings.eval_duration_ns,
                STORE_NS: event.store_duration_ns,
            }
        case TaskPulled() | GatherPulled():
            named |= {DELIVERY: event.delivery, QUEUE_NS: event.queue_duration_ns}
        case GatherCompleted():
            named |= {
                ROUNDS: event.rounds,
                COLLECT_NS: event.collect_duration_ns,
                DECIDE_NS: event.decide_duration_ns,
                STORE_NS: event.store_duration_ns,
            }
        case DecisionMade():
            named |= {STRATEGY: event.strategy, SHARE: event.share}
        case RequestAccepted() | RequestShared():
            named |= {TOPOLOGY: event.topology, MODELS: event.models}
        case RequestCompleted():
            named |= {TOPOLOGY: event.topology}
        case RequestSummarised():
            named |= {
                OPERATION: CHAT,
                PROVIDER: OWN_PROVIDER,
                REQUEST_MODEL: event.model,
                INPUT_TOKENS: event.prompt_tokens,
                OUTPUT_TOKENS: event.generated_tokens,
                PIECES: event.pieces,
                DELIVERY: event.delivery,
                QUEUE_NS: event.queue_duration_ns,
            }
    error = getattr(event, "error", None)
    named[ERROR_TYPE] = None if error is None else error.code
    return {name: value for name, value in named.items() if value is not None}
