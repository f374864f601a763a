//! Names, keys and errors, as a store and its operators see them.

use everfresh::store::{ErrorClass, Namespace, PayloadError, StoreError, StoreKey};

#[test]
fn namespaces_are_checked() {
    let longest = "n".repeat(Namespace::LONGEST);
    for name in ["a", "shop:predictions:v3", "A-z_0.9", &longest] {
        assert_eq!(Namespace::new(name).unwrap().as_str(), name);
    }
    let longer = "n".repeat(Namespace::LONGEST + 1);
    for name in ["", " ", "a b", "a{b}", "a*", "ä", "a\n", "a\0", &longer] {
        let error = Namespace::new(name).unwrap_err();
        assert!(error.to_string().contains("1 to 100 characters"), "{error}");
    }
}

#[test]
fn keys_are_not_shown() {
    let namespace = Namespace::new("users").unwrap();
    let key = StoreKey::new(&namespace, b"user@example.org");
    let shown = format!("{key:?} {key:#?}");
    assert!(
        shown.contains("users") && !shown.contains("example"),
        "{shown}"
    );
    assert!(!shown.contains(&format!("{:x}", key.hash())), "{shown}");
}

#[test]
fn different_bytes_make_different_keys() {
    let namespace = Namespace::new("users").unwrap();
    let of = |bytes: &[u8]| StoreKey::new(&namespace, bytes);
    assert_eq!(of(b"a"), of(b"a"));
    assert_ne!(of(b"a").hash(), of(b"b").hash());
    assert_ne!(of(b"a").check(), of(b"b").check());
    assert_ne!(of(b"").hash(), of(b"\0").hash());
}

#[test]
fn errors_name_a_remedy() {
    let error = StoreError::new(ErrorClass::Refused, "OOM");
    assert_eq!(
        error.to_string(),
        "the store takes no writes; give it memory, disk or replicas, or the address of the \
         master (OOM)"
    );
    assert_eq!(format!("{error:?}"), "Refused(OOM)");
    assert_eq!(error.class().name(), "refused");
    let names: std::collections::HashSet<_> = PayloadError::ALL.map(PayloadError::name).into();
    assert_eq!(names.len(), PayloadError::ALL.len());
    let texts: std::collections::HashSet<_> = PayloadError::ALL.map(|why| why.to_string()).into();
    assert_eq!(texts.len(), PayloadError::ALL.len());
}
