"""What services say of themselves, and what is kept in buckets."""

from __future__ import annotations

from schemas.ensembles.kept import EnsemblesReply, EnsembleWord, ManageEnsembles, NamedEnsemble
from schemas.ensembles.named import Ensemble
from schemas.errors import ErrorBody
from schemas.message import Message
from schemas.nodes.cordons import Cordon, CordonsReply, ManageCordons
from schemas.nodes.joining import (
    Enrol,
    Enrolled,
    Host,
    HostedInstance,
    HostsReply,
    Invite,
    InviteMade,
    Join,
    Joined,
    MakeInvite,
    ManageHosts,
)
from schemas.nodes.lease import LoadingOffer, StoreOffer
from schemas.nodes.loading import LoadedAt, LoadedReply, ManageLoaded
from schemas.nodes.prefixes import ClaimTask, DeclineTask, OfferTask
from schemas.nodes.workers import ManageWorkers, WorkersReply, WorkerStatus
from schemas.pipelines.plan import (
    ShardReply,
)
from schemas.requests.dead_letters import DeadLetter, DeadLettersReply, ManageDeadLetters
from schemas.requests.keys import KeyChange, KeyLimits, KeysReply, ManageKeys
from schemas.requests.tenants import ManageTenants, Tenant, TenantLimits, TenantsReply
from schemas.tests.golden.shared import (
    ACCEPTED_AT_S,
    ANOTHER_PUBLIC_KEY,
    API_KEY,
    CORDON,
    LEASE,
    ON_DEMAND,
    PLAN,
    PUBLIC_KEY,
    STAGE_OFFER,
    WORKER,
    WORKER_STATE,
)

COUNCIL = Ensemble(
    name="council", members=("choir-qwen", "choir-phi"), strategies=("weighted", "majority"), quorum=2
)
NAMED_ENSEMBLE = NamedEnsemble(
    words=(
        EnsembleWord(ensemble=COUNCIL, hosts=("attic-1f0c", "cellar-0a1b"), operators=True),
        EnsembleWord(ensemble=Ensemble(name="council"), hosts=("lab-7",)),
    )
)

