//! Taking connections, as many as there may be, and ending them: those that are too slow, those
//! that nobody uses, and all of them when the host stops.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, http::Version};
use hyper::{Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{interval, sleep, timeout},
};
use tower::ServiceExt;

use super::{
    connection::{Answer, Connection, Limits, Peer, Watched},
    tls::{Identity, TlsError},
};
use crate::{config, metrics::Metrics};

/// The largest head of a request, in bytes.
const LARGEST_HEAD: usize = 64 * 1024;
/// The same for HTTP/2, where it is counted otherwise.
const LARGEST_FIELDS: u32 = 64 * 1024;
/// The most fields in it.
const MOST_FIELDS: usize = 100;
/// The most requests at a time on one HTTP/2 connection.
const MOST_STREAMS: u32 = 250;
/// How long to wait when the system has no more connections to give.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(500);
/// Files that are open beside connections: the store's, the plugins', webhooks' and the log's.
const OTHER_FILES: u64 = 512;

/// A socket that takes connections, and how it takes them.
pub struct Listener {
    socket: TcpListener,
    identity: Option<Identity>,
    limits: Limits,
    max_connections: usize,
}

impl Listener {
    /// Listens on an address.
    ///
    /// # Errors
    ///
    /// If the address cannot be had.
    pub async fn bind(address: SocketAddr, secured: Secured) -> io::Result<Listener> {
        let Secured { identity, settings } = secured;
        allow_files(settings.max_connections);
        Ok(Listener {
            socket: TcpListener::bind(address).await?,
            identity,
            limits: Limits { step: settings.request_timeout, idle: settings.idle_timeout },
            max_connections: settings.max_connections,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.identity.is_some()
    }

    /// Serves until `stop` resolves and `begin_stop` was called; then takes no more connections and
    /// resolves when the last one has ended.
    pub(super) async fn serve(
        self,
        routes: Router,
        metrics: &Metrics,
        stop: impl Future<Output = ()>,
        begin_stop: impl FnOnce(),
    ) {
        let places = Arc::new(Semaphore::new(self.max_connections));
        let (stopping, _) = watch::channel(());
        let mut stop = pin!(stop);
        {
            let mut renewal = pin!(async {
                match &self.identity {
                    Some(identity) => identity.renew().await,
                    None => std::future::pending().await,
                }
            });
            loop {
                let taken = tokio::select! {
                    () = &mut stop => break,
                    () = &mut renewal => continue,
                    taken = self.take(&places) => taken,
                };
                let Some((stream, place)) = taken else { continue };
                let acceptor = self.identity.as_ref().map(Identity::acceptor);
                let (routes, limits) = (routes.clone(), self.limits);
                let mut stopped = stopping.subscribe();
                let open = metrics.connection();
                tokio::spawn(async move {
                    let (_place, _open) = (place, open);
                    let stopped = async move {
                        // It is never sent to: its end is what tells.
                        while stopped.changed().await.is_ok() {}
                    };
                    let connection = Connection::new(stream);
                    let socket = Watched(Arc::clone(&connection));
                    match acceptor {
                        None => attend(&connection, socket, routes, limits, stopped).await,
                        Some(acceptor) => {
                            let mut stopped = pin!(stopped);
                            let accepted = tokio::select! {
                                accepted = timeout(limits.step, acceptor.accept(socket)) => accepted,
                                () = &mut stopped => return,
                            };
                            match accepted {
                                Ok(Ok(socket)) => {
                                    attend(&connection, socket, routes, limits, stopped).await;
                                }
                                Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
                                Err(_) => tracing::debug!("no TLS in time"),
                            }
                        }
                    }
                });
            }
        }
        begin_stop();
        drop(self.socket);
        drop(stopping);
        // Every connection gives its place back when it ends.
        let all = u32::try_from(self.max_connections).unwrap_or(u32::MAX);
        drop(places.acquire_many(all).await);
    }

    /// The next connection, with its place.
    async fn take(
        &self,
        places: &Arc<Semaphore>,
    ) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        // It is never closed.
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        match self.socket.accept().await {
            Ok((stream, _)) => {
                // Small answers go out at once instead of waiting for more to send.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot send without delay");
                }
                Some((stream, place))
            }
            Err(error) if is_of_one_connection(&error) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot take connections; trying again");
                sleep(EXHAUSTED_PAUSE).await;
                None
            }
        }
    }
}

/// A caller who left before he was let in is no failure of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The settings of a listener, its certificate read.
pub struct Secured {
    identity: Option<Identity>,
    settings: config::Listener,
}

impl Secured {
    /// Reads the certificate that the settings name, if they name one.
    ///
    /// # Errors
    ///
    /// If it cannot be used.
    pub fn new(settings: &config::Listener) -> Result<Secured, TlsError> {
        let identity = settings.tls.as_ref().map(Identity::load).transpose()?;
        Ok(Secured { identity, settings: settings.clone() })
    }
}

/// Serves one connection to its end.
async fn attend(
    connection: &Arc<Connection>,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    limits: Limits,
    stopped: impl Future<Output = ()>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        let is_h2 = request.version() == Version::HTTP_2;
        let in_flight = connection.begin(is_h2);
        // A caller who leaves cancels a stream of HTTP/2, of which the handler hears by itself.
        if !is_h2 {
            request.extensions_mut().insert(Peer::of(connection));
        }
        let answer = routes.clone().oneshot(request);
        async move {
            let answer: Response<Body> = answer.await?;
            Ok::<_, Infallible>(answer.map(|body| Answer::new(body, in_flight)))
        }
    });
    let server = builder();
    let mut served = pin!(server.serve_connection(TokioIo::new(socket), service));
    let mut stopped = pin!(stopped);
    let mut look = interval(limits.tick());
    let (mut is_stopping, mut is_ending) = (false, false);
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a connection broke off");
                }
                return;
            }
            () = &mut stopped, if !is_stopping => {
                is_stopping = true;
                served.as_mut().graceful_shutdown();
            }
            _ = look.tick() => match (connection.is_late(&limits), is_ending) {
                (false, _) if is_stopping && connection.has_only_begun() => return,
                (false, _) => {}
                (true, false) => {
                    is_ending = true;
                    served.as_mut().graceful_shutdown();
                }
                // It was told, and had time to go.
                (true, true) => {
                    tracing::debug!("gave up a connection on which nothing moves");
                    return;
                }
            },
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // A connection's own clock knows a slow request from none at all.
        .header_read_timeout(None)
        .max_buf_size(LARGEST_HEAD)
        .max_headers(MOST_FIELDS)
        // Who has said all he had to say still gets his answer.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(LARGEST_FIELDS);
    builder
}

/// Lets the process open as many files as it has connections, as far as the system allows.
fn allow_files(connections: usize) {
    let wanted = connections as u64 + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
    let allowed = if raised.is_ok() { Some(allowed) } else { current };
    if let Some(allowed) = allowed.filter(|allowed| *allowed < wanted) {
        tracing::warn!(
            connections,
            open_files = allowed,
            "the system lets this process open fewer files than maxConnections takes; raise its limit (ulimit -n, LimitNOFILE)"
        );
    }
}
