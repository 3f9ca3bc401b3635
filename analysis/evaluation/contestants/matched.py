"""Matches costs: how often the best agent is sampled, to cost what the ensemble or the debate costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.evaluation.contestants.crossfit import Unit
from analysis.evaluation.options import MAX_SELF_CONSISTENCY, EvalOptions
from analysis.evaluation.scoring.reading import Asked
from schemas.ensembles.rounds import DEBATE


def samples_wanted(asked: Sequence[Asked], best: Mapping[Unit, str], options: EvalOptions) -> dict[str, int]:
    """How many samples a question of each benchmark gets."""
    wanted = {}
    for benchmark in dict.fromkeys(each.exchange.benchmark for each in asked):
        of_benchmark = [each for each in asked if each.exchange.benchmark == benchmark]
        if options.self_consistency is not None:
            wanted[benchmark] = options.self_consistency
            continue
        calls = len(of_benchmark[0].exchange.agents)
        matched = samples_for_debate(of_benchmark, best) if "debate" in options.strategies else 0
        wanted[benchmark] = min(max(calls, matched), MAX_SELF_CONSISTENCY)
    return wanted


def samples_for_debate(asked: Sequence[Asked], best: Mapping[Unit, str]) -> int:
    """How many answers of the best agent the tokens of the debates pay for, rounded, at least one."""
    spent = sum(debate_tokens(each) for each in asked)
    of_best = sum(reply.tokens for each in asked for reply in each.replies if reply.agent == best[each.unit])
    return max(1, round(spent / of_best)) if of_best else 1


def debate_tokens(asked: Asked) -> int:
    """What both rounds of a question's debate took, prompts included."""
    second = (answer for answer in asked.exchange.further_answers if answer.round == DEBATE)
    return sum(reply.tokens for reply in asked.replies) + sum(
        answer.prompt_tokens + answer.generated_tokens for answer in second
    )
