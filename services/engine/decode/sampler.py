"""The sampler: llama.cpp's sampler chains, one for each sequence, choose the next token."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import llama_cpp
import numpy as np

from schemas.errors import InvalidRequest
from schemas.sampling import Sampling
from services.engine.decode.context import Context, Logits
from services.engine.decode.grammar import constraint_field, grammar_of
from services.engine.model.model import Model

GRAMMAR_ROOT = b"root"
# llama.cpp takes this seed for "a random one".
RANDOM_SEED = 0xFFFFFFFF
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def new_sampler(
    model: Model, sampling: Sampling, *, said: Sequence[int] = (), draws: int = 0
) -> TokenSampler:
    """The sampler that `sampling` asks for; raises InvalidRequest for a constraint that is not usable.

    One that takes over from another is told the tokens that were `said` and how many random numbers the
    other had drawn: it goes on with the same.
    """
    sampler = _fresh_sampler(model, sampling)
    sampler.resume(said, draws)
    return sampler


def _fresh_sampler(model: Model, sampling: Sampling) -> TokenSampler:
    grammar = grammar_of(sampling)
    if grammar is None:
        return TokenSampler(sampling)
    handle = llama_cpp.llama_sampler_init_grammar(
        model.vocab, grammar.encode("utf-8", "replace"), GRAMMAR_ROOT
    )
    if not handle:
        reason = "the grammar has a syntax error, no root rule, or a rule that begins with itself"
        raise InvalidRequest(reason, field=constraint_field(sampling))
    return GrammarSampler(model, sampling, handle)


class TokenSampler:
    """Greedy at temperature 0, else top-k, top-p, temperature and a draw with the given seed. `draws` counts
    the random numbers that were used."""

    def __init__(self, sampling: Sampling) -> None:
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        links = _links(sampling)
        for link in links:
            llama_cpp.llama_sampler_chain_add(self._chain, link)
        self._dice = links[-1] if sampling.temperature else None
        self._candidates = np.zeros(0, dtype=_CANDIDATE)
        self.draws = 0

    def sample(self, context: Context, row: int) -> int | None:
        """The token that follows row `row` of the last batch; None where none may follow."""
        if self._dice is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, context.handle, row))
        return self._choose(self._fill(context.logits(row)))

    def resume(self, said: Sequence[int], draws: int) -> None:
        """Comes to the state of a sampler that has said these tokens with so many random numbers."""
        for _ in range(draws if self._dice is not None else 0):
            anything = np.zeros(1, dtype=_CANDIDATE)
            llama_cpp.llama_sampler_apply(self._dice, ctypes.byref(_token_array(anything)))
        self.draws = draws

    def close(self) -> None:
        """Frees the chain; nothing else may be called afterwards."""
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None

    def _fill(self, logits: Logits) -> llama_cpp.llama_token_data_array:
        if len(self._candidates) != len(logits):
            self._candidates = np.zeros(len(logits), dtype=_CANDIDATE)
        self._candidates["id"] = np.arange(len(logits), dtype=np.int32)
        self._candidates["logit"] = logits
        return _token_array(self._candidates)

    def _choose(self, choices: llama_cpp.llama_token_data_array) -> int:
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(choices))
        self.draws += self._dice is not None
        return int(choices.data[choices.selected].id)


class GrammarSampler(TokenSampler):
    """A sampler whose tokens keep to a grammar.

    The chain chooses freely first, and only where the grammar forbids its choice is every token checked,
    which is what takes long. llama.cpp ends the process when it is told to accept a token that the grammar
    forbids, so it is never told that.
    """

    def __init__(self, model: Model, sampling: Sampling, grammar: object) -> None:
        super().__init__(sampling)
        self._grammar = grammar
        self._model = model

    def sample(self, context: Context, row: int) -> int | None:
        logits = context.logits(row)
        token = self._choose(self._fill(logits))
        if not self._allows(token):
            choices = self._fill(logits)
            llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(choices))
            if self._candidates["logit"].max() == -np.inf:
                return None
            token = self._choose(choices)
        self._accept(token)
        return token

    def close(self) -> None:
        super().close()
        if self._grammar:
            llama_cpp.llama_sampler_free(self._grammar)
            self._grammar = None

    def resume(self, said: Sequence[int], draws: int) -> None:
        super().resume(said, draws)
        for token in said:
            self._accept(token)

    def _allows(self, token: int) -> bool:
        one = np.zeros(1, dtype=_CANDIDATE)
        one["id"] = token
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(_token_array(one)))
        return bool(one["logit"][0] != -np.inf)

    def _accept(self, token: int) -> None:
        llama_cpp.llama_sampler_accept(self._chain, token)
        if not self._model.ends_generation(token):
            llama_cpp.llama_sampler_accept(self._grammar, token)


def _links(sampling: Sampling) -> list[object]:
    if sampling.temperature == 0:
        return [llama_cpp.llama_sampler_init_greedy()]
    links: list[object] = []
    if sampling.top_k:
        links.append(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        links.append(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
    links.append(llama_cpp.llama_sampler_init_temp(sampling.temperature))
    links.append(llama_cpp.llama_sampler_init_dist(sampling.seed % RANDOM_SEED))
    return links


def _token_array(candidates: np.ndarray[tuple[int], np.dtype[np.void]]) -> llama_cpp.llama_token_data_array:
    """The candidates as llama.cpp takes them; they must outlive what is returned."""
    data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
    return llama_cpp.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
