//! The URL of a webhook, as far as it can be judged by its text.

use std::{fmt, net::IpAddr};

use reqwest::Url;
use thiserror::Error;
use url::Host;

use super::{address::is_public, authority};

/// A URL that may be called, unless its name resolves to an address that may not.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    url: Url,
    authority: String,
}

/// What is wrong with the URL of a webhook.
#[derive(Debug, Error)]
pub(crate) enum TargetError {
    #[error("it is longer than {LONGEST_URL} bytes")]
    TooLong,
    #[error("it is no absolute http or https URL")]
    NoUrl,
    #[error("it contains a user name or a password")]
    Userinfo,
    #[error("{0}; such webhooks are refused unless webhookAllowPrivate is set")]
    NotPublic(NotPublic),
}

/// A host that is not public.
#[derive(Clone, Debug, Error)]
pub(crate) enum NotPublic {
    #[error("its address {0} is not public")]
    Address(IpAddr),
    #[error("`{0}` is this machine")]
    ThisMachine(String),
    #[error("`{name}` resolves to {address}, which is not public")]
    Name { name: String, address: IpAddr },
}

/// Longer URLs are no webhooks.
const LONGEST_URL: usize = 2048;

impl Target {
    /// Reads a URL.
    pub(super) fn parse(text: &str, allow_private: bool) -> Result<Target, TargetError> {
        if text.len() > LONGEST_URL {
            return Err(TargetError::TooLong);
        }
        let url = Url::parse(text).map_err(|_| TargetError::NoUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetError::NoUrl);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Userinfo);
        }
        // Other spellings of addresses, such as 0x7f.1 or 2130706433, are addresses by now.
        let address = match url.host() {
            None => return Err(TargetError::NoUrl),
            Some(Host::Domain(name)) => {
                if !allow_private && is_this_machine(name) {
                    let name = name.to_owned();
                    return Err(TargetError::NotPublic(NotPublic::ThisMachine(name)));
                }
                None
            }
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        };
        if let Some(address) = address.filter(|address| !allow_private && !is_public(*address)) {
            return Err(TargetError::NotPublic(NotPublic::Address(address)));
        }
        let authority = authority(&url);
        Ok(Target { url, authority })
    }

    /// The URL.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The receiver: its host and port.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }
}

/// The receiver, without the path, which may contain a secret.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

fn is_this_machine(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str) -> Option<String> {
        Target::parse(url, false).err().map(|error| error.to_string())
    }

    #[test]
    fn http_urls_of_public_hosts_are_webhooks() {
        for url in [
            "https://example.org/done?token=x#part",
            "http://example.org:8080",
            "HTTPS://EXAMPLE.org",
            "http://8.8.8.8/",
            "http://[2606:4700:4700::1111]:80/x",
            "https://bücher.example/",
        ] {
            assert_eq!(problem(url), None, "{url}");
        }
    }

    #[test]
    fn the_receiver_is_named_by_host_and_port() {
        let authority = |url| Target::parse(url, false).unwrap().authority().to_owned();
        assert_eq!(authority("https://Example.org/a"), "example.org:443");
        assert_eq!(authority("http://example.org:81/b"), "example.org:81");
        assert_eq!(authority("http://[2606:4700::1]/"), "[2606:4700::1]:80");
    }

    #[test]
    fn what_is_no_http_url_is_no_webhook() {
        for url in ["", "nowhere", "/done", "//example.org", "ftp://a/b", "http://", "https:///"] {
            assert!(problem(url).is_some(), "{url}");
        }
        assert!(problem(&format!("http://example.org/{}", "a".repeat(3000))).is_some());
    }

    #[test]
    fn logins_are_refused() {
        for url in ["http://me@example.org", "http://:secret@example.org", "http://a:b@8.8.8.8"] {
            assert!(problem(url).unwrap().contains("user name"), "{url}");
        }
    }

    #[test]
    fn addresses_that_are_not_public_are_refused_however_they_are_spelled() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0x7f.0.0.1:8080/",
            "http://１２７.0.0.1/",
            "http://0/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[64:ff9b::10.0.0.1]/",
            "http://169.254.169.254/latest/meta-data",
            "http://10.0.0.1/",
            "http://[fe80::1]/",
        ] {
            let problem = problem(url).unwrap_or_else(|| panic!("{url} is allowed"));
            assert!(problem.contains("webhookAllowPrivate"), "{url}: {problem}");
            assert!(Target::parse(url, true).is_ok(), "{url}");
        }
    }

    #[test]
    fn names_of_this_machine_are_refused() {
        for url in ["http://localhost", "http://LocalHost.:80/", "http://a.localhost/"] {
            assert!(problem(url).unwrap().contains("this machine"), "{url}");
            assert!(Target::parse(url, true).is_ok(), "{url}");
        }
    }
}
