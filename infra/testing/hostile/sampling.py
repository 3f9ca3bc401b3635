"""Options of generation that have burnt other servers, or would: for tests and benchmarks of engines."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.requests.sampling import Sampling

MOST_TOKENS = 8
STOPS, STOP_CHARACTERS = 16, 256
"""The most that a request may have."""

EXPLODES = f'root ::= {"a " * 400}\na ::= "N"? [a-z ]?'
"""Of one thread's time it takes minutes for a single token: the fourth power of its length, about."""
UNCLOSED = 'root ::= "' + '\\"' * 30_000
"""Looking for the ends of its literals takes half a minute, if each quotation mark may be a beginning."""
REPEATED = {"type": "string", "pattern": "{" * 200_000}
"""The same with the ends of its repetitions."""

HOSTILE: Mapping[str, Sampling] = {
    "2,000 optional parts": Sampling(grammar=f'root ::= {"a " * 2_000}\na ::= "N"?', max_tokens=MOST_TOKENS),
    "optional parts that explode": Sampling(grammar=EXPLODES, max_tokens=MOST_TOKENS),
    "stars in stars": Sampling(grammar=f'root ::= {"(" * 60}"a"{")*" * 60}', max_tokens=MOST_TOKENS),
    "a chain of rules of 62 kB": Sampling(
        grammar="root ::= r0\n" + "".join(f"r{n} ::= r{n + 1}\n" for n in range(4_000)) + 'r4000 ::= "a"',
        max_tokens=MOST_TOKENS,
    ),
    "a literal without an end": Sampling(grammar=UNCLOSED, max_tokens=MOST_TOKENS),
    "a pattern of repetitions": Sampling(
        json_schema={"type": "string", "pattern": "^((a{1,99}){1,99}){1,99}$"}, max_tokens=MOST_TOKENS
    ),
    "a pattern of braces": Sampling(json_schema=REPEATED, max_tokens=MOST_TOKENS),
    "100,000 values": Sampling(
        json_schema={"enum": [f"v{n}" for n in range(100_000)]}, max_tokens=MOST_TOKENS
    ),
    "stop strings that almost match": Sampling(
        grammar='root ::= ("ab" | "a")+',
        stop=tuple("ab" * (STOP_CHARACTERS // 2 - 1) + f"a{number:x}" for number in range(STOPS)),
        max_tokens=STOP_CHARACTERS // 2,
    ),
}
"""Each ends, in an answer or in an error that names the field, and nobody else waits for it."""
