"""A bare llama_decode loop of llama-cpp-python as it is shipped, in an environment and a process of its own.

    python llama_loop.py MODEL THREADS SLOTS CONTEXT_TOKENS

Reads lines of JSON, `{"prompts": [[token, ...], ...], "steps": n}`, and answers each with the tokens per
second of these sequences while they decode together. A prompt that a sequence has read already is not read
again. It imports nothing of Choir. Nothing is set but what the arguments say, with one exception: where
AMX is compiled in, weights are kept in their plain form, because GCC 12 compiles that part wrongly.
"""

from __future__ import annotations

import json
import sys
import time

import llama_cpp

BATCH_TOKENS = 512


class Loop:
    """llama_decode and a greedy sampler, and nothing around them."""

    def __init__(self, path: str, threads: int, slots: int, context_tokens: int) -> None:
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.use_extra_bufts = b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = slots * context_tokens
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.n_seq_max = slots
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._sampler = llama_cpp.llama_sampler_init_greedy()
        self._read: dict[int, list[int]] = {}

    def tokens_per_s(self, prompts: list[list[int]], steps: int) -> float:
        """The rate of sequences with these prompts, each of which decodes one token a step."""
        last = [self._read_prompt(sequence, prompt) for sequence, prompt in enumerate(prompts)]
        started = time.perf_counter()
        for step in range(steps):
            for sequence, token in enumerate(last):
                self._put(sequence, token, len(prompts[sequence]) + step, sequence)
            self._decode(len(prompts))
            last = [self._sample(row) for row in range(len(prompts))]
        return len(prompts) * steps / (time.perf_counter() - started)

    def _read_prompt(self, sequence: int, prompt: list[int]) -> int:
        """The token after a prompt, of which only the last token is read where the rest is there already."""
        kept = len(prompt) - 1 if self._read.get(sequence) == prompt else 0
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, kept, -1)
        for row, token in enumerate(prompt[kept:]):
            self._put(row, token, kept + row, sequence)
        self._decode(len(prompt) - kept)
        self._read[sequence] = prompt
        return self._sample(len(prompt) - kept - 1)

    def _put(self, row: int, token: int, position: int, sequence: int) -> None:
        self._batch.token[row] = token
        self._batch.pos[row] = position
        self._batch.n_seq_id[row] = 1
        self._batch.seq_id[row][0] = sequence
        self._batch.logits[row] = 1

    def _decode(self, tokens: int) -> None:
        self._batch.n_tokens = tokens
        if status := llama_cpp.llama_decode(self._context, self._batch):
            raise SystemExit(f"llama_decode said {status}")

    def _sample(self, row: int) -> int:
        return int(llama_cpp.llama_sampler_sample(self._sampler, self._context, row))


def main() -> None:
    """Answers one line after another."""
    loop = Loop(sys.argv[1], *map(int, sys.argv[2:5]))
    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.write(f"{loop.tokens_per_s(asked['prompts'], asked['steps'])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
