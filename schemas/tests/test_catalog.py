"""The table of streams, consumers, buckets and permissions is consistent in itself."""

from __future__ import annotations

import hashlib
from itertools import combinations

import pytest

from schemas import commands, replies, subjects
from schemas.broker import catalog
from schemas.broker.catalog import (
    ACCESS,
    BUCKETS,
    ENDPOINTS,
    STREAMS,
    SUPERVISOR,
    Access,
    Endpoint,
    StreamSpec,
)
from schemas.ensembles import kept
from schemas.message import Message
from schemas.nodes import cordons, joining, loading, model_store, workers
from schemas.pipelines import plan as pipelines
from schemas.requests import dead_letters, keys, queries, tenants

MODELS = ("llama3.2:3b", "llama3", "org/model", "*", ">", "模型")
REQUEST = "r1"

SIGNALS = (
    subjects.ALL_CANCELS,
    subjects.ALL_COUNTS,
    subjects.ALL_TOKENIZERS,
    subjects.AGENT_PING,
    subjects.ALL_STAGE_SIGNALS,
    subjects.ALL_JOINS,
    subjects.ALL_ENROLS,
    subjects.ALL_BLOBS,
    subjects.ALL_STORE_ORDERS,
    subjects.ALL_HELD_MODELS,
    subjects.ALL_LOAD_ORDERS,
    subjects.ALL_PREFIX_SIGNALS,
)
CONSUMERS = catalog.consumers(MODELS)
STREAM_NAMES = {stream.name for stream in STREAMS}
BUCKET_NAMES = {bucket.name for bucket in BUCKETS}

streams = pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
accesses = pytest.mark.parametrize("access", ACCESS, ids=lambda access: access.service)
endpoints = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.subject)


def overlap(one: str, other: str) -> bool:
    """Whether a subject can match both patterns."""
    match one.split("."), other.split("."):
        case [">"], [_, *_]:
            return True
        case [_, *_], [">"]:
            return True
        case [a, *rest], [b, *other_rest]:
            if a != b and "*" not in (a, b):
                return False
            if not rest or not other_rest:
                return not rest and not other_rest
            return overlap(".".join(rest), ".".join(other_rest))
    return False


def inside(subject: str, pattern: str) -> bool:
    """Whether everything that matches `subject` matches `pattern` as well."""
    match subject.split("."), pattern.split("."):
        case [_, *_], [">"]:
            return True
        case [a, *rest], [b, *pattern_rest]:
            if b not in ("*", a) or a == ">":
                return False
            if not rest or not pattern_rest:
                return not rest and not pattern_rest
            return inside(".".join(rest), ".".join(pattern_rest))
    return False


def stream_named(name: str) -> StreamSpec:
    return next(stream for stream in STREAMS if stream.name == name)


def test_patterns_are_compared_as_the_broker_does() -> None:
    assert overlap("a.*", "*.b")
    assert overlap("a.>", "a.b.c")
    assert not overlap("a.>", "a")
    assert not overlap("a.*", "a.b.c")
    assert inside("a.*", "a.>")
    assert not inside("a.>", "a.*")


def test_names_are_unique() -> None:
    for things in (STREAMS, BUCKETS, CONSUMERS):
        names = [thing.name for thing in things]
        assert len(set(names)) == len(names)
    assert len({access.service for access in ACCESS}) == len(ACCESS)
    assert len({endpoint.subject for endpoint in ENDPOINTS}) == len(ENDPOINTS)


def test_no_subject_is_kept_by_two_streams() -> None:
    owned = [(stream.name, subject) for stream in STREAMS for subject in stream.subjects]
    for (_, one), (_, other) in combinations(owned, 2):
        assert not overlap(one, other)


@streams
def test_every_stream_is_bounded_and_says_why_it_exists(stream: StreamSpec) -> None:
    assert stream.max_bytes > 0
    assert stream.why
    assert stream.retention == "work_queue" or stream.max_age_s > 0


