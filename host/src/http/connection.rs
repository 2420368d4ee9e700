//! One connection: what it is doing, and whether its caller is still there.
//!
//! A connection costs memory for as long as it is open, so each has to make progress: a request has
//! to arrive in time, an answer has to be taken in time, and between two requests there is only so
//! much time. [`Connection`] keeps the times, [`Watched`] is the socket that tells it what passes,
//! and [`Peer`] tells a request's handler when its caller has left.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use rustix::{
    io::Errno,
    net::{Shutdown, shutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::sleep,
};

/// How long each step of a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From a request's first byte to the end of its head, and between two parts of an answer that
    /// the caller takes in.
    pub(super) step: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
}

impl Limits {
    /// How often it is worth a look whether a limit has passed.
    pub(super) fn tick(&self) -> Duration {
        (self.step.min(self.idle) / 4).clamp(Duration::from_millis(50), Duration::from_secs(5))
    }
}

/// How long the rest of a request's head may take when the host stops.
const LAST_HEAD: Duration = Duration::from_secs(1);

/// An open connection.
pub(super) struct Connection {
    stream: TcpStream,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Requests whose answers are not written yet.
    in_flight: usize,
    /// When the last request ended, or the connection began.
    idle_since: Instant,
    /// When the first byte of the next request arrived.
    head_since: Option<Instant>,
    /// Since when the caller takes nothing of what he is sent.
    stalled_since: Option<Instant>,
    /// Answers of which there is more to take, and when a part of any was taken last. A caller may
    /// have the host hold back what the socket would take.
    answers: usize,
    answers_moved: Instant,
    /// Whether what arrives between two requests need not be the beginning of one.
    carries_many: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Arc<Connection> {
        let progress = Progress {
            in_flight: 0,
            idle_since: Instant::now(),
            head_since: None,
            stalled_since: None,
            answers: 0,
            answers_moved: Instant::now(),
            carries_many: false,
        };
        Arc::new(Connection { stream, progress: Mutex::new(progress) })
    }

    /// A request has arrived, on a connection that may carry `many` at a time. It ends when what
    /// this answers is dropped.
    pub(super) fn begin(self: &Arc<Self>, many: bool) -> InFlight {
        let mut progress = self.progress();
        progress.in_flight += 1;
        progress.head_since = None;
        progress.carries_many = many;
        InFlight(Arc::clone(self))
    }

    /// Whether a step has taken longer than it may.
    pub(super) fn is_late(&self, limits: &Limits) -> bool {
        let progress = self.progress();
        let late =
            |since: Option<Instant>, limit| since.is_some_and(|since| since.elapsed() > limit);
        let idle_since = (progress.in_flight == 0).then_some(progress.idle_since);
        let untaken_since = (progress.answers > 0).then_some(progress.answers_moved);
        late(progress.stalled_since, limits.step)
            || late(untaken_since, limits.step)
            || late(progress.head_since, limits.step)
            || late(idle_since, limits.idle)
    }

    /// Whether all that there is, for a while, is a part of a request's head.
    pub(super) fn has_only_begun(&self) -> bool {
        let progress = self.progress();
        progress.in_flight == 0
            && progress.head_since.is_some_and(|since| since.elapsed() > LAST_HEAD)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers_moved(&self, count: impl FnOnce(&mut usize)) {
        let mut progress = self.progress();
        count(&mut progress.answers);
        progress.answers_moved = Instant::now();
    }

    fn has_read(&self) {
        let mut progress = self.progress();
        if progress.in_flight == 0 && !progress.carries_many {
            progress.head_since.get_or_insert_with(Instant::now);
        }
    }

    fn has_written<T>(&self, written: &Poll<T>) {
        let mut progress = self.progress();
        match written {
            Poll::Ready(_) => progress.stalled_since = None,
            Poll::Pending => {
                progress.stalled_since.get_or_insert_with(Instant::now);
            }
        }
    }
}

/// A request that is under way.
pub(super) struct InFlight(Arc<Connection>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut progress = self.0.progress();
        progress.in_flight -= 1;
        progress.idle_since = Instant::now();
    }
}

/// An answer's body; its request is under way until all of it is written.
pub(super) struct Answer {
    body: Body,
    in_flight: InFlight,
}

impl Answer {
    pub(super) fn new(body: Body, in_flight: InFlight) -> Answer {
        in_flight.0.answers_moved(|answers| *answers += 1);
        Answer { body, in_flight }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.in_flight.0.answers_moved(|answers| *answers -= 1);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            self.in_flight.0.answers_moved(|_| {});
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The caller of a request.
#[derive(Clone)]
pub(crate) struct Peer(Option<Arc<Connection>>);

/// How long to wait before another look at a caller who has sent more meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Peer {
    pub(super) fn of(connection: &Arc<Connection>) -> Peer {
        Peer(Some(Arc::clone(connection)))
    }

    /// A caller who cannot leave.
    pub(super) fn unknown() -> Peer {
        Peer(None)
    }

    /// Resolves when the caller sends no more. He may have left altogether, or only have said that
    /// this was all: TCP does not tell the one from the other.
    pub(crate) async fn left(self) {
        let Some(connection) = self.0 else { return std::future::pending().await };
        let stream = &connection.stream;
        loop {
            match stream.peek(&mut [0]).await {
                Ok(0) | Err(_) => return,
                // The next request, or the end of TLS, behind which he may have left.
                Ok(_) => match stream.ready(Interest::READABLE).await {
                    Ok(ready) if !ready.is_read_closed() => sleep(LOOK_AGAIN).await,
                    Ok(_) | Err(_) => return,
                },
            }
        }
    }
}

/// The socket of a connection.
pub(super) struct Watched(pub(super) Arc<Connection>);

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Watched(connection) = &*self;
        loop {
            ready!(connection.stream.poll_read_ready(context))?;
            match connection.stream.try_read_buf(buffer) {
                Ok(read) => {
                    if read > 0 {
                        connection.has_read();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Watched {
    fn write(
        &self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let Watched(connection) = self;
        let written = loop {
            match connection.stream.poll_write_ready(context) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            match write(&connection.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break Poll::Ready(result),
            }
        };
        connection.has_written(&written);
        written
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A caller who has left already is no failure.
        Poll::Ready(match shutdown(&self.0.stream, Shutdown::Write) {
            Err(Errno::NOTCONN) => Ok(()),
            result => result.map_err(Into::into),
        })
    }
}
