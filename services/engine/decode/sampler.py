"""The sampler: llama.cpp's sampler chains, one for each sequence, choose the next token."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from multiprocessing.connection import Connection

import llama_cpp
import numpy as np

from schemas.errors import InvalidRequest
from schemas.requests.sampling import Sampling
from services.engine.decode.context import Context, Logits
from services.engine.decode.grammar import constraint_field
from services.engine.decode.grammar_process import GrammarProcess
from services.engine.model.model import Model

# llama.cpp takes this seed for "a random one".
RANDOM_SEED = 0xFFFFFFFF
REPEAT_LAST = 64
"""So many tokens are looked at for repetitions, as Ollama does by default."""
FORBIDDEN = -100.0
"""A bias so low forbids its token, as in OpenAI's API."""
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def new_sampler(
    model: Model,
    sampling: Sampling,
    *,
    said: Sequence[int] = (),
    draws: int = 0,
    prompt: Sequence[int] = (),
) -> TokenSampler:
    """The sampler that `sampling` asks for; raises InvalidRequest for a constraint that is not usable, and
    for a bias of a token that the model has not.

    One that takes over from another is told the tokens that were `said` and how many random numbers the
    other had drawn: it goes on with the same. Repetitions of the end of the `prompt` count as well.
    """
    sampler = _fresh_sampler(model, sampling)
    sampler.remember(prompt)
    sampler.resume(said, draws)
    return sampler


def needs_said(sampling: Sampling) -> bool:
    """Whether a sampler that takes over has to know what was said before."""
    constrained = sampling.grammar is not None or sampling.json_schema is not None
    return constrained or _has_penalties(sampling)


def _has_penalties(sampling: Sampling) -> bool:
    counted = sampling.presence_penalty or sampling.frequency_penalty
    return bool(counted) or sampling.repeat_penalty != 1


def _fresh_sampler(model: Model, sampling: Sampling) -> TokenSampler:
    last = model.vocab_size - 1
    for token in sampling.logit_bias:
        if token > last:
            raise InvalidRequest(
                f"sampling.logit_bias: the model has no token {token}; the last one is {last}",
                field="sampling.logit_bias",
            )
    if sampling.json_schema is None and sampling.grammar is None:
        return TokenSampler(sampling, model.vocab_size)
    return GrammarSampler(model, sampling, model.grammars.start(sampling, constraint_field(sampling)))


class TokenSampler:
    """Greedy at temperature 0, else top-k, top-p, min-p, temperature and a draw with the given seed; biases
    and penalties come before that. `draws` counts the random numbers that were used."""

    def __init__(self, sampling: Sampling, vocab_size: int = 0) -> None:
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        self._repeats = _repeat_penalty(sampling, vocab_size)
        links = [
            *_biases(sampling, vocab_size),
            *([self._repeats] if self._repeats else []),
            *_links(sampling),
        ]
        for link in links:
            llama_cpp.llama_sampler_chain_add(self._chain, link)
        self._dice = links[-1] if sampling.temperature else None
        self._remembers = _has_penalties(sampling)
        self._candidates = np.zeros(0, dtype=_CANDIDATE)
        self.draws = 0

    def sample(self, context: Context, row: int) -> int | None:
        """The token that follows row `row` of the last batch; None where none may follow. It is what choose()
        would choose, and soon: llama.cpp reads the logits where they are."""
        self.draws += self._dice is not None
        return int(llama_cpp.llama_sampler_sample(self._chain, context.handle, row))

    def choose(self, logits: Logits) -> int | None:
        """The token that follows these logits; None where none may follow."""
        return self._accept(self._choose(self._fill(logits)))

    def remember(self, prompt: Sequence[int]) -> None:
        """Takes the end of a prompt for what repetitions are counted among."""
        if self._repeats:
            for token in prompt[-REPEAT_LAST:]:
                llama_cpp.llama_sampler_accept(self._repeats, int(token))

    def resume(self, said: Sequence[int], draws: int) -> None:
        """Comes to the state of a sampler that has said these tokens with so many random numbers."""
        for token in said:
            self._accept(token)
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

    def _accept(self, token: int) -> int:
        if self._remembers:
            llama_cpp.llama_sampler_accept(self._chain, token)
        return token