@streams
def test_what_is_written_once_refuses_what_is_new_and_tells_what_is_stored(stream: StreamSpec) -> None:
    if stream.write_once:
        assert stream.discard == "new"
        assert stream.republish_to


@streams
def test_republished_subjects_come_from_the_stream_and_go_back_into_none(stream: StreamSpec) -> None:
    assert bool(stream.republish_from) == bool(stream.republish_to)
    if stream.republish_from:
        assert any(inside(stream.republish_from, subject) for subject in stream.subjects)
        assert not any(overlap(stream.republish_to, kept) for other in STREAMS for kept in other.subjects)


def test_a_command_is_kept_on_disk_until_it_is_done_and_none_is_dropped_for_another() -> None:
    commands_stream = stream_named(subjects.COMMANDS_STREAM)
    assert (commands_stream.retention, commands_stream.discard, commands_stream.storage) == (
        "work_queue",
        "new",
        "file",
    )


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda consumer: consumer.name)
def test_a_consumer_filters_within_its_stream(consumer: catalog.ConsumerSpec) -> None:
    assert any(inside(consumer.filter_subject, kept) for kept in stream_named(consumer.stream).subjects)
    assert "." not in consumer.name
    assert not set(consumer.name) & set(" *>/\\")


def test_a_command_has_exactly_one_taker() -> None:
    queue = [c for c in CONSUMERS if c.stream == subjects.COMMANDS_STREAM]
    for one, other in combinations(queue, 2):
        assert not overlap(one.filter_subject, other.filter_subject), "a work queue refuses such consumers"

    for priority in subjects.PRIORITIES:
        sent = [
            subjects.gather(priority, REQUEST),
            subjects.summarize(priority, REQUEST),
            *(subjects.generate(priority, m, REQUEST) for m in MODELS),
        ]
        for subject in sent:
            assert sum(inside(subject, consumer.filter_subject) for consumer in queue) == 1


def test_a_model_has_a_queue_for_each_class_of_work() -> None:
    names = [consumer.name for consumer in catalog.model_consumers("llama3.2:3b")]
    assert names == ["generate-interactive-llama3=2E2=3A3b", "generate-batch-llama3=2E2=3A3b"]


def test_every_command_of_a_request_is_found_by_its_id() -> None:
    patterns = subjects.commands_of(REQUEST)
    for priority in subjects.PRIORITIES:
        for subject in (
            subjects.gather(priority, REQUEST),
            subjects.summarize(priority, REQUEST),
            subjects.generate(priority, "org/model", REQUEST),
        ):
            assert sum(inside(subject, pattern) for pattern in patterns) == 1
            assert not any(inside(subject.replace(REQUEST, "r2"), pattern) for pattern in patterns)


@pytest.mark.parametrize(
    ("subject", "stream"),
    [
        (subjects.generate("batch", "*", REQUEST), subjects.COMMANDS_STREAM),
        (subjects.gather("interactive", REQUEST), subjects.COMMANDS_STREAM),
        (subjects.summarize("interactive", REQUEST), subjects.COMMANDS_STREAM),
        (subjects.answer(REQUEST, 1, ">"), subjects.ANSWERS_STREAM),
        (subjects.result(REQUEST), subjects.RESULTS_STREAM),
        (subjects.token(REQUEST, "org/model"), subjects.TOKENS_STREAM),
        (subjects.event("router", "request_accepted"), subjects.EVENTS_STREAM),
        (subjects.dead("agent", REQUEST), subjects.DEAD_STREAM),
        (subjects.cancel_signal(REQUEST), None),
        (subjects.count_tokens("org/model"), None),
    ],
)
def test_what_is_published_is_kept_where_it_belongs(subject: str, stream: str | None) -> None:
    capturing = [spec.name for spec in STREAMS if any(inside(subject, kept) for kept in spec.subjects)]
    assert capturing == ([] if stream is None else [stream])


