//! Callers of a host that asks for no tokens: programs of the same machine.
//!
//! A browser on that machine is one of them, and what it sends may come from any page that it shows.
//! It says from which page a request comes, and a page that got here by a name of its own, which was
//! made to mean this machine, gives itself away by that name.

use std::net::IpAddr;

use axum::http::{
    HeaderMap, HeaderValue,
    header::{HOST, ORIGIN},
};
use reqwest::Url;

use super::{super::error::ApiError, caller::Caller};

/// The one caller that there is, unless the request is that of a web page from elsewhere.
pub(super) fn caller(headers: &HeaderMap) -> Result<Caller, ApiError> {
    if headers.get(ORIGIN).is_some_and(|origin| !is_local_page(origin)) {
        return Err(ApiError::forbidden("web pages from elsewhere are served with tokens only"));
    }
    if headers.get(HOST).is_some_and(is_public_name) {
        return Err(ApiError::forbidden(
            "without tokens the host is served as localhost or by an address only",
        ));
    }
    Ok(Caller::local())
}

fn is_local_page(origin: &HeaderValue) -> bool {
    let url = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
    url.as_ref().and_then(Url::host_str).is_some_and(|host| {
        is_localhost(host) || address(host).is_some_and(|address| address.is_loopback())
    })
}

/// Names of the public DNS have a dot.
fn is_public_name(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.').contains('.') && !is_localhost(name) && address(name).is_none()
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_served(name: axum::http::HeaderName, value: &'static str) -> bool {
        caller(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))])).is_ok()
    }

    #[test]
    fn programs_and_pages_of_this_machine_are_served() {
        assert!(caller(&HeaderMap::new()).is_ok());
        for host in
            ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]", "devbox", "a.localhost"]
        {
            assert!(is_served(HOST, host), "{host}");
        }
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]",
            "http://app.localhost",
        ] {
            assert!(is_served(ORIGIN, origin), "{origin}");
        }
    }

    #[test]
    fn pages_from_elsewhere_are_not() {
        for host in [
            "evil.example:8080",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example.",
        ] {
            assert!(!is_served(HOST, host), "{host}");
        }
        for origin in [
            "https://evil.example",
            "null",
            "http://192.168.0.1",
            "http://localhost.evil.example",
            "file://",
        ] {
            assert!(!is_served(ORIGIN, origin), "{origin}");
        }
    }
}
