//! The codecs: what comes back, and what does not.

use everfresh::store::{Codec, Json, MessagePack, Postcard};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Old {
    name: String,
    odds: Vec<f64>,
    at: Option<i64>,
}

/// The next version of [`Old`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct New {
    name: String,
    odds: Vec<f64>,
    at: Option<i64>,
    #[serde(default)]
    note: String,
}

fn encoded<V>(codec: &impl Codec<V>, value: &V) -> Vec<u8> {
    let mut out = b"header".to_vec();
    codec.encode(value, &mut out).unwrap();
    assert!(out.starts_with(b"header"), "it appends");
    out.split_off(6)
}

fn comes_back<V, C>(codec: &C, value: &V) -> V
where
    C: Codec<V>,
    V: Serialize + DeserializeOwned,
{
    codec.decode(&encoded(codec, value)).unwrap()
}

proptest! {
    #[test]
    fn values_come_back_exactly(
        name in ".*",
        odds in proptest::collection::vec(proptest::num::f64::NORMAL | proptest::num::f64::ZERO | proptest::num::f64::SUBNORMAL, 0..20),
        at in proptest::option::of(any::<i64>()),
    ) {
        let value = Old { name, odds, at };
        for back in [comes_back(&Postcard, &value), comes_back(&Json, &value), comes_back(&MessagePack, &value)] {
            prop_assert_eq!(&back, &value);
            let same = back.odds.iter().zip(&value.odds).all(|(a, b)| a.to_bits() == b.to_bits());
            prop_assert!(same);
        }
    }

    #[test]
    fn what_is_left_over_is_an_error(number in any::<u32>(), more in proptest::collection::vec(any::<u8>(), 1..4)) {
        let longer = |mut bytes: Vec<u8>| { bytes.extend(&more); bytes };
        prop_assert!(Codec::<u32>::decode(&Postcard, &longer(encoded(&Postcard, &number))).is_err());
        prop_assert!(Codec::<u32>::decode(&MessagePack, &longer(encoded(&MessagePack, &number))).is_err());
        let spaces = vec![b'x'; more.len()];
        let json = [encoded(&Json, &number), spaces].concat();
        prop_assert!(Codec::<u32>::decode(&Json, &json).is_err());
    }
}

#[test]
fn the_ones_with_names_read_the_next_version_and_the_last() {
    let old = Old {
        name: "a".to_owned(),
        odds: vec![0.1],
        at: None,
    };
    let new = New {
        name: "a".to_owned(),
        odds: vec![0.1],
        at: None,
        note: String::new(),
    };
    assert_eq!(Json.decode(&encoded(&Json, &old)).ok(), Some(new.clone()));
    assert_eq!(Json.decode(&encoded(&Json, &new)).ok(), Some(old.clone()));
    assert_eq!(
        MessagePack.decode(&encoded(&MessagePack, &old)).ok(),
        Some(new.clone())
    );
    assert_eq!(
        MessagePack.decode(&encoded(&MessagePack, &new)).ok(),
        Some(old.clone())
    );
    assert!(Codec::<New>::decode(&Postcard, &encoded(&Postcard, &old)).is_err());
}

#[test]
fn deep_nesting_is_an_error_where_it_says_so() {
    let deep = "[".repeat(100_000);
    assert!(Codec::<serde_json::Value>::decode(&Json, deep.as_bytes()).is_err());
    let deep = vec![0x91; 100_000];
    assert!(Codec::<serde_json::Value>::decode(&MessagePack, &deep).is_err());
}

#[test]
fn each_has_its_own_number() {
    let ids = [
        Codec::<u8>::id(&Postcard),
        Codec::<u8>::id(&Json),
        Codec::<u8>::id(&MessagePack),
    ];
    assert_eq!(ids, [1, 2, 3], "they are written in payloads");
}
