//! Encrypted connections.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dev_support::redis::{free_port, temporary};
use everfresh::store::{ErrorClass, RedisBuilder, RedisStore};
use everfresh::testing::store_contract::key;

use crate::faults::{class, works};
use crate::mistakes::says;
use crate::server::Server;

/// A certificate authority, and a key and a certificate for this machine; made with openssl.
struct Certificates(PathBuf);

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let done = done.expect("these tests need openssl in the path: apt-get install openssl");
    assert!(done.success(), "openssl {arguments}");
}

impl Certificates {
    fn new() -> Self {
        let folder = temporary().unwrap();
        let elliptic = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(
            &folder,
            &format!("req -x509 {elliptic} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"),
        );
        fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
        for name in ["server", "client"] {
            openssl(
                &folder,
                &format!("req {elliptic} -keyout {name}.key -out {name}.csr -subj /CN={name}"),
            );
            openssl(
                &folder,
                &format!(
                    "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
                     -out {name}.pem -days 2 -extfile names"
                ),
            );
        }
        Certificates(folder)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap()
    }

    fn authority(&self) -> Vec<u8> {
        self.read("ca.pem")
    }

    /// A server that asks its clients for no certificate.
    fn server(&self, port: u16) -> Server {
        self.server_with(port, &["--tls-auth-clients", "no"])
    }

    fn server_with(&self, port: u16, more: &[&str]) -> Server {
        let file = |name: &str| self.0.join(name).display().to_string();
        let options = [
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.pem"),
        ];
        Server::with(&[&options[..], more].concat())
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn builder(host: &str, port: u16) -> RedisBuilder {
    RedisStore::builder(format!("rediss://{host}:{port}/")).timeout(Duration::from_secs(10))
}

#[test]
fn an_encrypted_connection_is_verified() {
    let ours = Certificates::new();
    let port = free_port().unwrap();
    let server = ours.server(port);
    let store = builder("127.0.0.1", port)
        .authority(ours.authority())
        .connect_blocking();
    works(&store.unwrap(), &key("a"));
    let empty = builder("127.0.0.1", port).authority("no certificates");
    assert_eq!(class(empty.start()), ErrorClass::Setting);
    drop(server);
}

#[test]
fn a_client_proves_itself_by_a_certificate() {
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let port = free_port().unwrap();
    // The server asks for a certificate by default.
    let _server = ours.server_with(port, &[]);
    let builder = || builder("127.0.0.1", port).authority(ours.authority());
    let with = |of: &Certificates| builder().identity(of.read("client.pem"), of.read("client.key"));
    works(&with(&ours).connect_blocking().unwrap(), &key("a"));
    let asks = &["asks for a client certificate", "`identity`"];
    says(builder(), ErrorClass::Denied, asks);
    says(with(&theirs), ErrorClass::Denied, asks);
    let text = builder().identity("no certificate", ours.read("client.key"));
    says(text, ErrorClass::Setting, &["in PEM format"]);
    let mixed = builder().identity(ours.read("client.pem"), ours.read("server.key"));
    says(
        mixed,
        ErrorClass::Setting,
        &["not that of its first certificate"],
    );
    // Nothing of it is shown.
    assert!(!format!("{:?}", with(&ours)).contains("PRIVATE"));
}

#[test]
fn a_client_certificate_is_asked_for_with_tls_1_2_too() {
    let ours = Certificates::new();
    let port = free_port().unwrap();
    let _server = ours.server_with(port, &["--tls-protocols", "TLSv1.2"]);
    let builder = || builder("127.0.0.1", port).authority(ours.authority());
    let with = builder().identity(ours.read("client.pem"), ours.read("client.key"));
    works(&with.connect_blocking().unwrap(), &key("a"));
    says(
        builder(),
        ErrorClass::Denied,
        &["asks for a client certificate"],
    );
}

#[test]
fn mistakes_with_tls_are_explained() {
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let port = free_port().unwrap();
    let server = ours.server(port);
    let other = builder("127.0.0.1", port).authority(theirs.authority());
    let authority = &["not from a trusted authority", "`authority`"];
    says(other, ErrorClass::Denied, authority);
    let name = builder("localhost", port).authority(ours.authority());
    let text = &["for another name", "a host in the URL"];
    says(name, ErrorClass::Denied, text);
    // A client with TLS at a plain port. If its random bytes contain the end of a line, the server
    // answers; otherwise it waits for more.
    for _ in 0..8 {
        let plain = builder("127.0.0.1", server.port).authority(ours.authority());
        let plain = plain.connect_timeout(Duration::from_millis(300));
        let error = plain.connect_blocking().unwrap_err();
        let shown = error.to_string();
        assert!(
            shown.contains("expect") && shown.contains("redis://"),
            "{shown}"
        );
    }
    // A client without TLS at a TLS port.
    let plain = RedisStore::builder(format!("redis://127.0.0.1:{port}/"));
    let error = plain.connect_blocking().unwrap_err().to_string();
    assert!(error.contains("rediss://"), "{error}");
}
