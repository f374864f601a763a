//! Encrypted connections.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dev_support::redis::{free_port, temporary};
use everfresh::store::{ErrorClass, RedisBuilder, RedisStore};
use everfresh::testing::store_contract::key;

use crate::faults::{class, works};
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
        openssl(
            &folder,
            &format!("req {elliptic} -keyout server.key -out server.csr -subj /CN=server"),
        );
        fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
        openssl(
            &folder,
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem \
             -days 2 -extfile names",
        );
        Certificates(folder)
    }

    fn authority(&self) -> Vec<u8> {
        fs::read(self.0.join("ca.pem")).unwrap()
    }

    fn server(&self, port: u16) -> Server {
        let file = |name: &str| self.0.join(name).display().to_string();
        Server::with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.pem"),
            "--tls-auth-clients",
            "no",
        ])
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
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let port = free_port().unwrap();
    let server = ours.server(port);
    let store = builder("127.0.0.1", port)
        .authority(ours.authority())
        .connect_blocking();
    works(&store.unwrap(), &key("a"));
    // Another authority, another name, and a server without TLS.
    let other = builder("127.0.0.1", port).authority(theirs.authority());
    assert_eq!(class(other.connect_blocking()), ErrorClass::Denied);
    let name = builder("localhost", port).authority(ours.authority());
    assert_eq!(class(name.connect_blocking()), ErrorClass::Denied);
    let plain = builder("127.0.0.1", server.port).authority(ours.authority());
    let plain = plain.timeout(Duration::from_millis(500));
    assert!(plain.connect_blocking().is_err());
    let empty = builder("127.0.0.1", port).authority("no certificates");
    assert_eq!(class(empty.start()), ErrorClass::Setting);
}
