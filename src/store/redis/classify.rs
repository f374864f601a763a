//! What an error of the client or the server means.

use redis::{ErrorKind, RedisError, ServerError};

use crate::store::error::{ErrorClass, StoreError};

/// Answers after which a new connection is needed: the server is no longer the master, or no longer knows us.
const NEW_CONNECTION: [&str; 4] = ["READONLY", "MASTERDOWN", "NOAUTH", "WRONGPASS"];

/// The class of each word with which a server begins an error.
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
pub(super) struct Trouble {
    pub(super) error: StoreError,
    pub(super) reconnect: bool,
}

/// What an answer of the server says that is an error.
pub(super) fn server(error: &ServerError) -> Trouble {
    let code = error.code();
    let details = error.details().unwrap_or_default();
    // Servers before Redis 7 hide the word of an error in a script behind their own.
    let hidden = || CODES.iter().find(|(known, _)| details.contains(known));
    let known = CODES.iter().find(|(known, _)| *known == code);
    if let Some((code, class)) = known.or_else(|| (code == "ERR").then(hidden).flatten()) {
        return Trouble {
            error: StoreError::new(*class, *code),
            reconnect: NEW_CONNECTION.contains(code),
        };
    }
    let error = match details {
        _ if details.contains("max number of clients") => {
            StoreError::new(ErrorClass::Unavailable, "too many clients")
        }
        _ if details.contains("AUTH") => StoreError::new(ErrorClass::Denied, "AUTH"),
        // The rest of the text may have anything in it; a word in capitals has not.
        _ if code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            StoreError::new(ErrorClass::Other, code.to_owned())
        }
        _ => StoreError::new(ErrorClass::Other, ""),
    };
    Trouble {
        error,
        reconnect: false,
    }
}

/// What an error of the client says.
pub(super) fn client(error: RedisError) -> Trouble {
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
            "it must be Redis 6 or later, or Valkey",
        ),
        ErrorKind::InvalidClientConfig => StoreError::new(ErrorClass::Setting, ""),
        _ => StoreError::new(ErrorClass::Protocol, ""),
    };
    Trouble { error, reconnect }
}

/// An input or output error while connecting.
pub(super) fn io(error: &std::io::Error) -> StoreError {
    let class = match error.kind() {
        std::io::ErrorKind::TimedOut => ErrorClass::TimedOut,
        _ => ErrorClass::Unavailable,
    };
    // The kind only: the text may have an address in it.
    StoreError::new(class, error.kind().to_string())
}

/// An answer that is of no use.
pub(super) fn nonsense() -> Trouble {
    Trouble {
        error: StoreError::new(ErrorClass::Protocol, "an unexpected answer"),
        reconnect: false,
    }
}
