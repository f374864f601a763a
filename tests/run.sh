#!/usr/bin/env bash
# Installs what the tests need, then runs all of them. Run it from anywhere; it needs a Rust
# toolchain (rustup's is best), and network for the crates on the first run.
#
# It installs, where missing: rustfmt, clippy and the standard libraries of 32-bit targets (rustup),
# the minimum Rust version (rustup, else Debian's rustc-web), a C linker, redis-server, openssl, and
# chromium with its driver (apt-get, on Debian as root).
#
# A step that cannot be tried on this machine is skipped, and says so; it does not count as passed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

passed=0
failed=()
skipped=()
readonly SKIP=77

# Nothing here is built twice with a small change, apart from the seeded faults.
export CARGO_INCREMENTAL=0

step() { # NAME COMMAND...
    local name=$1 started=$SECONDS status
    shift
    printf '\n== %s\n' "$name"
    "$@"
    status=$?
    case $status in
        0)
            passed=$((passed + 1))
            printf -- '-- %s: passed in %s s\n' "$name" $((SECONDS - started))
            ;;
        "$SKIP")
            skipped+=("$name")
            printf -- '-- %s: SKIPPED\n' "$name"
            ;;
        *)
            failed+=("$name")
            printf -- '-- %s: FAILED\n' "$name"
            ;;
    esac
}

# Builds tests, then runs them. A hung test is ended: see tests/watched.sh.
watched() { # cargo test ARGUMENTS...
    "$@" --no-run && bash tests/watched.sh "$@"
}

all=tokio,test-util,redis-tls,file,json,msgpack,lz4,zstd,encryption,serde,metrics,tracing
minimum=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml)
host=$(rustc -vV | sed -n 's/^host: //p')

install_tools() {
    if ! command -v cc >/dev/null && command -v apt-get >/dev/null; then
        apt-get update -q && apt-get install -yq --no-install-recommends gcc libc6-dev || return 1
    fi
    if ! { command -v redis-server && command -v openssl; } >/dev/null &&
        command -v apt-get >/dev/null; then
        apt-get update -q &&
            apt-get install -yq --no-install-recommends redis-server openssl || return 1
    fi
    if ! { command -v chromium && command -v chromedriver; } >/dev/null &&
        command -v apt-get >/dev/null; then
        apt-get update -q &&
            apt-get install -yq --no-install-recommends chromium chromium-driver || return 1
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
    version=$(apt-cache madison rustc-web |
        awk -v v="$minimum." 'index($3, v) == 1 { print $3; exit }')
    [ -n "$version" ] || return 1
    apt-get install -yq --no-install-recommends \
        "rustc-web=$version" "cargo-web=$version" "libstd-rust-web-dev=$version" >&2 || return 1
    echo "env RUSTC=/usr/bin/rustc /usr/bin/cargo"
}

minimum_version() {
    local cargo
    cargo=$(minimum_cargo) || { echo "Rust $minimum cannot be installed"; return 1; }
    # The lockfile that this version resolves may differ, so it works in a folder of its own.
    local copy=target/minimum
    rm -rf "$copy/tree" && mkdir -p "$copy/tree"
    cp -r Cargo.toml README.md src tests examples benches dev-support loom-tests "$copy/tree" ||
        return 1
    for features in "" "tokio" \
        "tokio,test-util,json,msgpack,lz4,zstd,encryption,serde,metrics,tracing"; do
        (cd "$copy/tree" && $cargo check --lib --features "$features" --target-dir ../target) ||
            return 1
    done
}

# Prints each dependency with the oldest version that Cargo.toml allows: "arc-swap v1.9.5".
oldest_allowed() {
    awk '
        /^\[/ { ours = /dependencies\]$/ && !/dev-|loom/ }
        ours && match($0, /"[0-9][0-9.]*"/) {
            version = substr($0, RSTART + 1, RLENGTH - 2)
            while (split(version, parts, ".") < 3) version = version ".0"
            print $1 " v" version
        }
    ' Cargo.toml
}

