//! The type of the values changes while the values of the old version are in the store, and
//! processes of both versions run. The table in `src/docs/store.md` is made of these outcomes.

use std::fmt;

use everfresh::store::{Codec, Format, Json, MessagePack, PayloadError, Postcard};
use everfresh::testing::store_contract::{key, terms};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::envelopes::stamped;

/// What a process makes of a value of the other version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Every field that both versions have comes back.
    Read,
    /// An error: counted, and loaded anew.
    Miss,
    /// Another value, without an error.
    Misread,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Read => "read",
            Outcome::Miss => "miss",
            Outcome::Misread => "**misread**",
        })
    }
}

trait Value: Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned + 'static {}
impl<T: Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned + 'static> Value for T {}

fn format<V: Value>(codec: impl Codec<V>, schema: u32) -> Format<V> {
    Format::new(codec).schema(schema)
}

/// Reads a value that another version wrote. `meant` is the value that it stands for.
fn outcome<W: Value, R: Value>(
    codec: impl Codec<W> + Codec<R> + Copy,
    written: &W,
    meant: &R,
) -> Outcome {
    let payload = format::<W>(codec, 1).seal(&key("a"), written, &terms());
    let payload = stamped(payload.unwrap(), 5);
    // A raised schema is an error, both ways, whatever the codec makes of the bytes.
    for (schema, error) in [(0, PayloadError::Schema), (2, PayloadError::Schema)] {
        let opened = format::<R>(codec, schema).open(&key("a"), &payload);
        assert_eq!(opened.unwrap_err(), error);
    }
    match format::<R>(codec, 1).open(&key("a"), &payload) {
        Ok(opened) if opened.value == *meant => Outcome::Read,
        Ok(_) => Outcome::Misread,
        Err(error) => {
            assert_eq!(error, PayloadError::Codec);
            Outcome::Miss
        }
    }
}

/// A row of the table: each codec, old reads new and new reads old.
fn row<O: Value, N: Value>(change: &str, old: &O, new: &N) -> String {
    let pair = |outcomes: [Outcome; 2]| format!("{} / {}", outcomes[0], outcomes[1]);
    let cells = [
        pair([outcome(Postcard, new, old), outcome(Postcard, old, new)]),
        pair([outcome(Json, new, old), outcome(Json, old, new)]),
        pair([
            outcome(MessagePack, new, old),
            outcome(MessagePack, old, new),
        ]),
    ];
    format!("| {change} | {} |\n", cells.join(" | "))
}

/// The values of fields, which are the same in each version.
const CENTS: u32 = 3;
const STOCK: u32 = 4;

fn name() -> String {
    "pen".to_owned()
}

/// Makes a version of the type.
macro_rules! version {
    ($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty = $value:expr),* $(,)? }) => {{
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct $name {
            $($(#[$attribute])* $field: $type),*
        }
        $name { $($field: $value),* }
    }};
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Colours {
    Red,
    Blue,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Exchanged {
    Blue,
    Red,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum More {
    Red,
    Blue,
    Green,
}

fn table() -> String {
    let old = version!(Old {
        cents: u32 = CENTS,
        stock: u32 = STOCK,
        name: String = name(),
    });
    let rows = [
        row(
            "field added at the end",
            &old,
            &version!(New {
                cents: u32 = CENTS,
                stock: u32 = STOCK,
                name: String = name(),
                note: String = String::new(),
            }),
        ),
        row(
            "the same, `Option` or `#[serde(default)]`",
            &old,
            &version!(New {
                cents: u32 = CENTS,
                stock: u32 = STOCK,
                name: String = name(),
                note: Option<String> = None,
                #[serde(default)]
                count: u32 = 0,
            }),
        ),
        row(
            "field added in front",
            &old,
            &version!(New {
                unit: u32 = 1,
                cents: u32 = CENTS,
                stock: u32 = STOCK,
                name: String = name(),
            }),
        ),
        row(
            "last field removed",
            &old,
            &version!(New {
                cents: u32 = CENTS,
                stock: u32 = STOCK,
            }),
        ),
        row(
            "two fields of one type exchanged",
            &old,
            &version!(New {
                stock: u32 = STOCK,
                cents: u32 = CENTS,
                name: String = name(),
            }),
        ),
        row(
            "fields of different types exchanged",
            &old,
            &version!(New {
                name: String = name(),
                cents: u32 = CENTS,
                stock: u32 = STOCK,
            }),
        ),
        row(
            "field renamed",
            &old,
            &version!(New {
                price: u32 = CENTS,
                stock: u32 = STOCK,
                name: String = name(),
            }),
        ),
        row(
            "`u32` became `u64`",
            &old,
            &version!(New {
                cents: u64 = CENTS.into(),
                stock: u64 = STOCK.into(),
                name: String = name(),
            }),
        ),
        row(
            "`u32` became `i32`",
            &old,
            &version!(New {
                cents: i32 = CENTS as i32,
                stock: i32 = STOCK as i32,
                name: String = name(),
            }),
        ),
        row(
            "variants of an enum exchanged",
            &Colours::Red,
            &Exchanged::Red,
        ),
        row(
            "variant added, another one stored",
            &Colours::Blue,
            &More::Blue,
        ),
        row(
            "the unit changed: 3 euros were 300 cents",
            &version!(Old { price: u32 = 300 }),
            &version!(New { price: u32 = 3 }),
        ),
    ];
    let head = "| change | `Postcard` | `Json` | `MessagePack` |\n|---|---|---|---|\n";
    [head, &rows.concat()].concat()
}

#[test]
fn the_table_of_changes_is_that_of_the_docs() {
    let (docs, table) = (include_str!("../../src/docs/store.md"), table());
    assert!(docs.contains(&table), "not in src/docs/store.md:\n{table}");
}

#[test]
fn a_new_variant_is_a_miss_for_the_old_version() {
    let new = More::Green;
    for read in [
        outcome(Postcard, &new, &Colours::Red),
        outcome(Json, &new, &Colours::Red),
        outcome(MessagePack, &new, &Colours::Red),
    ] {
        assert_eq!(read, Outcome::Miss);
    }
}

/// The values with which a change goes unnoticed are not rare: all of these are.
#[test]
fn exchanged_numbers_are_misread_whatever_they_are() {
    let old = |cents, stock| {
        version!(Old {
            cents: u32 = cents,
            stock: u32 = stock
        })
    };
    let new = |cents, stock| {
        version!(New {
            stock: u32 = stock,
            cents: u32 = cents
        })
    };
    for cents in [0, 1, 127, 128, u32::MAX - 1] {
        let (old, new) = (old(cents, cents + 1), new(cents, cents + 1));
        assert_eq!(outcome(Postcard, &old, &new), Outcome::Misread);
        assert_eq!(outcome(Postcard, &new, &old), Outcome::Misread);
    }
}
