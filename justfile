# The project's tasks. Each is a plain command or script, so `just` itself is a convenience.

# Show the tasks.
default:
    @just --list

# Format the code.
fmt:
    cargo fmt --all

# Lint as strictly as CI does.
lint:
    cargo clippy --all-targets --workspace --locked -- -D warnings

# Every test, real servers included; `just test rebuild` runs those named so.
test *args:
    ./test {{ args }}

# The tests against real servers only.
it *args:
    ./test --test '*' {{ args }}

# The tests that need no server.
unit *args:
    cargo test --locked --lib --bins {{ args }}

# Look for inputs that make expressions, configs or folds panic; `just fuzz 3600` takes an hour for each of the two.
fuzz seconds="60":
    FOLDLINE_FUZZ_SECONDS={{ seconds }} cargo test --locked --test language fuzz -- --nocapture

# What an expression costs, by the fast path and by the general evaluator.
bench-expressions:
    cargo bench --locked --bench expressions

# What CI runs.
check:
    .ci/run

# Measure Foldline beside the raw servers and Kafka Connect; `just bench --quick` for a first impression.
bench *args:
    bench/run {{ args }}

# Licences, advisories and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny check

# Start PostgreSQL, Kafka and Elasticsearch for the tests.
up:
    tests/services/up

# Stop them; `just down --purge` removes their data too.
down *args:
    tests/services/down {{ args }}

# The demo: events fold into a file, no server needed.
demo *args:
    cargo run --locked -- demo {{ args }}

# Run a worker; by default with the project's own config.
run path="config":
    cargo run --locked -- run {{ path }}

# Lint the dashboard and test the alert rules; with the URL of a worker's /metrics, run every query too.
dashboards *url:
    tests/dashboards {{ url }}

# Foldline and everything around it, in containers.
compose:
    docker compose up --build
