"""Placement as a part of the router: wires plan store, controller and endpoint together."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from schemas.errors import ModelUnusable
from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelineSummary
from services.chassis.context import ServiceContext
from services.chassis.registry.directory import Directory, Serving
from services.router.placement.controller import Controller
from services.router.placement.cuts.rebalancer import Rebalancer
from services.router.placement.shard import ShardHandler
from services.router.placement.summary import summarize_pipeline
from services.router.settings import RouterSection
from services.tasks.plan_store import PlanStore


class Placement:
    """Every pipeline of the mesh, as this router sees it."""

    def __init__(self, mesh: ServiceContext, directory: Directory, settings: RouterSection) -> None:
        self._directory = directory
        self._plans = PlanStore(mesh.client, mesh.identity, now=mesh.clock.now)
        instance = mesh.identity.instance
        rebalancer = Rebalancer(
            self._plans,
            mesh.events,
            instance,
            window_s=settings.pipeline_rebalance_window_s,
            rest_s=settings.pipeline_rebalance_rest_s,
        )
        self._controller = Controller(
            directory,
            self._plans,
            instance,
            mesh.loops,
            look_interval_s=settings.pipeline_look_interval_s,
            grace_s=settings.pipeline_grace_s,
            settle_s=settings.pipeline_settle_s,
            rest_s=settings.pipeline_rest_s,
            rebalancer=rebalancer if settings.pipeline_rebalance else None,
        )
        self.shard = ShardHandler(directory, self._plans, instance).handle

    async def start(self) -> None:
        """Returns when the plans of now are known; keeps them from then on."""
        await self._plans.start()
        await self._controller.start()

    async def stop(self) -> None:
        """Keeps them no more; whoever else runs a router does."""
        await self._controller.stop()

    async def resume(self) -> None:
        """After a reconnection: what happened meanwhile is read."""
        await self._plans.reload()

    def summaries(self) -> tuple[PipelineSummary, ...]:
        """All pipelines as they are now."""
        leases, plans = self._directory.nodes, self._plans.all
        return tuple(
            summarize_pipeline(
                plan,
                leases,
                plans,
                self._controller.problems.get(plan.model) or self._controller.stuck.get(plan.model),
            )
            for plan in plans
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for each pipeline that cannot run, or cannot leave where it is."""
        return (*self._controller.problems.values(), *self._controller.stuck.values())

    def serves(self, lease: NodeLease, model: str) -> bool:
        """Whether an instance's word that it serves a model still holds: the lease of a first stage lives on
        for some seconds after another instance has taken its place."""
        plan = self._plans.of(model)
        return lease.stage is None or (plan is not None and plan.stages[0].instance == lease.instance)

    def live(self, named: Iterable[str], serving: Serving) -> Collection[str]:
        """All models that can be asked, with those of `named` whose pipeline is loading or being mended:
        their requests wait in the queue.

        Raises ModelUnusable if one of `named` is served by nothing but a pipeline that cannot be mended.
        """
        for model in named:
            problem = self._controller.problems.get(model)
            if problem is not None and not _has_agent(model, serving):
                raise ModelUnusable(f"model: {problem}", field="model")
        coming = [model for model in named if model not in serving and self._plans.of(model) is not None]
        return {*serving, *coming} if coming else serving


def _has_agent(model: str, serving: Serving) -> bool:
    return any(lease.stage is None for lease, _ in serving.get(model, []))
