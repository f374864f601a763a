//! The classification of errors from the client library and the server.

use redis::{ErrorKind, RedisError, ServerError};

use crate::store::error::{ErrorClass, StoreError};

/// Error codes that need a new connection, because the server is no longer the master or the login
/// is no longer valid.
const NEW_CONNECTION: [&str; 4] = ["READONLY", "MASTERDOWN", "NOAUTH", "WRONGPASS"];

/// The class of each error code of a server.
const CODES: [(&str, ErrorClass); 18] = [
    ("WRONGTYPE", ErrorClass::Foreign),
    ("OOM", ErrorClass::Refused),
    ("MISCONF", ErrorClass::Refused),
    ("NOREPLICAS", ErrorClass::Refused),
    ("READONLY", ErrorClass::Refused),
    ("MASTERDOWN", ErrorClass::Refused),
    ("LOADING", ErrorClass::Busy),
    ("BUSY", ErrorClass::Busy),
    ("TRYAGAIN", ErrorClass::Busy),
    ("CLUSTERDOWN", ErrorClass::Busy),
    ("MOVED", ErrorClass::Busy),
    ("ASK", ErrorClass::Busy),
    ("NOAUTH", ErrorClass::Denied),
    ("WRONGPASS", ErrorClass::Denied),
    ("NOPERM", ErrorClass::Denied),
    ("NOPROTO", ErrorClass::Protocol),
    ("CROSSSLOT", ErrorClass::Protocol),
    ("UNBLOCKED", ErrorClass::Unavailable),
];

/// An error, and whether a new connection is needed after it.
pub(super) struct Failure {
    pub(super) error: StoreError,
    pub(super) reconnect: bool,
}

/// Classifies an error reply of the server.
pub(super) fn server(error: &ServerError) -> Failure {
    let code = error.code();
    let details = error.details().unwrap_or_default();
    // Servers before Redis 7 put the code of an error inside a script behind `ERR`.
    let hidden = || CODES.iter().find(|(known, _)| details.contains(known));
    let known = CODES.iter().find(|(known, _)| *known == code);
    if let Some((code, class)) = known.or_else(|| (code == "ERR").then(hidden).flatten()) {
        return Failure {
            error: StoreError::new(*class, *code),
            reconnect: NEW_CONNECTION.contains(code),
        };
    }
    let error = match details {
        _ if details.contains("max number of clients") => {
            StoreError::new(ErrorClass::Unavailable, "too many clients")
        }
        _ if details.contains("AUTH") => StoreError::new(ErrorClass::Denied, "AUTH"),
        // Keeps only a code in capitals, because the rest of the text can contain keys and values.
        _ if code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            StoreError::new(ErrorClass::Other, code.to_owned())
        }
        _ => StoreError::new(ErrorClass::Other, ""),
    };
    Failure {
        error,
        reconnect: false,
    }
}

/// Classifies an error of the client library.
pub(super) fn client(error: RedisError) -> Failure {
    let reconnect = error.is_unrecoverable_error();
    let error = match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => match ServerError::try_from(error) {
            Ok(error) => return server(&error),
            Err(_) => StoreError::new(ErrorClass::Other, ""),
        },
        ErrorKind::Io if error.is_timeout() => StoreError::new(ErrorClass::TimedOut, ""),
        ErrorKind::Io => StoreError::new(ErrorClass::Unavailable, "connection lost"),
        ErrorKind::AuthenticationFailed => StoreError::new(ErrorClass::Denied, ""),
        ErrorKind::RESP3NotSupported => StoreError::new(
            ErrorClass::Protocol,
            "the server must be Redis 6 or later, or Valkey",
        ),
        ErrorKind::InvalidClientConfig => StoreError::new(ErrorClass::Setting, ""),
        _ => StoreError::new(ErrorClass::Protocol, ""),
    };
    Failure { error, reconnect }
}

/// Classifies an input or output error while connecting.
pub(super) fn io(error: &std::io::Error) -> StoreError {
    use std::io::ErrorKind;
    let text = match error.kind() {
        ErrorKind::ConnectionRefused => {
            "the connection is refused; check that the server runs, and its port"
        }
        ErrorKind::NotFound => {
            "there is no socket at this path; check it, and that the server runs"
        }
        ErrorKind::PermissionDenied => {
            "this process may not use the socket; check its owner and its rights"
        }
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
            "no way leads to the address; check the host, and the network of this machine"
        }
        ErrorKind::TimedOut => return StoreError::new(ErrorClass::TimedOut, ""),
        // Keeps only the kind, because the text can contain an address.
        kind => return StoreError::new(ErrorClass::Unavailable, kind.to_string()),
    };
    StoreError::explained(ErrorClass::Unavailable, text)
}

/// A reply of an unexpected type.
pub(super) fn unexpected_reply() -> Failure {
    Failure {
        error: StoreError::new(ErrorClass::Protocol, "an unexpected reply"),
        reconnect: false,
    }
}
