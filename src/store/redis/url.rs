//! The URL of a server. Words that are unknown are errors, because the setting that they stand for
//! would be ignored. No error repeats a part of the URL, because any part can be a secret.

use std::path::PathBuf;

use super::dial::{Host, Login, setting};
use crate::store::error::StoreError;

const DEFAULT_PORT: u16 = 6379;

const SCHEME: &str = "the URL must begin with redis://, rediss:// (TLS) or unix://, \
     as in redis://user:password@host:6379/0";
const FRAGMENT: &str = "write a `#` in the URL as %23; after a `#` a URL has no settings, \
     and TLS certificates are always verified";
const RAW: &str = "write `/`, `?` and `%` in user and password as %2F, %3F and %25";
const WORDS: &str = "the URL has a `?` with words that are not known; the number of the database \
     stands after the host, as in redis://host:6379/3, and a `?` in a password is written as %3F";
const UNIX: &str = "a unix socket is given by its absolute path, as in unix:///run/redis.sock";
const UNIX_WORDS: &str = "after the `?` of a unix socket only db, user and pass are known, \
     as in unix:///run/redis.sock?db=3";
const HOST: &str = "the URL has no host, as in redis://host:6379/0";
const BRACKETS: &str = "an IPv6 address in the URL stands in brackets, as in redis://[::1]:6379/0";
const PORT: &str = "the port in the URL must be a number from 1 to 65535; write `:`, `/`, `?` and \
     `@` in user and password as %3A, %2F, %3F and %40";
const DATABASE: &str = "after the host of the URL stands only the number of the database, \
     as in redis://host:6379/3";

pub(super) struct Url {
    pub(super) host: Host,
    pub(super) encrypted: bool,
    pub(super) login: Login,
}

impl Url {
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| setting(SCHEME))?;
        if rest.contains('#') {
            return Err(setting(FRAGMENT));
        }
        let (rest, words) = match rest.split_once('?') {
            Some((rest, words)) => (rest, Some(words)),
            None => (rest, None),
        };
        match scheme {
            "redis" | "valkey" => tcp(rest, words, false),
            "rediss" | "valkeys" => tcp(rest, words, true),
            "unix" | "redis+unix" | "valkey+unix" => unix(rest, words.unwrap_or_default()),
            _ => Err(setting(SCHEME)),
        }
    }
}

fn tcp(rest: &str, words: Option<&str>, encrypted: bool) -> Result<Url, StoreError> {
    match words {
        Some(words) if words.contains('@') => return Err(setting(RAW)),
        Some(_) => return Err(setting(WORDS)),
        None => {}
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.contains('@') {
        return Err(setting(RAW));
    }
    let (login, address) = match authority.rsplit_once('@') {
        Some((login, address)) => (user_and_password(login)?, address),
        None => (Login::default(), authority),
    };
    let (host, port) = host_and_port(address)?;
    let database = match path.trim_end_matches('/') {
        "" => 0,
        number => number.parse().map_err(|_| setting(DATABASE))?,
    };
    Ok(Url {
        host: Host::Tcp(host, port),
        encrypted,
        login: Login { database, ..login },
    })
}

fn user_and_password(login: &str) -> Result<Login, StoreError> {
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(decoded(password)?)),
        None => (login, None),
    };
    let user = Some(decoded(user)?).filter(|user| !user.is_empty());
    // Only a user can have an empty password.
    let password = password.filter(|password| user.is_some() || !password.is_empty());
    Ok(Login {
        user,
        password,
        database: 0,
    })
}

fn host_and_port(address: &str) -> Result<(String, u16), StoreError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| setting(BRACKETS))?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(setting(PORT)),
            }
        }
        None => match address.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(setting(BRACKETS)),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Err(setting(HOST));
    }
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(setting(PORT)),
        },
    };
    Ok((decoded(host)?, port))
}

