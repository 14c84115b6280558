//! The address of a member of an etcd cluster.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A member's address, as on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is spoken. Without it only to this machine itself.
    pub tls: bool,
    /// A DNS name or an address, without brackets; with TLS the certificate has to carry it.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Not an address.
    #[error("etcd endpoint {found:?}: expected https://HOST:PORT")]
    Syntax {
        /// The text.
        found: String,
    },
    /// Everybody on the way could read and change the records.
    #[error(
        "etcd endpoint {found:?}: http:// is for 127.0.0.0/8 and [::1] alone, expected https:// for other machines"
    )]
    Plain {
        /// The text.
        found: String,
    },
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = || text.chars().take(200).collect::<String>();
        let syntax = || InvalidEndpoint::Syntax { found: found() };
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(syntax()),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(syntax)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(syntax)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let address = host.parse::<IpAddr>().ok();
        let is_name = |host: &str| {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        let sound = match address {
            Some(address) => address.is_ipv6() == bracketed.is_some(),
            None => bracketed.is_none() && is_name(host),
        };
        if !sound {
            return Err(syntax());
        }
        if !tls && !address.is_some_and(|address| address.is_loopback()) {
            return Err(InvalidEndpoint::Plain { found: found() });
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_shown() {
        for text in [
            "https://etcd-0.isthmus.svc:2379",
            "https://10.0.0.1:1",
            "http://127.0.0.2:2379",
            "http://[::1]:9",
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.to_string(), text);
        }
        for bad in [
            "",
            "https://",
            "https://a",
            "https://a:0",
            "https://a:65536",
            "https://:1",
            "https://[a]:1",
            "ftp://a:1",
            "https://::1:1",
            "https://[10.0.0.1]:1",
            "https://a/b:1",
            "https://u@a:1",
            "https://a:1/x",
            "a:1",
        ] {
            assert!(matches!(bad.parse::<Endpoint>(), Err(InvalidEndpoint::Syntax { .. })), "{bad}");
        }
        // A name may lead anywhere.
        for open in ["http://10.0.0.1:2379", "http://localhost:2379", "http://etcd:2379", "http://[::2]:1"] {
            assert!(matches!(open.parse::<Endpoint>(), Err(InvalidEndpoint::Plain { .. })), "{open}");
        }
    }
}
