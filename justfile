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
    tests/pure

# Every test, real servers included; `just test rebuild` runs those named so.
test *args:
    ./test {{ args }}

# The tests against real servers only.
it *args:
    ./test --test '*' {{ args }}

# The tests that need no server.
unit *args:
    cargo test --locked --lib --bins {{ args }}

# The contract and a short fold on each version of each server; `just matrix ends` takes the oldest and the newest of each, as CI
# does, `just matrix postgres 13.22` one.
matrix *args:
    tests/matrix {{ args }}

# Look for inputs that make expressions, converters, projections and their folds, configs or the reading of Elasticsearch's answers
# panic; `just fuzz 3600` takes an hour for each of the five. The first three compile the language alone.
fuzz seconds="60":
    FOLDLINE_FUZZ_SECONDS={{ seconds }} cargo test --locked -p foldline-language --test fuzz -- --nocapture
    FOLDLINE_FUZZ_SECONDS={{ seconds }} cargo test --locked --test language fuzz -- --nocapture
    FOLDLINE_FUZZ_SECONDS={{ seconds }} cargo test --locked -p foldline-sink-elasticsearch --lib mutated -- --nocapture

# Kill and disturb the worker for long: a thousand kills over a file log, as many over the servers, ten rounds of each other fault.
faults kills="1000" rounds="10":
    FOLDLINE_KILLS={{ kills }} FOLDLINE_FAULTS={{ rounds }} ./test --test main --test kafka -- --test-threads=1 --nocapture --include-ignored kills network refused fencing outages paused

# Half an hour under load and faults: memory, threads and open files stay flat.
soak minutes="30":
    FOLDLINE_SOAK_MINUTES={{ minutes }} ./test --test main -- --test-threads=1 --nocapture --ignored soak

# Take each guard of the promises away in turn, and see that a test fails.
guards name="":
    tests/guards "{{ name }}"

# Break the pure core line by line, and see that a test fails each time (needs cargo-mutants; a minute for each mutant, two days for all).
# `just mutants src/reset.rs` breaks one file; one of `language/` is tested by that crate alone. Unoptimized, since each mutant is compiled and runs once.
mutants file="":
    CARGO_PROFILE_DEV_OPT_LEVEL=0 FOLDLINE_SEEDS=${FOLDLINE_SEEDS:-100} cargo mutants --workspace {{ if file == "" { "" } else { "--re ^" + file } }}

# What an expression costs, by the fast path and by the general evaluator.
bench-expressions:
    cargo bench --locked -p foldline-language --bench expressions

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
    cargo run --locked --profile demo -p foldline --no-default-features --features sqlite -- demo {{ args }}

# How long the README's first command takes a newcomer, with nothing downloaded and nothing built.
first-minute:
    tests/first-minute

# Each connector's feature builds without the others.
features:
    tests/features

# What deploys Foldline: manifests, unit, the image's sources, the recipe of a release; `just deploy unit` one of them.
deploy *args:
    tests/deploy {{ args }}

# The files of a release for this machine, with checksums and a bill of materials, in dist/.
release:
    deploy/release

# A sink from outside is built in by one dependency and one line.
outside-sink:
    tests/outside-sink

# Run a worker; by default with the project's own config.
run path="config":
    cargo run --locked -- run {{ path }}

# Lint the dashboard and test the alert rules; with the URL of a worker's /metrics, run every query too.
dashboards *url:
    tests/dashboards {{ url }}

# Foldline and everything around it, in containers.
compose:
    docker compose up --build