fn unix(path: &str, words: &str) -> Result<Url, StoreError> {
    if !path.starts_with('/') {
        return Err(setting(UNIX));
    }
    let mut login = Login::default();
    for word in words.split('&').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').ok_or_else(|| setting(UNIX_WORDS))?;
        let value = decoded(value)?;
        match name {
            "db" => login.database = value.parse().map_err(|_| setting(UNIX_WORDS))?,
            "user" => login.user = Some(value),
            "pass" => login.password = Some(value),
            _ => return Err(setting(UNIX_WORDS)),
        }
    }
    Ok(Url {
        host: Host::Unix(PathBuf::from(decoded(path)?)),
        encrypted: false,
        login,
    })
}

/// Replaces `%` and two hexadecimal digits by the byte that they stand for.
fn decoded(text: &str) -> Result<String, StoreError> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).filter(|code| !code.starts_with('+'));
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(byte.ok_or_else(|| setting(RAW))?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| setting(RAW))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Host and port (or path), user, password, database.
    fn parts(url: &str) -> (String, Option<String>, Option<String>, u32) {
        let url = Url::parse(url).unwrap();
        let host = match url.host {
            Host::Tcp(host, port) => format!("{host} {port}"),
            Host::Unix(path) => path.display().to_string(),
        };
        (host, url.login.user, url.login.password, url.login.database)
    }

    fn plain(host: &str, database: u32) -> (String, Option<String>, Option<String>, u32) {
        (host.to_owned(), None, None, database)
    }

    #[test]
    fn urls_are_read() {
        assert_eq!(parts("redis://host"), plain("host 6379", 0));
        assert_eq!(parts("redis://host/"), plain("host 6379", 0));
        assert_eq!(parts("valkey://1.2.3.4:7/12/"), plain("1.2.3.4 7", 12));
        assert_eq!(parts("rediss://[::1]:7/1"), plain("::1 7", 1));
        assert_eq!(parts("redis://[::1]"), plain("::1 6379", 0));
        assert_eq!(parts("unix:///run/a%20b?db=3"), plain("/run/a b", 3));
        let some = |text: &str| Some(text.to_owned());
        let login = |user, password| ("h 6379".to_owned(), user, password, 0);
        assert_eq!(parts("redis://u:p%23%3a@h"), login(some("u"), some("p#:")));
        assert_eq!(parts("redis://:p@q@h"), login(None, some("p@q")));
        assert_eq!(parts("redis://u@h"), login(some("u"), None));
        assert_eq!(parts("redis://u:@h"), login(some("u"), some("")));
        assert_eq!(parts("redis://:@h"), login(None, None));
        assert!(Url::parse("rediss://h").unwrap().encrypted);
        assert!(!Url::parse("redis://h").unwrap().encrypted);
        let (path, user, password, _) = parts("unix:///r?user=u&pass=p");
        assert_eq!((&*path, user, password), ("/r", some("u"), some("p")));
    }

    #[test]
    fn a_url_that_means_something_else_is_an_error() {
        for (url, part) in [
            ("host:6379", "must begin with redis://"),
            ("http://host", "must begin with redis://"),
            ("redis://:pa#ss@host", "as %23"),
            ("redis://host#insecure", "always verified"),
            ("redis://:pa?ss@host", "as %2F, %3F"),
            ("redis://:pa/ss@host", "as %2F, %3F"),
            ("redis://:pa%ss@host", "%25"),
            ("redis://:%+1@host", "%25"),
            ("redis://:%ff@host", "%25"),
            ("redis://host?db=3", "as in redis://host:6379/3"),
            ("redis://host/3?protocol=resp2", "not known"),
            ("redis://host/three", "only the number of the database"),
            ("redis://host/-1", "only the number of the database"),
            ("redis://host:0", "from 1 to 65535"),
            ("redis://host:99999", "from 1 to 65535"),
            ("redis://user:secret", "as %3A"),
            ("redis://::1", "in brackets"),
            ("redis://[::1", "in brackets"),
            ("redis:///3", "no host"),
            ("unix://run/redis.sock", "absolute path"),
            (
                "unix:///run/redis.sock?database=3",
                "only db, user and pass",
            ),
        ] {
            let error = Url::parse(url).err().unwrap();
            assert!(error.to_string().contains(part), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(redis|unix)://[a-z0-9:/?#@%\\[\\]é]{0,20}") {
            let _ = Url::parse(&text);
        }
    }
}
