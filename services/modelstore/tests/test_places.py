"""Where a further copy of a model is best."""

from __future__ import annotations

from typing import Any

from schemas.nodes.lease import LoadingOffer, OnDemand, ServedModel, StoreOffer
from schemas.nodes.model_store import ModelFile, Origin, StoredModel
from schemas.pipelines.plan import StageOffer
from services.modelstore.places import places_for
from services.modelstore.tests.stores import node

GB = 10**9
SHA256 = "ab" * 32
MODEL = StoredModel(
    name="large",
    files=(ModelFile(name="large.gguf", size_bytes=8 * GB, sha256=SHA256),),
    architecture="llama",
    origin=Origin(kind="local", place="/srv/large.gguf"),
    added_at_s=0.0,
)
STORES = {f"{host}-store": host for host in ("attic", "barn", "cellar", "dock", "loft")}


def store(host: str, free_bytes: int = 100 * GB) -> Any:
    """The lease of a host's store."""
    return node(f"{host}-store", host, "modelstore", store=StoreOffer(free_bytes=free_bytes))


def agent(host: str, budget_bytes: int, *models: str) -> Any:
    """The lease of an agent that loads what the host's store holds."""
    offer = LoadingOffer(store=f"{host}-store", budget_bytes=budget_bytes, models=models)
    return node(f"{host}-agent", host, loads=offer)


def stage(host: str, sha256: str) -> Any:
    """The lease of a stage that offers layers of a file."""
    known = {"architecture": "llama", "layers": 2, "cuts": (1,), "width": 8, "context_tokens": 32}
    sizes = {"layer_bytes": (1, 1), "first_bytes": 1, "last_bytes": 1, "cell_bytes": 1}
    one = {"name": "of-any-name", "sha256": sha256, **known, **sizes, "layer_ms": 1.0, "last_ms": 1.0}
    offer = StageOffer.model_validate({"models": (one,), "memory_bytes": GB, "threads": 1, "hop_ms": 0.1})
    return node(f"{host}-stage", host, "shard_stage", stage=offer)


def test_a_host_without_memory_or_without_anybody_who_could_serve_the_model_is_the_last_choice() -> None:
    leases = [
        *(store(host) for host in ("attic", "barn", "cellar", "dock")),
        store("loft", free_bytes=8 * GB),
        agent("attic", 4 * GB), agent("barn", 9 * GB, "another"), stage("barn", "cd" * 32),
        agent("cellar", 4 * GB), agent("cellar", 9 * GB, "large"),
        stage("dock", SHA256), agent("loft", 9 * GB),
    ]  # fmt: skip
    places = places_for(MODEL, STORES, leases)
    told = {place.host: (place.lacks, place.has_bytes) for place in places}
    assert told == {
        "attic": ("memory", 4 * GB), "barn": ("server", None), "cellar": (None, None), "dock": (None, None),
        "loft": ("disk", 8 * GB),
    }  # fmt: skip
    hosts = [place.host for place in places]
    assert set(hosts[:2]) == {"cellar", "dock"} and set(hosts[2:4]) == {"attic", "barn"}, hosts


def test_a_stage_that_offers_a_split_model_is_known_by_the_hash_of_all_its_files() -> None:
    files = tuple(MODEL.files[0].model_copy(update={"sha256": sha256}) for sha256 in (SHA256, "cd" * 32))
    split = MODEL.model_copy(update={"files": files, "joined_sha256": "ef" * 32})
    leases = [store("attic"), stage("attic", "ef" * 32), store("barn"), stage("barn", SHA256)]
    stores = {"attic-store": "attic", "barn-store": "barn"}

    def told(model: StoredModel) -> dict[str, str | None]:
        return {place.host: place.lacks for place in places_for(model, stores, leases)}

    assert told(split) == {"attic": None, "barn": "server"}
    # Where nobody has said that hash, no stage is known to offer the model
    assert set(told(split.model_copy(update={"joined_sha256": None})).values()) == {"server"}


def test_what_agents_say_that_a_model_takes_counts_with_its_cache_and_not_the_weights_alone() -> None:
    def serving(memory_bytes: int) -> Any:
        state = OnDemand(state="unloaded", memory_bytes=memory_bytes, budget_bytes=20 * GB)
        served = ServedModel(name="large", backend="llama_cpp", slots=1, on_demand=state)
        return node("holder-agent", "holder", models=(served,))

    alone = [store("attic"), agent("attic", 9 * GB), store("barn"), agent("barn", 11 * GB)]
    stores = {"attic-store": "attic", "barn-store": "barn"}
    assert {place.lacks for place in places_for(MODEL, stores, alone)} == {None}
    # The weights are 8 GB, and with their cache they take 10
    places = places_for(MODEL, stores, [*alone, serving(12 * GB), serving(10 * GB)])
    assert [(place.host, place.lacks, place.has_bytes) for place in places] == [
        ("barn", None, None),
        ("attic", "memory", 9 * GB),
    ]
    # An agent that counts less than the weights is not believed
    assert [place.lacks for place in places_for(MODEL, stores, [*alone, serving(1)])] == [None, None]


def test_every_store_finds_the_same_order_and_each_model_has_another_one() -> None:
    alike = [*map(store, STORES.values()), *(agent(host, 9 * GB) for host in STORES.values())]
    orders = {
        name: [place.host for place in places_for(MODEL.model_copy(update={"name": name}), STORES, alike)]
        for name in map(str, range(20))
    }
    turned = dict(reversed(STORES.items()))
    for name, order in orders.items():
        model = MODEL.model_copy(update={"name": name})
        assert [place.host for place in places_for(model, turned, alike[::-1])] == order
    assert {order[0] for order in orders.values()} == set(STORES.values())