NODE_SAMPLES: dict[str, Message] = {
    "node_lease": LEASE,
    "pipeline_plan": PLAN,
    "shard_reply": ShardReply(model="llama3.2:3b", plan=PLAN, summary="2 stages: 10.4 ms a token predicted"),
    "invite": Invite(
        public_key="U" + "A" * 55,
        kind="person",
        name="lab-7",
        role="observe",
        services=("agent",),
        created_at_s=1_700_000_000.5,
        expires_at_s=1_700_003_600.5,
        rotates=True,
        overlap_s=3600.0,
        used_by="U" + "B" * 55,
        used_at_s=1_700_000_060.5,
        retires=("U" + "C" * 55,),
    ),
    "host": Host(
        name="attic",
        public_key="U" + "D" * 55,
        services=("agent", "shard_stage"),
        instances=(
            HostedInstance(
                service="agent", name="attic-agent", public_key="U" + "E" * 55, models=("llama3.2:3b",)
            ),
        ),
        created_at_s=1_700_000_000.5,
        revoked_at_s=1_700_000_100.5,
    ),
    "host_with_a_broker": Host(
        name="cellar-0a1b",
        public_key="U" + "D" * 55,
        services=("agent",),
        instances=(
            HostedInstance(
                service="agent", name="cellar", public_key="U" + "E" * 55, models=(), takes_workers=True
            ),
        ),
        created_at_s=1_700_000_000.5,
        broker=True,
    ),
    "make_invite": MakeInvite(
        kind="person", name="lab-7", public_key="U" + "A" * 55, ttl_s=3600.0, role="observe"
    ),
    "make_invite_of_a_host": MakeInvite(
        kind="host", name="attic", public_key="U" + "A" * 55, ttl_s=3600.0, all_services=True
    ),
    "make_invite_of_a_new_key": MakeInvite(
        kind="person", name="lab-7", public_key="U" + "A" * 55, ttl_s=3600.0, rotates=True, overlap_s=600.0
    ),
    "revoke_host": ManageHosts(action="revoke", name="attic"),
    "hosts_reply": HostsReply(
        hosts=(Host(name="attic", public_key="U" + "D" * 55, created_at_s=1_700_000_000.5),)
    ),
    "invite_made": InviteMade(
        expires_at_s=1_700_003_600.5,
        addresses=("192.0.2.7:4222",),
        ca="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ),
    "load_model": ManageLoaded(action="load", model="qwen3:4b", instance="agent-2", keep_alive_s=3600.0),
    "offer_task": OfferTask(
        offer="2Yx1bqk", instance="agent-2", model="qwen3:4b", block="9mJkq0Zt", wait_s=0.25, patient=False
    ),
    "decline_task": DeclineTask(offer="2Yx1bqk"),
    "claim_task": ClaimTask(offer="2Yx1bqk"),
    "unload_model": ManageLoaded(action="unload", model="qwen3:4b"),
    "loaded_reply": LoadedReply(
        model="qwen3:4b", agents=(LoadedAt(instance="agent-2", on_demand=ON_DEMAND, busy=1, leaves=True),)
    ),
    "join": Join(public_key="U" + "B" * 55),
    "joined": Joined(name="lab-7", role="observe", services=("agent",)),
    "joined_a_cluster": Joined(name="lab-7", servers=("192.0.2.7:4222", "192.0.2.8:4222", "192.0.2.9:4222")),
    "enrol": Enrol(
        instances=(
            HostedInstance(
                service="agent", name="attic-agent", public_key="U" + "E" * 55, models=("llama3.2:3b",)
            ),
        ),
        models=("llama3.2:3b",),
    ),
    "enrolled": Enrolled(instances=1),
    "enrol_with_ensembles": Enrol(instances=(), ensembles=(COUNCIL,)),
    "enrolled_with_problems": Enrolled(instances=0, problems=("ensemble council: two hosts disagree",)),
    "named_ensemble": NAMED_ENSEMBLE,
    "list_ensembles": ManageEnsembles(),
    "add_ensemble": ManageEnsembles(action="add", ensemble=COUNCIL),
    "remove_ensemble": ManageEnsembles(action="remove", name="council"),
    "ensembles_reply": EnsemblesReply(ensembles=(NAMED_ENSEMBLE,), left_out=1),
    "tenant": Tenant(
        name="lab-7",
        role="observe",
        public_keys=(PUBLIC_KEY, ANOTHER_PUBLIC_KEY),
        limits=TenantLimits(
            requests_in_flight=64, tokens_per_minute=20_000, batch_share=0.25, connections=16
        ),
        weight=3,
        created_at_s=1763500000.0,
        expires_at_s=1795036000.0,
        revoked_at_s=1764000000.0,
    ),
    "worker": WORKER,
    "add_worker": ManageWorkers(action="add", worker=WORKER, replace=True),
    "remove_worker": ManageWorkers(action="remove", id="mac-07"),
    "workers_reply": WorkersReply(
        left_out=1,
        workers=(
            WorkerStatus(
                worker=WORKER,
                held_by="agent-7f3a",
                slots=3,
                busy=1,
                tokens_per_s=31.5,
                state=WORKER_STATE,
                problem=ErrorBody(
                    code="worker_failed", message="mac-07: no answer at http://mac-07.local:1234"
                ),
            ),
        ),
    ),
    "api_key": API_KEY,
    "add_key": ManageKeys(action="add", key=API_KEY),
    "change_key": ManageKeys(
        action="change",
        id="k-7f3a21",
        change=KeyChange(
            label="LangChain",
            scopes=("embed",),
            models=(),
            limits=KeyLimits(requests_in_flight=4),
            cache=True,
            expires_at_s=1_790_000_000.0,
        ),
    ),
    "key_of_batch_work": API_KEY.model_copy(
        update={"limits": KeyLimits(requests_per_minute=120, batch_share=0.01), "priority": "batch"}
    ),
    "change_key_to_batch_work": ManageKeys(
        action="change", id="k-7f3a21", change=KeyChange(priority="batch")
    ),
    "keys_reply": KeysReply(keys=(API_KEY.model_copy(update={"revoked": True}),), left_out=1),
    "cordon": CORDON,
    "host_cordon": Cordon(host="alpha", at_s=ACCEPTED_AT_S),
    "drain": ManageCordons(action="drain", instance="agent-1"),
    "uncordon": ManageCordons(action="uncordon", host="alpha"),
    "cordons_reply": CordonsReply(cordons=(CORDON,)),
    "cordoned_node": LEASE.model_copy(update={"cordon": "drain", "rests": True}),
    "node_that_loads_models": LEASE.model_copy(
        update={
            "loads": LoadingOffer(store="attic-1a2b-modelstore", budget_bytes=8_000_000_000, models=("phi",))
        }
    ),
    "node_with_a_stage_on_gpus": LEASE.model_copy(
        update={"stage": STAGE_OFFER.model_copy(update={"gpu_bytes": 24_000_000_000})}
    ),
    "node_with_a_store": LEASE.model_copy(update={"store": StoreOffer(free_bytes=1_000_000)}),
    "limit_tenant": ManageTenants(
        action="limit", name="alice", limits=TenantLimits(requests_in_flight=4, connections=2), weight=2.0
    ),
    "tenants_reply": TenantsReply(tenants=(Tenant(name="alice"),)),
    "manage_dead_letters": ManageDeadLetters(action="retry", sequence=12),
    "list_dead_letters": ManageDeadLetters(after_sequence=12, limit=20, tenant="alice"),
    "dead_letters_reply": DeadLettersReply(
        letters=(
            DeadLetter(
                sequence=12,
                died_at_s=1_700_000_000.5,
                service="agent",
                request_id="01JABCDEFGHJKMNPQRSTVWXYZ0",
                reason="tried 5 times and never finished",
                letter="generate",
                models=("llama3.2:3b",),
                part_of="aggregator",
                size_bytes=412,
                content="{}",
            ),
        ),
        more_after=12,
        retried_as="01JABCDEFGHJKMNPQRSTVWXYZ0-retry-12",
    ),
}
