//! Where a server listens.

use std::fmt;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// A name or an IP address, that without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Reads `host:port`, an IPv6 address in brackets.
    pub(crate) fn parse(text: &str) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let plain = !host.is_empty() && !host.contains(['/', '@', ' ']);
        let unbracketed_ipv6 = bracketed.is_none() && host.contains(':');
        (plain && !unbracketed_ipv6).then(|| Address { host: host.to_owned(), port })
    }

    /// Reads where a node of a cluster says that another one is, without brackets; `node` is where it is
    /// itself, as it leaves out a host that it does not know.
    pub(crate) fn redirected(text: &str, node: &Address) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if matches!(host, "" | "?") { &node.host } else { host };
        Some(Address { host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let address = Address::parse("[::1]:6379").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("::1", 6379));
        assert_eq!(address.to_string(), "[::1]:6379");
    }

    #[test]
    fn a_redirect_has_no_brackets_and_perhaps_no_host() {
        let node = Address { host: "h".into(), port: 1 };
        let to = |text| Address::redirected(text, &node).unwrap().to_string();
        assert_eq!(
            [to("::1:7000"), to("10.0.0.1:7"), to(":7")],
            ["[::1]:7000", "10.0.0.1:7", "h:7"]
        );
    }

    #[test]
    fn what_is_not_a_host_and_a_port_is_no_address() {
        for text in ["", "h", "h:", ":1", "h:99999", "h:0", "redis://h:1", "::1:6379", "u@h:1"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
