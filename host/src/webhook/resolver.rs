//! From names to addresses that may be called.
//!
//! The client connects to the very addresses that were judged here, so a name that resolves to
//! something else a moment later gains nothing.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{address::is_public, target::NotPublic};

/// The system's resolver, without the addresses that may not be called.
pub(super) struct Resolver {
    allow_private: bool,
}

impl Resolver {
    pub(super) fn new(allow_private: bool) -> Resolver {
        Resolver { allow_private }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            // The port is the URL's.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let addresses = callable(name.as_str(), found, allow_private)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn callable(
    name: &str,
    found: Vec<SocketAddr>,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, NotPublic> {
    if allow_private {
        return Ok(found);
    }
    let (public, private): (Vec<SocketAddr>, Vec<SocketAddr>) =
        found.into_iter().partition(|address| is_public(address.ip()));
    match private.first() {
        Some(address) if public.is_empty() => {
            Err(NotPublic::Name { name: name.to_owned(), address: address.ip() })
        }
        _ => Ok(public),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn a_name_that_resolves_to_private_addresses_only_is_refused() {
        let refused = callable("inside.example", of(&["10.0.0.7:0", "[::1]:0"]), false);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("inside.example") && message.contains("10.0.0.7"), "{message}");
    }

    #[test]
    fn only_public_addresses_of_a_name_are_called() {
        let both = of(&["10.0.0.7:0", "8.8.8.8:0"]);
        assert_eq!(callable("both.example", both.clone(), false).unwrap(), of(&["8.8.8.8:0"]));
        assert_eq!(callable("both.example", both.clone(), true).unwrap(), both);
    }

    #[tokio::test]
    async fn the_resolver_of_the_client_refuses_names_of_this_machine() {
        let resolve = |allow| Resolver::new(allow).resolve("localhost".parse().unwrap());
        assert!(resolve(false).await.is_err());
        assert!(resolve(true).await.unwrap().next().is_some());
    }
}