BY_GATEWAYS = {one.subject for one in catalog.endpoints_of("ask")} | set(catalog.KEYED)
"""What gateways ask: dead letters and scores have no page."""


def test_a_gateway_asks_by_itself_what_every_tenant_may_and_the_rest_with_a_key() -> None:
    gateway = next(access for access in ACCESS if access.service == "gateway")
    alone = {subjects.asked_on(one) for one in gateway.publishes if one.startswith("choir.door.")}
    keyed = {subjects.asked_on(one) for one in gateway.publishes if subjects.is_keyed(one)}
    assert alone == {one.subject for one in catalog.endpoints_of("ask")}
    assert keyed == set(catalog.KEYED) == BY_GATEWAYS - alone
    assert set(gateway.publishes) - {subjects.ALL_EVENTS} == {
        *map(subjects.doors, alone), *map(subjects.keyed_doors, keyed),
    }  # fmt: skip
    # And whoever is asked so can read the keys, and whose they are
    for access in ACCESS:
        if any(map(subjects.is_keyed, access.subscribes)):
            assert {subjects.KEYS_BUCKET, subjects.TENANTS_BUCKET} <= set(access.buckets_read)
        # And no host that joins to work is shown a key
        assert access.service not in joining.WORKING_SERVICES or not any(
            map(subjects.is_keyed, access.subscribes)
        )
    assert (gateway.pulls, gateway.reads, gateway.deletes, gateway.purges, gateway.subscribes) == ((),) * 5


@accesses
def test_a_service_may_touch_only_what_exists(access: Access) -> None:
    kept = [subject for stream in STREAMS for subject in stream.subjects]
    republished = [stream.republish_to for stream in STREAMS if stream.republish_to]
    served = [
        door
        for endpoint in ENDPOINTS
        for service, door in (
            (endpoint.service, endpoint.doors),
            (endpoint.keyed_service, endpoint.keyed_doors),
        )
        if service == access.service and door is not None
    ]
    # What not every tenant may ask a gateway asks with a key alone.
    asked = [
        endpoint.keyed_doors or endpoint.doors for endpoint in ENDPOINTS if endpoint.subject in BY_GATEWAYS
    ]
    relayed = [subjects.doors(subject) for subject in catalog.RELAYED]
    asked = {"gateway": asked, "router": relayed}.get(access.service, [])
    for subject in access.publishes:
        assert any(inside(subject, known) for known in (*kept, *SIGNALS, *asked)), subject
    for subject in access.subscribes:
        heard = (*republished, *served, *SIGNALS, subjects.ALL_STAGES)
        assert any(inside(subject, known) for known in heard), subject
    assert set(access.pulls) <= {consumer.stream for consumer in CONSUMERS}
    assert set(access.reads) <= STREAM_NAMES
    assert {*access.buckets_read, *access.buckets_written} <= BUCKET_NAMES


@accesses
def test_every_service_keeps_a_lease_and_tells_what_happens(access: Access) -> None:
    assert subjects.NODES_BUCKET in access.buckets_written
    assert subjects.ALL_EVENTS in access.publishes
    assert subjects.ALL_DEAD in access.publishes or subjects.COMMANDS_STREAM not in access.pulls


@endpoints
def test_an_endpoint_is_served_by_a_service_that_may_listen_there(endpoint: Endpoint) -> None:
    heard = {access.service: access.subscribes for access in ACCESS}
    if endpoint.service != SUPERVISOR:  # who may do everything inside
        assert endpoint.doors in heard[endpoint.service]
        assert endpoint.keyed_doors is None or endpoint.keyed_doors in heard[endpoint.keyed_service]
    assert not any(endpoint.doors in heard[other] for other in heard if other != endpoint.service)
    assert endpoint.why


