# What CONTRIBUTING.md says, as recipes. `just` lists them.

_list:
    @just --list --unsorted

# the server, with its data in linger-data
serve *OPTIONS:
    cargo run --release -- serve {{ OPTIONS }}

# the tests that everybody runs; WORD is part of a test's name
test *WORD:
    cargo test {{ WORD }}

# everything, as CI does
ci:
    .ci/run

# format, lints, scripts
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    shellcheck scripts/*.sh scripts/bench .ci/run

# licences, sources and advisories of all dependencies
deny:
    cargo deny check

# writes what is generated in the documents
docs:
    LINGER_WRITE_DOCS=1 cargo test --test it docs::

# the pages of the code
code-docs:
    cargo doc --no-deps --document-private-items --open

# pieces of the core in every order of their threads
models *NAME:
    scripts/models.sh all {{ NAME }}

# breaks lines, and sees each found out: models or simulation
mutants *KIND:
    scripts/mutants.sh {{ KIND }}

# a whole server in orders that seeds decide
simulate SECONDS="60":
    scripts/simulate.sh {{ SECONDS }}

# inputs that break a property
fuzz TARGET="all" SECONDS="60":
    scripts/fuzz.sh {{ TARGET }} {{ SECONDS }}

# what the server costs, beside other relays
bench *OPTIONS:
    scripts/bench {{ OPTIONS }}

# one scenario of linger stress against a server of its own
stress SCENARIO *OPTIONS:
    scripts/{{ SCENARIO }}.sh {{ OPTIONS }}