# The tests must pass with the oldest versions that Cargo.toml allows. They run in a folder of their
# own. Its lockfile is made without the dependencies for development, because those resolve as usual
# and would raise the versions of others.
lower_bounds() {
    local copy=target/bounds features wrong
    rm -rf "$copy/tree" && mkdir -p "$copy/tree" || return 1
    cp -r README.md src tests dev-support "$copy/tree" || return 1
    awk '/^\[/ { skip = /^\[(dev-dependencies|workspace)\]/ } !skip; END { print "[workspace]" }' \
        Cargo.toml >"$copy/tree/Cargo.toml"
    # An option of the nightly cargo, of which only the resolver is used.
    (cd "$copy/tree" && RUSTC_BOOTSTRAP=1 cargo update --quiet -Z direct-minimal-versions) ||
        return 1
    for features in "" "$all"; do
        (cd "$copy/tree" &&
            cargo check --locked --lib --features "$features" --target-dir ../target) || return 1
    done

    # The dependencies of tests/main. Cargo keeps the versions that the lockfile has already.
    echo "[dev-dependencies]" >>"$copy/tree/Cargo.toml"
    awk '
        /^\[/ { ours = /^\[dev-dependencies\]/ }
        ours && /^(dev-support|futures-lite|proptest|serde|serde_json|tokio) =/
    ' Cargo.toml >>"$copy/tree/Cargo.toml"
    (cd "$copy/tree" && cargo tree --prefix none --depth 1 --edges normal --features "$all") \
        >"$copy/versions" || return 1
    wrong=$(oldest_allowed | grep -vxFf <(sed 's/ (.*//' "$copy/versions"))
    if [ -n "$wrong" ]; then
        printf 'these are not the versions that would be tested:\n%s\n' "$wrong"
        return 1
    fi
    watched cargo test --locked --manifest-path "$copy/tree/Cargo.toml" \
        --target-dir "$copy/target" --features tokio,test-util,serde --test main
}

# Users run optimised code. It is so fast that many random programs can run.
release_tests() {
    CARGO_PROFILE_RELEASE_DEBUG=none PROPTEST_CASES=20000 watched \
        cargo test --release --test main
}

# Whether watched.sh ends and names a test that hangs. The test for this hangs on purpose.
hung_test() {
    local binary report
    binary=$(cargo test --test main --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
    report=$(EVERFRESH_SILENCE=5 bash tests/watched.sh \
        "$binary" --ignored --test-threads=1 a_test_that_hangs)
    local status=$?
    printf '%s\n' "$report"
    [ $status -eq 124 ] && grep -qx 'HANGS: a_test_that_hangs' <<<"$report"
}

# Finds reads of dropped values and other memory errors, in the library and its dependencies.
address_sanitizer() {
    case $host in
        x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
        *) echo "there is no AddressSanitizer for $host"; return $SKIP ;;
    esac
    (
        # The flag belongs to the nightly compiler. Leaks are not reported, because the threads of a
        # cache and static values live until the process ends. Variables stay on the stack, because
        # a worker tells by its position there whether it may start a load.
        export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
        export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0
        mkdir -p target/asan
        # The tests would pass under a sanitizer that finds nothing, so try it on a known error.
        rustc -Zsanitizer=address -o target/asan/canary - <<<'fn main() {
            let value = Box::new(7);
            let address = &*value as *const i32;
            drop(value);
            println!("{}", unsafe { std::ptr::read_volatile(address) });
        }' || return 1
        if target/asan/canary 2>/dev/null; then
            echo "AddressSanitizer does not see a dropped value"
            return 1
        fi
        watched cargo test --target "$host" --target-dir target/asan --lib --test main &&
            EVERFRESH_STRESS_ROUNDS=$1 watched cargo test --target "$host" \
                --target-dir target/asan --test main churn
    )
}

# Whether the library compiles for a target. Only the standard library of the target is needed.
compiles_for() { # TARGET
    local features
    if ! [ -d "$(rustc --print target-libdir --target "$1")" ] && ! rustup target add "$1"; then
        echo "the standard library for $1 cannot be installed"
        return $SKIP
    fi
    # Without zstd, whose C library needs a C compiler for the target.
    for features in "" tokio \
        "tokio,test-util,json,msgpack,lz4,encryption,serde,metrics,tracing"; do
        cargo check --lib --target "$1" --features "$features" --target-dir target/other || return 1
    done
}

# The compiler's errors for usual mistakes. The expected texts are those of one version of the
# compiler, because each version has other words.
compile_errors() {
    local compiler=1.95
    if ! [[ $(rustc -V) == "rustc $compiler."* ]]; then
        echo "the texts in tests/ui/cases are those of rustc $compiler, and this is $(rustc -V)"
        return $SKIP
    fi
    watched cargo test -p compile-errors
}

# Runs the examples, which assert their results and end within a few seconds. One that hangs is
# stopped. The example two_levels also runs with a server.
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
    # Other steps build these members with their own features. The benches are built only here.
    cargo clippy --workspace --exclude loom-tests --exclude everfresh-benches --all-targets -- \
        -D warnings &&
        cargo clippy -p everfresh-benches -- -D warnings &&
        cargo clippy --lib -- -D warnings &&
        cargo clippy --lib --features tokio -- -D warnings &&
        cargo clippy --lib --features redis -- -D warnings &&
        cargo clippy --lib --features redis-tls -- -D warnings &&
        cargo clippy --lib --features file -- -D warnings &&
        cargo clippy --lib --features lz4 -- -D warnings &&
        cargo clippy --lib --features zstd -- -D warnings &&
        cargo clippy --lib --features encryption -- -D warnings &&
        cargo clippy --lib --features metrics -- -D warnings &&
        cargo clippy --lib --features tracing -- -D warnings &&
        cargo clippy --lib --features arc-swap-slots -- -D warnings &&
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

for target in i686-unknown-linux-gnu armv7-unknown-linux-gnueabihf wasm32-wasip1; do
    step "32 bits: $target" compiles_for "$target"
done

step "tests" watched cargo test --all-targets --features "$all"
step "a hung test" hung_test
step "tests in release" release_tests
step "AddressSanitizer" address_sanitizer 50000
step "examples" examples
step "programs" watched cargo test -p dev-support -p certify -p fleet -p batches
step "a fleet under faults" cargo run --quiet -p fleet -- --soak 30
step "a simulated fleet" watched cargo test -p simulation
step "the reference application" watched cargo test -p predictions
step "compile errors" compile_errors
step "documentation tests" bash tests/watched.sh cargo test --doc --features "$all"
step "models" bash loom-tests/run.sh
step "mutations" bash loom-tests/mutations/run.sh
step "mutations of the fleet" bash tests/simulation/mutations/run.sh

printf '\n'
for name in "${skipped[@]}"; do
    printf 'skipped: %s\n' "$name"
done
for name in "${failed[@]}"; do
    printf 'failed: %s\n' "$name"
done
printf '%s passed, %s failed, %s skipped\n' "$passed" "${#failed[@]}" "${#skipped[@]}"
[ "${#failed[@]}" -eq 0 ]
