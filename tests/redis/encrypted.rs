//! Values that are encrypted in Redis.

use std::sync::Arc;

use dev_support::caches::encrypted::encrypted;
use dev_support::redis::Answer;

use crate::server::Server;

#[test]
fn the_server_holds_no_plain_text_and_processes_with_the_key_share_values() {
    let server = Server::start();
    let store = Arc::new(server.store());
    encrypted(&store, || {
        let Answer::Many(names) = server.ask(&["KEYS", "*"]) else {
            panic!("the names of all keys")
        };
        let mut held = Vec::new();
        for name in names {
            let Answer::Bytes(name) = name else {
                panic!("{name:?}")
            };
            held.extend_from_slice(&name);
            let name = String::from_utf8(name).unwrap();
            if let Answer::Bytes(data) = server.ask(&["GET", &name]) {
                held.extend(data);
            }
        }
        held
    });
}