class GrammarSampler(TokenSampler):
    """A sampler whose tokens keep to a grammar, which is computed in a process of its own.

    The chain chooses freely first, and only where the grammar forbids its choice is every token checked,
    which is what takes long. Whoever cannot wait begins with `ask`, and comes back to `take` when `answered`.
    """

    def __init__(self, model: Model, sampling: Sampling, grammar: GrammarProcess) -> None:
        super().__init__(sampling, model.vocab_size)
        self._grammar = grammar
        self._vocab_size = model.vocab_size
        self.logits: Logits = np.zeros(0, dtype=np.float32)
        self._chosen = 0

    @property
    def connection(self) -> Connection:
        """What can be waited for until `answered`."""
        return self._grammar.connection

    def sample(self, context: Context, row: int) -> int | None:
        """Raises InvalidRequest where the grammar takes too much to compute."""
        return self.choose(context.logits(row))

    def choose(self, logits: Logits) -> int | None:
        """Raises InvalidRequest where the grammar takes too much to compute."""
        self.ask(logits)
        return self.take()

    def ask(self, logits: Logits) -> None:
        """Begins to choose the token that follows these logits. They are needed until `take`, or `keep`."""
        self.logits = logits
        self._chosen = self._choose(self._fill(logits))
        self._grammar.try_token(self._chosen)

    def keep(self) -> None:
        """Copies the logits, which last only until the next step."""
        if not self.logits.flags.owndata:
            self.logits = self.logits.copy()

    def answered(self, wait_s: float) -> bool:
        """Whether the grammar has answered, or does so within `wait_s`."""
        return self._grammar.answered(wait_s)

    def take(self) -> int | None:
        """The token; None where none may follow. Waits for the grammar. Raises InvalidRequest where that
        takes too much to compute."""
        allowed = self._grammar.answer()
        if allowed is None:
            return self._accept(self._chosen)
        if not allowed[: self._vocab_size].any():
            return None
        choices = self._fill(np.where(allowed[: self._vocab_size], self.logits, -np.inf))
        token = self._choose(choices)
        self._grammar.accept([token])
        return self._accept(token)

    def close(self) -> None:
        super().close()
        self._grammar.close()

    def resume(self, said: Sequence[int], draws: int) -> None:
        super().resume(said, draws)
        if said:
            self._grammar.accept(said)


def _biases(sampling: Sampling, vocab_size: int) -> list[object]:
    """What is added to logits: biases of single tokens, and penalties for tokens that the text has."""
    links: list[object] = []
    if sampling.logit_bias:
        biases = (llama_cpp.llama_logit_bias * len(sampling.logit_bias))(
            *(
                (token, -np.inf if bias <= FORBIDDEN else bias)
                for token, bias in sorted(sampling.logit_bias.items())
            )
        )
        links.append(llama_cpp.llama_sampler_init_logit_bias(vocab_size, len(biases), biases))
    if sampling.presence_penalty or sampling.frequency_penalty:
        links.append(
            llama_cpp.llama_sampler_init_penalties(
                vocab_size,
                sampling.max_tokens,
                1.0,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            )
        )
    return links


def _repeat_penalty(sampling: Sampling, vocab_size: int) -> object | None:
    if sampling.repeat_penalty == 1:
        return None
    link: object = llama_cpp.llama_sampler_init_penalties(
        vocab_size, REPEAT_LAST, sampling.repeat_penalty, 0.0, 0.0
    )
    return link


def _links(sampling: Sampling) -> list[object]:
    if sampling.temperature == 0:
        return [llama_cpp.llama_sampler_init_greedy()]
    links: list[object] = []
    if sampling.top_k:
        links.append(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        links.append(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p:
        links.append(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
    links.append(llama_cpp.llama_sampler_init_temp(sampling.temperature))
    links.append(llama_cpp.llama_sampler_init_dist(sampling.seed % RANDOM_SEED))
    return links


def _token_array(candidates: np.ndarray[tuple[int], np.dtype[np.void]]) -> llama_cpp.llama_token_data_array:
    """The candidates as llama.cpp takes them; they must outlive what is returned."""
    data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
    return llama_cpp.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
