#!/usr/bin/env bash
# The weight that a cache type adds to a program. Prints, for 0, 1, 2 and 4 types, the processor
# time to compile their crate for release (least of three) and the size of the stripped program.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$root/target/weight
mkdir -p "$folder/src"
cat >"$folder/Cargo.toml" <<END
[package]
name = "weight"
edition = "2024"
[dependencies]
everfresh = { path = "$root" }
[profile.release]
strip = true
[workspace]
END
cp "$root/Cargo.lock" "$folder" 2>/dev/null || true
cd "$folder"

cache() { # NUMBER
    cat <<END
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key$1([u32; $1]);
struct Value$1(String, [f64; $1]);
fn use$1(number: u32) {
    let cache = everfresh::Cache::<Key$1, Value$1>::builder()
        .compute(|key: &Key$1| Value$1(key.0[0].to_string(), [1.5; $1]))
        .build()
        .unwrap();
    let key = Key$1([number; $1]);
    let value = cache.get_blocking(&key).unwrap();
    println!("{} {:?}", value.0, value.1);
    cache.insert(key.clone(), Value$1(String::new(), [2.5; $1]));
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    println!("{}", std::pin::pin!(cache.get(&key)).poll(context).is_ready());
    println!("{} {}", cache.invalidate(&key), cache.stats());
}
END
}

TIMEFORMAT='%U %S'
for types in 0 1 2 4; do
    {
        for number in $(seq "$types"); do cache "$number"; done
        echo 'fn main() {'
        echo '    println!("{:?}", std::env::args());'
        for number in $(seq "$types"); do echo "    use$number(7);"; done
        echo '}'
    } >src/main.rs
    cargo build --release --quiet
    least=$(for _ in 1 2 3; do
        touch src/main.rs
        { time cargo build --release --quiet; } 2>&1 | awk '{ printf "%.2f\n", $1 + $2 }'
    done | sort -n | head -n 1)
    size=$(wc -c <target/release/weight)
    printf '%s types: %s s, %s kB\n' "$types" "$least" $((size / 1000))
done
