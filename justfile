# What can be done here. `just` alone lists it; `uv run just` does if just is not installed.

[private]
default:
    @just --list --unsorted

# a tour: a broker, four small models, questions, and how they were decided
[group('run')]
demo *OPTIONS:
    uv run choir demo {{ OPTIONS }}

# run this host's part of the mesh in the foreground (choir.toml says which)
[group('run')]
up *OPTIONS:
    uv run choir up {{ OPTIONS }}

# stop the mesh that runs on this host
[group('run')]
down:
    uv run choir down

# run the tests; `just test infra -k broker` runs some
[group('develop')]
test *OPTIONS:
    uv run pytest {{ OPTIONS }}

# the tests while as many processes as there are cores compute without end: `just test-busy services -k faults`
[group('develop')]
test-busy *OPTIONS:
    uv run pytest --busy $(nproc) {{ OPTIONS }}

# the tests that `just test` leaves out because they take long: the same promises, kept for longer and with more of everything
[group('develop')]
soak-tests *OPTIONS:
    uv run pytest -m soak {{ OPTIONS }}

# compose.yaml, really run: two projects on two networks form one mesh (needs a container engine)
[group('develop')]
test-compose *OPTIONS:
    docker build --file infra/deploy/Dockerfile --build-arg BASE=${CHOIR_BASE:-python:3.12.11-slim-bookworm} --tag choir:0.1.0 .
    CHOIR_TEST_COMPOSE=1 uv run pytest infra/tests/test_compose.py -n 0 -v {{ OPTIONS }}

# all that must hold besides the tests: lint, format, types, import rules, generated tables and document
[group('develop')]
check:
    uv run ruff check
    uv run ruff format --check
    uv run mypy
    uv run lint-imports
    uv run python -m infra.docs --check
    uv run python -m infra.asyncapi --check

# format the code and mend what can be mended
[group('develop')]
format:
    uv run ruff check --fix
    uv run ruff format

# write what is generated anew: the tables of the READMEs, and schemas/broker/asyncapi.json
[group('develop')]
docs:
    uv run python -m infra.docs
    uv run python -m infra.asyncapi

# load a mesh of the demo models for two minutes and measure it; `just loadtest --help` tells the rest
[group('measure')]
loadtest *OPTIONS:
    uv run python -m loadtest {{ OPTIONS }}

# two load tests side by side, with intervals
[group('measure')]
loadtest-compare A B *OPTIONS:
    uv run python -m loadtest compare {{ A }} {{ B }} {{ OPTIONS }}

# Choir beside LiteLLM, Ray Serve, llama_cpp.server and llama.cpp RPC, each installed or built for itself
[group('measure')]
bench-peers *OPTIONS:
    uv run python -m loadtest.peers {{ OPTIONS }}

# the clients that people have (needs uv, npm, go: `just clients --help`), each in an environment of its own, before the demo models
[group('measure')]
clients *OPTIONS:
    uv run python -m loadtest.peers.stock {{ OPTIONS }}

# schemathesis over the gateway's /openapi.json and over Ollama's own description: no 5xx, no reply that does not come
[group('measure')]
fuzz-http *OPTIONS:
    uv run python -m loadtest.peers.stock.fuzz {{ OPTIONS }}

# kill the metrics service 20 times while it stores 100,000 events: every event is one row
[group('measure')]
kill-metrics:
    CHOIR_TEST_METRICS_KILLS=20 CHOIR_TEST_METRICS_EVENTS=100000 uv run pytest services/metrics/tests/test_exactly_once.py -k killed

# ten thousand messages of nonsense on all that a tenant reaches: all are answered, nobody falls, memory stays
[group('measure')]
fuzz MESSAGES="10000":
    CHOIR_TEST_FUZZ_MESSAGES={{ MESSAGES }} uv run pytest -rP services/tests/test_fuzz.py

# three hosts in networks of their own, under faults of every kind, and what their streams say afterwards (root)
[group('measure')]
chaos *OPTIONS:
    uv run python -m loadtest.trial {{ OPTIONS }}

# a mesh at 70 % of what it can do, for an hour: the memory of every process stays, nothing fails
[group('measure')]
soak *OPTIONS:
    uv run python -m loadtest.trial.soak {{ OPTIONS }}

# a tenant that asks for everything at once, reads nothing and vanishes; another one works meanwhile
[group('measure')]
greedy *OPTIONS:
    uv run python -m loadtest.trial.greedy {{ OPTIONS }}

# measure, and compare with the targets: `just bench overhead`, `just bench engine --json`
[group('measure')]
bench NAME *OPTIONS:
    uv run python -m loadtest.bench {{ NAME }} {{ OPTIONS }}

# measure what the READMEs have figures of, and write them there: `just measured overhead engine`, `just measured --list`
[group('measure')]
measured *OPTIONS:
    uv run python -m loadtest.measured {{ OPTIONS }}

# train the demo models again (needs torch: see infra/training/README.md)
[group('models')]
train-models *OPTIONS:
    uv run --group train python -m infra.training.train {{ OPTIONS }}

# ask the demo models what they were trained on, and count what is right
[group('models')]
score-models *OPTIONS:
    uv run python -m infra.training.score {{ OPTIONS }}

# write a large model with random weights, for measurements
[group('models')]
bench-model *OPTIONS:
    uv run python -m infra.demo_models.bench_model {{ OPTIONS }}

# write the question sets from the tables of facts
[group('models')]
datasets *OPTIONS:
    uv run python -m analysis.datasets.make {{ OPTIONS }}
