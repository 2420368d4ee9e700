//! Where keys come from, and how long they count.
//!
//! Keys are fetched before anybody needs them, and again in the background when they are no longer
//! fresh. While the server that publishes them is down they go on counting for a while. A token
//! whose key is not known has them fetched at once. However many callers want that, there is one
//! fetch at a time, and a pause between one and the next: strangers can make up keys as they like.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT, CACHE_CONTROL},
    redirect,
};
use tokio::sync::watch;

use super::{super::refusal::Refusal, key::Keys};
use crate::causes::with_causes;

/// The keys of one server.
#[derive(Debug)]
pub(super) struct Source(Arc<Server>);

#[derive(Debug)]
struct Server {
    url: Url,
    client: Client,
    pace: Pace,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    /// When the last fetch began.
    tried: Option<Instant>,
    is_fetching: bool,
    /// Whether the last fetch failed.
    is_down: bool,
}

#[derive(Debug)]
struct Known {
    keys: Arc<Keys>,
    since: Instant,
    fresh_for: Duration,
}

/// How often keys are fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// At least between the beginnings of two fetches.
    pub(super) pause: Duration,
    /// After which keys are fetched again, unless the server says otherwise.
    pub(super) fresh: Duration,
    /// After which keys that could not be fetched again count no more.
    pub(super) lifetime: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            pause: Duration::from_secs(5),
            // As in codeQ.
            fresh: Duration::from_secs(5 * 60),
            lifetime: Duration::from_secs(60 * 60),
        }
    }
}

/// Larger answers are refused, in bytes.
const LARGEST_DOCUMENT: usize = 512 << 10;

impl Source {
    pub(super) fn new(url: Url, timeout: Duration, pace: Pace) -> Result<Source, String> {
        // One for the process; whoever comes second finds the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder().redirect(redirect::Policy::none()).timeout(timeout);
        if url.scheme() == "http" {
            // So that a machine without authorities will do.
            client = client.tls_certs_only([]);
        }
        let client = client
            .build()
            .map_err(|error| format!("cannot make TLS connections: {}", with_causes(&error)))?;
        let state = watch::Sender::new(State::default());
        Ok(Source(Arc::new(Server { url, client, pace, state })))
    }

    /// The keys, as soon as there are some that count.
    pub(super) async fn keys(&self) -> Result<Arc<Keys>, Refusal> {
        if let Some((keys, is_fresh)) = self.known() {
            if !is_fresh {
                self.fetch();
            }
            return Ok(keys);
        }
        self.fetch();
        self.fetched().await;
        self.known().map(|(keys, _)| keys).ok_or_else(|| self.unavailable())
    }

    /// Other keys than those that were `seen`, if there are any.
    pub(super) async fn newer_than(&self, seen: &Arc<Keys>) -> Result<Option<Arc<Keys>>, Refusal> {
        let newer = || self.known().map(|(keys, _)| keys).filter(|keys| !Arc::ptr_eq(keys, seen));
        if let Some(keys) = newer() {
            return Ok(Some(keys));
        }
        self.fetch();
        self.fetched().await;
        match newer() {
            None if self.0.state.borrow().is_down => Err(self.unavailable()),
            newer => Ok(newer),
        }
    }

    /// Begins a fetch, unless one goes on or has begun a moment ago.
    pub(super) fn fetch(&self) {
        let now = Instant::now();
        let began = self.0.state.send_if_modified(|state| {
            let is_due = state.tried.is_none_or(|tried| now - tried >= self.0.pace.pause);
            let begins = is_due && !state.is_fetching;
            if begins {
                (state.is_fetching, state.tried) = (true, Some(now));
            }
            begins
        });
        if began {
            let server = Arc::clone(&self.0);
            // In a task of its own: whoever wants the keys may hang up, others go on waiting.
            tokio::spawn(async move { server.fetch().await });
        }
    }

    /// Waits for the fetch that goes on.
    async fn fetched(&self) {
        // An error would mean that the sender is gone, and with it this source.
        let _ = self.0.state.subscribe().wait_for(|state| !state.is_fetching).await;
    }

    /// The keys that count, and whether they are fresh.
    fn known(&self) -> Option<(Arc<Keys>, bool)> {
        let state = self.0.state.borrow();
        let known = state.known.as_ref()?;
        let age = known.since.elapsed();
        (age < self.0.pace.lifetime).then(|| (Arc::clone(&known.keys), age < known.fresh_for))
    }

    /// It is worth trying again when the next fetch may begin.
    fn unavailable(&self) -> Refusal {
        let since = self.0.state.borrow().tried.map_or(Duration::ZERO, |tried| tried.elapsed());
        Refusal::Unavailable(self.0.pace.pause.saturating_sub(since).as_secs() + 1)
    }
}

impl Server {
    async fn fetch(&self) {
        let since = Instant::now();
        let fetched = self.get().await;
        self.tell(&fetched);
        self.state.send_modify(|state| {
            state.is_fetching = false;
            state.is_down = fetched.is_err();
            if let Ok((keys, max_age)) = fetched {
                let fresh_for = max_age.map_or(self.pace.fresh, |max_age| {
                    max_age.clamp(self.pace.pause, self.pace.lifetime)
                });
                state.known = Some(Known { keys: Arc::new(keys), since, fresh_for });
            }
        });
    }

