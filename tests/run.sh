#!/usr/bin/env bash
# Installs what the tests need, then runs all of them. Run it from anywhere; it needs a Rust
# toolchain (rustup's is best), and network for the crates on the first run.
#
# It installs, where missing: rustfmt and clippy (rustup), the minimum Rust version (rustup, else
# Debian's rustc-web), a C linker, redis-server, openssl, and chromium with its driver (apt-get, on Debian as root).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

passed=0
failed=()

step() { # NAME COMMAND...
    local name=$1 started=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    if "$@"; then
        passed=$((passed + 1))
        printf -- '-- %s: passed in %s s\n' "$name" $((SECONDS - started))
    else
        failed+=("$name")
        printf -- '-- %s: FAILED\n' "$name"
    fi
}

all=tokio,test-util,redis-tls,json,msgpack,lz4,metrics,tracing
minimum=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml)

install_tools() {
    if ! command -v cc >/dev/null && command -v apt-get >/dev/null; then
        apt-get update -q && apt-get install -yq --no-install-recommends gcc libc6-dev || return 1
    fi
    if ! { command -v redis-server && command -v openssl; } >/dev/null && command -v apt-get >/dev/null; then
        apt-get update -q && apt-get install -yq --no-install-recommends redis-server openssl || return 1
    fi
    if ! { command -v chromium && command -v chromedriver; } >/dev/null && command -v apt-get >/dev/null; then
        apt-get update -q && apt-get install -yq --no-install-recommends chromium chromium-driver || return 1
    fi
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt || return 1
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy || return 1
}

# Prints how to call the minimum version's cargo; installs it if it is missing.
minimum_cargo() {
    if rustup run "$minimum" cargo --version >/dev/null 2>&1 ||
        rustup toolchain install "$minimum" --profile minimal >&2; then
        echo "rustup run $minimum cargo"
        return
    fi
    local version
    apt-get update -q >&2
    version=$(apt-cache madison rustc-web | awk -v v="$minimum." 'index($3, v) == 1 { print $3; exit }')
    [ -n "$version" ] || return 1
    apt-get install -yq --no-install-recommends \
        "rustc-web=$version" "cargo-web=$version" "libstd-rust-web-dev=$version" >&2 || return 1
    echo "env RUSTC=/usr/bin/rustc /usr/bin/cargo"
}

minimum_version() {
    local cargo
    cargo=$(minimum_cargo) || { echo "Rust $minimum is not to be had"; return 1; }
    # The lockfile that this version resolves may differ, so it works in a folder of its own.
    local copy=target/minimum
    rm -rf "$copy/tree" && mkdir -p "$copy/tree"
    cp -r Cargo.toml README.md src tests examples benches loom-tests "$copy/tree" || return 1
    for features in "" "tokio" "tokio,test-util,json,msgpack,lz4,metrics,tracing"; do
        (cd "$copy/tree" && $cargo check --lib --features "$features" --target-dir ../target) || return 1
    done
}

# The oldest versions that Cargo.toml allows must do. In a folder of its own too, without the packages and dependencies that are
# only for development: nobody else resolves theirs.
lower_bounds() {
    local copy=target/bounds
    rm -rf "$copy/tree" && mkdir -p "$copy/tree" || return 1
    awk '/^\[/ { skip = /^\[(dev-dependencies|workspace)\]/ } !skip; END { print "[workspace]" }' \
        Cargo.toml >"$copy/tree/Cargo.toml"
    cp -r README.md src "$copy/tree" || return 1
    # An option of the nightly cargo, of which only the resolver is used.
    (cd "$copy/tree" && RUSTC_BOOTSTRAP=1 cargo update --quiet -Z direct-minimal-versions) || return 1
    for features in "" "$all"; do
        (cd "$copy/tree" && cargo check --locked --lib --features "$features" --target-dir ../target) || return 1
    done
}

# Each asserts what it says, in a second or two; one that waits for what never comes is stopped. The one that takes a server is
# given one as well.
examples() {
    local example folder server rc
    cargo build --quiet --features "$all" --examples || return 1
    for example in examples/*.rs; do
        example=$(basename "$example" .rs)
        printf '%s\n' "-- $example"
        timeout 60 cargo run --quiet --features "$all" --example "$example" || return 1
    done
    folder=$(mktemp -d)
    redis-server --port 0 --unixsocket "$folder/redis" --save '' --dir "$folder" >"$folder/log" &
    server=$!
    for _ in {1..100}; do
        [ -S "$folder/redis" ] && break
        sleep 0.1
    done
    timeout 60 cargo run --quiet --features "$all" --example two_levels -- "unix://$folder/redis"
    rc=$?
    kill "$server" && wait "$server"
    rm -rf "$folder"
    return "$rc"
}

documentation() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features "$all"; }

lints() {
    cargo clippy --all-targets -- -D warnings &&
        cargo clippy -p everfresh-benches -- -D warnings &&
        cargo clippy -p predictions --all-targets -- -D warnings &&
        cargo clippy --lib -- -D warnings &&
        cargo clippy --lib --features tokio -- -D warnings &&
        cargo clippy --lib --features redis -- -D warnings &&
        cargo clippy --lib --features redis-tls -- -D warnings &&
        cargo clippy --lib --features metrics -- -D warnings &&
        cargo clippy --lib --features tracing -- -D warnings &&
        RUSTFLAGS="--cfg loom" cargo clippy -p loom-tests --all-targets --profile loom \
            --target-dir target-loom -- -D warnings
}

step "tools" install_tools
step "formatting" cargo fmt --all --check
step "lints" lints
step "documentation" documentation
step "package" cargo package --allow-dirty --quiet
step "minimum Rust version $minimum" minimum_version

step "lower bounds of the dependencies" lower_bounds

step "tests" cargo test --all-targets --features "$all"
step "examples" examples
step "a fleet under faults" cargo run --quiet --features "$all" --example fleet -- --soak 30
step "the reference application" cargo test -p predictions
step "documentation tests" cargo test --doc --features "$all"
step "models" bash loom-tests/run.sh
step "mutations" bash loom-tests/mutations/run.sh

printf '\n'
for name in "${failed[@]}"; do
    printf 'failed: %s\n' "$name"
done
printf '%s passed, %s failed\n' "$passed" "${#failed[@]}"
[ "${#failed[@]}" -eq 0 ]
