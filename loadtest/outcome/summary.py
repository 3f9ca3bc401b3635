"""The summary of a run: counts, rates, and the distribution of every metric."""

from __future__ import annotations

from collections import Counter

import numpy as np
from pydantic import BaseModel, ConfigDict

from loadtest.generate.request_record import LOST, TIMED_OUT
from loadtest.outcome.measurements import Column, Measurements
from loadtest.outcome.metrics import METRICS

STATISTICS = ("mean", "sd", "p50", "p90", "p95", "p99", "max")
LAG_LIMIT_MS = 10.0
"""A generator whose 99th percentile of lag is above it has not kept its times."""
SILENT_REQUESTS, SILENT_S = 3, 1.0
"""So many requests over so many seconds that nobody answers are more than bad luck."""
BUSY = 0.9
"""A generator that uses more of a core than this may be what was measured."""


class Figures(BaseModel):
    """A model of figures: frozen, and closed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Distribution(Figures):
    """Statistics of `n` values in ms."""

    n: int
    mean: float
    sd: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Column) -> Distribution | None:
        """None of no values. Percentiles are interpolated linearly."""
        if not len(values):
            return None
        p50, p90, p95, p99 = np.percentile(values, (50, 90, 95, 99))
        deviation = values.std(ddof=1) if len(values) > 1 else 0.0
        return cls(
            n=len(values),
            mean=float(values.mean()),
            sd=float(deviation),
            p50=float(p50),
            p90=float(p90),
            p95=float(p95),
            p99=float(p99),
            max=float(values.max()),
        )


class WorkloadSummary(Figures):
    """One way through the mesh."""

    requests: int
    answered: int
    errors: dict[str, int]
    metrics: dict[str, Distribution]


class Summary(Figures):
    """A run without its warm-up. `seconds` is from the end of the warm-up to the last answer; rates are per
    second of it. `lost` requests were accepted and have no result, `doubled` ones have two that differ;
    `fetched` ones lost their reply and got their result afterwards. `goodput` counts requests per second that
    met every objective. `silent_after_s` is the second after which nothing was answered any more."""

    seconds: float
    requests: int
    answered: int
    failed: int
    lost: int
    no_reply: int
    doubled: int
    fetched: int
    errors: dict[str, int]
    error_rate: float
    offered_rate: float
    rate: float
    tokens_per_s: float
    goodput: float
    goodput_share: float
    metrics: dict[str, Distribution]
    workloads: dict[str, WorkloadSummary]
    generator_cpu: tuple[float, ...]
    silent_after_s: float | None = None
    warnings: tuple[str, ...] = ()

    def figure(self, name: str) -> float | None:
        """`lost`, `rate`, `e2e.p99`, ... by name; None if it was not measured."""
        metric, _, statistic = name.partition(".")
        if not statistic:
            return float(getattr(self, metric))
        distribution = self.metrics.get(metric)
        return None if distribution is None else float(getattr(distribution, statistic))


def summarise(m: Measurements, met: Column, warm_up_s: float = 0.0) -> Summary:
    """The figures of a run; `met` says of each request whether it met the objectives."""
    counted = m.intended_s >= warm_up_s
    met, m = met[counted], m.where(counted)
    good = m.where(m.good)
    ended = m.done_s[~np.isnan(m.done_s)]
    seconds = max(1e-9, float(ended.max()) - warm_up_s) if len(ended) else 0.0
    span = max(1e-9, float(m.intended_s.max()) - warm_up_s) if len(m) else 0.0
    errors = _errors(m)

    def per_s(count: float, over: float = seconds) -> float:
        return count / over if over else 0.0

    summary = Summary(
        seconds=seconds,
        requests=len(m),
        answered=len(good),
        failed=len(m) - len(good),
        lost=errors.get(LOST, 0),
        no_reply=errors.get(TIMED_OUT, 0),
        doubled=int((m.results > 1).sum()),
        fetched=int(m.fetched.sum()),
        errors=errors,
        error_rate=(len(m) - len(good)) / len(m) if len(m) else 0.0,
        offered_rate=per_s(len(m) - 1, span) if len(m) > 1 else 0.0,
        rate=per_s(len(good)),
        tokens_per_s=per_s(float(good.tokens.sum())),
        goodput=per_s(float(met.sum())),
        goodput_share=float(met.mean()) if len(m) else 0.0,
        metrics=_distributions(good),
        workloads={name: _workload(m.where(m.workload == name)) for name in sorted(set(m.workload))},
        generator_cpu=m.cpu_shares,
        silent_after_s=_silent_after_s(m),
    )
    return summary.model_copy(update={"warnings": tuple(_warnings(summary))})


def _workload(m: Measurements) -> WorkloadSummary:
    good = m.where(m.good)
    return WorkloadSummary(
        requests=len(m), answered=len(good), errors=_errors(m), metrics=_distributions(good)
    )


def _errors(m: Measurements) -> dict[str, int]:
    return dict(Counter(code for code in m.error if code).most_common())


def _distributions(good: Measurements) -> dict[str, Distribution]:
    found = {name: Distribution.of(metric.values(good)) for name, metric in METRICS.items()}
    return {name: distribution for name, distribution in found.items() if distribution is not None}


def _warnings(summary: Summary) -> list[str]:
    """What a reader has to know before believing the figures."""
    warnings = []
    lag = summary.metrics.get("lag")
    busiest = max(summary.generator_cpu, default=0.0)
    if lag is not None and lag.p99 > LAG_LIMIT_MS:
        why = "it was busy" if busiest > BUSY else "requests waited for a place, or the machine was busy"
        warnings.append(
            f"the generator was late: 1 of 100 requests started {lag.p99:.0f} ms late or more ({why}); "
            "believe the figures from the intended start, and use more --processes or another machine"
        )
    elif busiest > BUSY:
        warnings.append(
            f"the generator used {busiest:.0%} of a core and may be the bottleneck: use more --processes"
        )
    if summary.silent_after_s is not None:
        warnings.append(
            f"nothing was answered after second {summary.silent_after_s:.0f} of the run: the mesh has gone"
        )
    return warnings


def _silent_after_s(m: Measurements) -> float | None:
    """When the last answer came, if several requests were sent after it in vain."""
    answered_s = m.done_s[m.good]
    last_s = float(answered_s.max()) if len(answered_s) else 0.0
    after = m.where(m.sent_s > last_s)
    if len(after) < SILENT_REQUESTS or float(after.sent_s.max() - after.sent_s.min()) < SILENT_S:
        return None
    return last_s
