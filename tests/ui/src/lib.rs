//! What the compiler says of the usual mistakes in code that uses the cache.
//!
//! Each file in `cases` is a program with one mistake, beside the text that the compiler prints for
//! it. A new case needs only the program: `TRYBUILD=overwrite cargo test -p compile-errors` writes
//! the texts, those of a new compiler as well. `tests/run.sh` names the compiler that they are of.

#[test]
fn the_usual_mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
