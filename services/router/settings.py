"""Settings of the router: section `[router]`."""

from __future__ import annotations

from pydantic import Field

from schemas.ensembles.named import Ensemble
from services.chassis.settings import Section, ServiceSettings


class RouterSection(Section):
    """`replicas` on this host; `max_waiting` clients may wait at one router (beside those who cancel
    something or look what goes on); who has waited for `undisturbed_s` makes room when its tenant is refused
    a place. Sweeps look for expired work. For `cache_keep_s` the result of a request answers equal ones that
    allow it; 0 switches that off.

    Pipelines are looked at every `pipeline_look_interval_s`. One whose plan names a dead instance is left to
    its standbys for `pipeline_grace_s`; one that could run better on the nodes of now is planned anew
    after `pipeline_settle_s` without further changes, but not before the present plan is `pipeline_rest_s`
    old: a stage that was taken over is an interruption enough.

    With `pipeline_rebalance` the cut of a running pipeline follows what its stages measure: it is moved when
    three windows of `pipeline_rebalance_window_s` in a row promise a tenth more tokens per second, and not
    within `pipeline_rebalance_rest_s` of the last move; that time doubles after moves that were in vain.
    """

    replicas: int = Field(default=1, ge=0, le=16)
    max_waiting: int = Field(default=4_096, ge=1)
    undisturbed_s: float = Field(default=5.0, ge=0)
    sweep_interval_s: float = Field(default=2.0, gt=0)
    default_strategy: str = "majority"
    cache_keep_s: float = Field(default=3_600.0, ge=0, le=3_600)
    pipeline_look_interval_s: float = Field(default=1.0, gt=0)
    pipeline_grace_s: float = Field(default=3.0, ge=0)
    pipeline_settle_s: float = Field(default=5.0, ge=0)
    pipeline_rest_s: float = Field(default=60.0, ge=0)
    pipeline_rebalance: bool = True
    pipeline_rebalance_window_s: float = Field(default=4.0, gt=0)
    pipeline_rebalance_rest_s: float = Field(default=20.0, ge=0)


class RouterSettings(ServiceSettings):
    """Settings of a router, with the ensembles that have a name of their own."""

    router: RouterSection = RouterSection()
    ensembles: tuple[Ensemble, ...] = ()
