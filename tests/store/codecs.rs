//! The codecs: values survive them, and malformed bytes are errors.

use everfresh::store::{Codec, Json, MessagePack, Postcard};
use proptest::collection::vec;
use proptest::num::f64;
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

fn round_trip<V, C>(codec: &C, value: &V) -> V
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
        odds in vec(f64::NORMAL | f64::ZERO | f64::SUBNORMAL, 0..20),
        at in proptest::option::of(any::<i64>()),
    ) {
        let value = Old { name, odds, at };
        for back in [
            round_trip(&Postcard, &value),
            round_trip(&Json, &value),
            round_trip(&MessagePack, &value),
        ] {
            prop_assert_eq!(&back, &value);
            let same = back.odds.iter().zip(&value.odds).all(|(a, b)| a.to_bits() == b.to_bits());
            prop_assert!(same);
        }
    }

    #[test]
    fn bytes_after_the_value_are_an_error(
        number in any::<u32>(),
        more in vec(any::<u8>(), 1..4),
    ) {
        let postcard = [encoded(&Postcard, &number), more.clone()].concat();
        prop_assert!(Codec::<u32>::decode(&Postcard, &postcard).is_err());
        let msgpack = [encoded(&MessagePack, &number), more.clone()].concat();
        prop_assert!(Codec::<u32>::decode(&MessagePack, &msgpack).is_err());
        let letters = vec![b'x'; more.len()];
        let json = [encoded(&Json, &number), letters].concat();
        prop_assert!(Codec::<u32>::decode(&Json, &json).is_err());
    }
}

#[test]
fn codecs_with_field_names_read_later_and_earlier_versions() {
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
fn deep_nesting_is_an_error_in_json_and_message_pack() {
    let deep = "[".repeat(100_000);
    assert!(Codec::<serde_json::Value>::decode(&Json, deep.as_bytes()).is_err());
    let deep = vec![0x91; 100_000];
    assert!(Codec::<serde_json::Value>::decode(&MessagePack, &deep).is_err());
}

#[test]
fn each_codec_has_its_own_number() {
    let ids = [
        Codec::<u8>::id(&Postcard),
        Codec::<u8>::id(&Json),
        Codec::<u8>::id(&MessagePack),
    ];
    assert_eq!(ids, [1, 2, 3], "they are written in payloads");
}
