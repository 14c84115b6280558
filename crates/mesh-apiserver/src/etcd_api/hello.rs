//! Whether a client has begun to speak: until then nobody knows which HTTP it is, and nothing else ends the connection.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that notes how much was read at its beginning.
#[derive(Debug)]
pub(super) struct Heard<I> {
    io: I,
    /// Counted until it is [`SHORTEST_REQUEST`].
    read: usize,
    hello: Hello,
}

/// How much the client has said, as far as it matters.
#[derive(Clone, Debug, Default)]
pub(super) struct Hello {
    read: Arc<AtomicUsize>,
}

/// A connection, and what tells whether its client has begun to speak.
pub(super) fn heard<I>(io: I) -> (Heard<I>, Hello) {
    let hello = Hello::default();
    (Heard { io, read: 0, hello: hello.clone() }, hello)
}

impl Hello {
    /// Returns after this time if the client has said too little until then to be HTTP/2 or a request of HTTP/1.1. If it
    /// has said enough, never.
    pub(super) async fn missing(&self, time: Duration) {
        tokio::time::sleep(time).await;
        if self.read.load(Ordering::Relaxed) >= SHORTEST_REQUEST {
            std::future::pending::<()>().await;
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Heard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if self.read < SHORTEST_REQUEST {
            self.read += buffer.filled().len() - before;
            self.hello.read.store(self.read, Ordering::Relaxed);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Heard<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`, which HTTP/2 begins with, has 24 bytes; no request of HTTP/1.1 with the compulsory
/// `Host` is shorter (RFC 9112, section 3.2).
const SHORTEST_REQUEST: usize = 24;
