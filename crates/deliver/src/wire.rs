//! Octets to and from a peer, with time limits.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use mail::{Clock, Mono};
use net::Stream;
use smtp::client::{Lost, Wait};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::settings::Timeouts;

/// Room for one read.
const READ: usize = 4 << 10;
/// What a peer may say while we are still writing. SMTP's replies to what one write holds are much less.
const AHEAD_MAX: usize = 64 << 10;

/// A connection and what was read from it but not understood yet.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: Stream,
    pub(crate) input: BytesMut,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::with_capacity(READ) }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Writes `output`, if there is any, and reads once.
    pub(crate) async fn exchange(&mut self, output: &mut BytesMut, limit: Duration) -> Result<(), Lost> {
        if !output.is_empty() {
            let written = self.write(output, limit).await;
            output.clear();
            written?;
            if !self.input.is_empty() {
                // The peer answered while we were writing.
                return Ok(());
            }
        }
        self.read(limit).await
    }

    /// Writes all of `octets`. What the peer says meanwhile is kept: a peer that waits for us to read before it reads
    /// on would else wait for ever.
    pub(crate) async fn write(&mut self, octets: &[u8], limit: Duration) -> Result<(), Lost> {
        let mut rest = octets;
        let written = timeout(limit, poll_fn(|cx| self.poll_write(cx, &mut rest))).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                // It may have said why before it hung up.
                let last_words = timeout(Duration::from_secs(1), self.stream.read_buf(&mut self.input)).await;
                tracing::trace!(?last_words, "the connection broke while writing");
                Err(lost(&error))
            }
            Err(_) => Err(Lost::TimedOut(limit)),
        }
    }

    async fn read(&mut self, limit: Duration) -> Result<(), Lost> {
        self.input.reserve(READ);
        match timeout(limit, self.stream.read_buf(&mut self.input)).await {
            Ok(Ok(0)) => Err(Lost::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(lost(&error)),
            Err(_) => Err(Lost::TimedOut(limit)),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, rest: &mut &[u8]) -> Poll<io::Result<()>> {
        loop {
            let stream = Pin::new(&mut self.stream);
            let poll = if rest.is_empty() {
                stream.poll_flush(cx).map_ok(|()| None)
            } else {
                stream.poll_write(cx, rest).map_ok(Some)
            };
            match poll {
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(Some(0))) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(Some(n))) => *rest = &rest[n..],
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_ahead(cx),
            }
        }
    }

    /// Reads what is there while a write waits. Never ready, but for the end.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; 2048];
        while self.input.len() < AHEAD_MAX {
            let mut buffer = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            self.input.extend_from_slice(buffer.filled());
        }
        Poll::Pending
    }

    /// Waits until the peer closes the connection or says something that nobody asked for.
    pub(crate) async fn unasked(&mut self) {
        if self.input.is_empty() {
            self.input.reserve(READ);
            let read = self.stream.read_buf(&mut self.input).await;
            tracing::trace!(?read, "an idle connection is over");
        }
    }

    /// Ends the connection; TLS says so to the peer.
    pub(crate) async fn shut(mut self, limit: Duration) {
        let shut = timeout(limit, self.stream.shutdown()).await;
        tracing::trace!(?shut, "connection closed");
    }
}

fn lost(error: &io::Error) -> Lost {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Lost::Closed,
        _ => Lost::Broken(net::tls_words(error)),
    }
}

/// How long to wait for what. The time for a reply runs from its command, however many octets of it trickle in.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    clock: &'a Clock,
    timeouts: &'a Timeouts,
    begun: Mono,
    waiting: Option<(Wait, u32, Mono)>,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(clock: &'a Clock, timeouts: &'a Timeouts) -> Self {
        Self { clock, timeouts, begun: clock.mono(), waiting: None }
    }

    /// How much longer to wait; `replies` counts what came so far.
    pub(crate) fn left(&mut self, wait: Wait, replies: u32) -> Result<Duration, Lost> {
        let now = self.clock.mono();
        let since = match self.waiting {
            Some((w, r, since)) if (w, r) == (wait, replies) => since,
            _ => now,
        };
        self.waiting = Some((wait, replies, since));
        let whole = self.timeouts.of(wait);
        let mut left = whole.saturating_sub(now.since(since));
        if wait != Wait::Final {
            left = left.min(self.timeouts.envelope.saturating_sub(now.since(self.begun)));
        }
        if left.is_zero() { Err(Lost::TimedOut(whole)) } else { Ok(left) }
    }
}