@endpoints
def test_an_endpoint_takes_and_gives_messages_of_the_contract(endpoint: Endpoint) -> None:
    parts = (
        commands, cordons, dead_letters, joining, kept, keys, loading, model_store, pipelines, queries,
        replies, tenants, workers,
    )  # fmt: skip
    contract = {name: value for part in parts for name, value in vars(part).items()}
    assert endpoint.takes == "-" or issubclass(contract[endpoint.takes], Message)
    # What operators ask for may change the mesh: the message says what, so that it can be told who did it
    assert endpoint.role != "operate" or contract[endpoint.takes].act is not Message.act
    assert issubclass(contract[endpoint.gives], Message)


@endpoints
def test_no_endpoint_is_kept_by_a_stream(endpoint: Endpoint) -> None:
    heard = (endpoint.subject, endpoint.doors)
    assert not any(overlap(one, kept) for one in heard for stream in STREAMS for kept in stream.subjects)


def test_a_broker_of_one_account_leads_every_question_to_the_door_of_the_local_tenant() -> None:
    for endpoint in ENDPOINTS:
        door = catalog.door_mappings()[endpoint.subject]
        assert inside(door, endpoint.doors)
        assert (subjects.tenant_at(door), subjects.asked_on(door)) == ("local", endpoint.subject)


def test_every_constant_of_the_subjects_is_in_the_catalog() -> None:
    constants = {
        name: value for name, value in vars(subjects).items() if name.isupper() and isinstance(value, str)
    }
    known = (
        STREAM_NAMES
        | BUCKET_NAMES
        | {subject for stream in STREAMS for subject in (*stream.subjects, stream.republish_to)}
        | {consumer.name for consumer in CONSUMERS}
        | {endpoint.subject for endpoint in ENDPOINTS}
        | set(SIGNALS)
    )
    known |= {subjects.LOCAL_TENANT}
    strays = {n: v for n, v in constants.items() if v not in known and not n.endswith("_HEADER")}
    assert strays == {}
    assert len(set(constants.values())) == len(constants), "two constants of the same value"


def test_a_lease_runs_out_and_other_entries_are_as_durable_as_they_need_to_be() -> None:
    by_name = {bucket.name: bucket for bucket in BUCKETS}
    assert by_name[subjects.NODES_BUCKET].ttl_s == catalog.LEASE_TTL_S
    assert by_name[subjects.SCORES_BUCKET].ttl_s == 0
    assert by_name[subjects.SCORES_BUCKET].storage == "file"


def test_a_request_is_one_request_for_as_long_as_it_may_live() -> None:
    (limit,) = (meta.le for meta in commands.Ask.model_fields["timeout_s"].metadata if hasattr(meta, "le"))
    (queue,) = (stream for stream in STREAMS if stream.name == subjects.COMMANDS_STREAM)
    assert queue.duplicate_window_s > limit


FINGERPRINTS = {
    1: "ea5350a13b71ca23",
    2: "ec0a9f1f34f006a5",
    3: "35cb05a0048afc11",
    4: "19b74a7ab5a05dd6",
    5: "e39d546fffd42635",
    6: "2a224769ea77bbc1",
    7: "e36630ece494d16b",
    8: "f18873104b5b3ede",
    9: "eee3cab6acbcac6b",
    10: "3ffb132ff98083e1",
    11: "7f72ae82f1ede8a0",
    12: "74a529905f1ecf2f",
    13: "91a58ab3759c6828",
    14: "d0d0a5f0ecbaa72f",
    15: "1400227acc6eeddd",
}
"""What a broker is to have, by `catalog.VERSION`. After a change: a new version, with its own fingerprint."""


def test_what_a_broker_is_to_have_changes_only_with_a_new_version() -> None:
    table = repr((STREAMS, BUCKETS, catalog.consumers(["alpha"])))
    assert FINGERPRINTS[catalog.VERSION] == hashlib.sha256(table.encode()).hexdigest()[:16]