    /// The keys, and how long they are fresh if the server says so.
    async fn get(&self) -> Result<(Keys, Option<Duration>), String> {
        let request = self.client.get(self.url.clone()).header(ACCEPT, "application/json");
        let lost = |error: reqwest::Error| with_causes(&error.without_url());
        let mut response = request.send().await.map_err(lost)?;
        if response.status() != StatusCode::OK {
            return Err(format!("the server answers {}", response.status()));
        }
        let max_age = max_age(&response);
        let mut document = Vec::new();
        while let Some(part) = response.chunk().await.map_err(lost)? {
            document.extend_from_slice(&part);
            if document.len() > LARGEST_DOCUMENT {
                return Err(format!("the answer has more than {LARGEST_DOCUMENT} bytes"));
            }
        }
        Ok((Keys::read(&document)?, max_age))
    }

    /// The log tells when the keys cannot be had any more, and when they can again.
    fn tell(&self, fetched: &Result<(Keys, Option<Duration>), String>) {
        let state = self.state.borrow();
        let server = self.url.host_str().unwrap_or_default();
        match fetched {
            Ok((keys, _)) if state.is_down || state.known.is_none() => {
                tracing::info!(
                    server,
                    count = keys.len(),
                    "the keys to check tokens with are there"
                );
            }
            Err(error) if !state.is_down => {
                tracing::warn!(server, error, "the keys to check tokens with cannot be fetched");
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(server, error, "the keys still cannot be fetched"),
        }
    }
}

/// `Cache-Control: max-age=…`
fn max_age(response: &Response) -> Option<Duration> {
    let header = response.headers().get(CACHE_CONTROL)?.to_str().ok()?;
    let mut directives = header.split(',').map(str::trim);
    let seconds = directives.find_map(|directive| directive.strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}"#;

    /// A server of keys, and what it counts.
    #[derive(Default)]
    struct Publisher {
        count: AtomicUsize,
        is_down: AtomicBool,
    }

    impl Publisher {
        async fn start() -> (Arc<Publisher>, Url) {
            let publisher = Arc::new(Publisher::default());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let server = Arc::clone(&publisher);
            tokio::spawn(async move {
                while let Ok((mut connection, _)) = listener.accept().await {
                    server.count.fetch_add(1, Ordering::SeqCst);
                    let _ = connection.read(&mut [0; 4096]).await;
                    if !server.is_down.load(Ordering::SeqCst) {
                        let length = KEYS.len();
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n");
                        let answer = format!("{head}Connection: close\r\n\r\n{KEYS}");
                        let _ = connection.write_all(answer.as_bytes()).await;
                    }
                }
            });
            (publisher, url.parse().unwrap())
        }

        fn count(&self) -> usize {
            self.count.load(Ordering::SeqCst)
        }
    }

    fn source(url: Url, pace: Pace) -> Arc<Source> {
        Arc::new(Source::new(url, Duration::from_secs(5), pace).unwrap())
    }

    const LONG: Duration = Duration::from_secs(3600);
    const PACE: Pace = Pace { pause: Duration::ZERO, fresh: LONG, lifetime: LONG };

    /// Tries again until something is so.
    async fn until(mut ready: impl AsyncFnMut() -> bool) {
        let begun = Instant::now();
        while !ready().await {
            assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn however_many_ask_there_is_one_fetch() {
        let (publisher, url) = Publisher::start().await;
        let source = source(url, Pace { pause: LONG, ..PACE });
        let askers = (0..100).map(|_| {
            let source = Arc::clone(&source);
            tokio::spawn(async move { source.keys().await.unwrap().len() })
        });
        for asker in askers.collect::<Vec<_>>() {
            assert_eq!(asker.await.unwrap(), 1);
        }
        let keys = source.keys().await.unwrap();
        assert!(source.newer_than(&keys).await.unwrap().is_none(), "the pause is not over");
        assert_eq!(publisher.count(), 1);
    }

    #[tokio::test]
    async fn keys_that_are_not_fresh_are_fetched_again_while_they_are_used() {
        let (publisher, url) = Publisher::start().await;
        let source = source(url, Pace { fresh: Duration::ZERO, ..PACE });
        let first = source.keys().await.unwrap();
        until(async || !Arc::ptr_eq(&first, &source.keys().await.unwrap())).await;
        assert!(publisher.count() > 1);
    }

    #[tokio::test]
    async fn keys_outlive_their_server_for_a_while_only() {
        let (publisher, url) = Publisher::start().await;
        let lifetime = Duration::from_secs(2);
        let source = source(url, Pace { fresh: Duration::ZERO, lifetime, ..PACE });
        let keys = source.keys().await.unwrap();
        publisher.is_down.store(true, Ordering::SeqCst);
        source.fetched().await;
        let refusal = until_refused(&source, &keys).await;
        assert!(refusal.is_unavailable(), "{refusal:?}");
        assert!(source.keys().await.is_ok(), "what is known counts");
        until(async || source.keys().await.is_err()).await;
        publisher.is_down.store(false, Ordering::SeqCst);
        until(async || source.keys().await.is_ok()).await;
    }

    async fn until_refused(source: &Source, keys: &Arc<Keys>) -> Refusal {
        let mut keys = Arc::clone(keys);
        loop {
            match source.newer_than(&keys).await {
                Ok(Some(newer)) => keys = newer,
                Ok(None) => {}
                Err(refusal) => return refusal,
            }
        }
    }

    #[tokio::test]
    async fn a_fetch_goes_on_when_whoever_began_it_hangs_up() {
        let (publisher, url) = Publisher::start().await;
        let source = source(url, Pace { pause: LONG, ..PACE });
        let asker = Arc::clone(&source);
        let asker = tokio::spawn(async move { asker.keys().await.map(|_| ()) });
        until(async || source.0.state.borrow().tried.is_some()).await;
        asker.abort();
        assert_eq!(source.keys().await.unwrap().len(), 1);
        assert_eq!(publisher.count(), 1);
    }
}
