//! One HTTP/2 connection with one call at a time: as much of RFC 9113 as a load generator needs, and no more.
//!
//! The servers share the machine with the generator, so what the generator spends on each event counts: a thousand
//! of these watch at once, and each reads frames in place, grants all of the window at the start and decodes no
//! header. The TLS below is the one that agents use.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, BytesMut};
use kvstore::proto::Message;
use pki::client::{Connector, TlsStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where to connect and how to prove who we are; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Address of the server.
    pub(super) address: SocketAddr,
    /// Makes the TLS streams.
    pub(super) connector: Arc<Connector>,
    /// The name that the server's certificate must carry.
    pub(super) name: Arc<str>,
}

/// A connection and the state of its current call.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    authority: Arc<str>,
    /// Frames that are not whole yet.
    input: BytesMut,
    /// Frames that the server is owed.
    output: Vec<u8>,
    /// Messages of the current call, each with its gRPC prefix.
    body: BytesMut,
    /// How much of `body` was given out.
    taken: usize,
    /// Stream id of the current call; 0 before the first.
    call: u32,
    ended: bool,
    /// Bytes that the server still takes on the connection.
    send_window: usize,
    /// Bytes that it has sent of the window it was given.
    received: usize,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug)]
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Connection {
    /// Connects, with TLS, and sends what a client begins with.
    pub(super) async fn open(target: &Target) -> Result<Self> {
        let tcp = TcpStream::connect(target.address).await.context("connect")?;
        tcp.set_nodelay(true).context("set TCP_NODELAY")?;
        let (stream, _identity) = target.connector.connect(&target.name, tcp).await?;
        let mut output = Vec::from(PREFACE);
        frame(&mut output, SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff]);
        let increment = u32::try_from(MAX_WINDOW - FIRST_WINDOW).context("window")?;
        frame(&mut output, WINDOW_UPDATE, 0, 0, &increment.to_be_bytes());
        let mut connection = Self {
            stream,
            authority: target.name.clone(),
            input: BytesMut::with_capacity(READ),
            output,
            body: BytesMut::new(),
            taken: 0,
            call: 0,
            ended: true,
            send_window: FIRST_WINDOW,
            received: 0,
        };
        connection.flush().await?;
        Ok(connection)
    }

    /// Calls a unary method and gives the answer's bytes. Fails if the server answers with an error.
    pub(super) async fn unary(&mut self, path: &str, request: &impl Message) -> Result<&[u8]> {
        self.send(path, request, END_STREAM).await?;
        self.message().await.with_context(|| format!("call {path}"))
    }

    /// Begins a call whose request stream stays open. Forgets the call before.
    pub(super) async fn stream(&mut self, path: &str, first: &impl Message) -> Result<()> {
        self.send(path, first, 0).await
    }

    /// The next message of the current call. Waits as long as it takes.
    pub(super) async fn message(&mut self) -> Result<&[u8]> {
        self.body.advance(std::mem::take(&mut self.taken));
        let length = loop {
            if let Some(length) = self.whole_message()? {
                break length;
            }
            ensure!(!self.ended, "the server ended the call without an answer (an error of its own)");
            self.fill().await?;
        };
        self.taken = GRPC_PREFIX + length;
        self.body.get(GRPC_PREFIX..self.taken).context("a whole message")
    }

    fn whole_message(&self) -> Result<Option<usize>> {
        let Some(prefix) = self.body.first_chunk::<GRPC_PREFIX>() else { return Ok(None) };
        let [compressed, a, b, c, d] = *prefix;
        ensure!(compressed == 0, "a compressed message, although none was asked for");
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).context("length of a message")?;
        Ok((self.body.len() >= GRPC_PREFIX + length).then_some(length))
    }

    async fn send(&mut self, path: &str, request: &impl Message, end: u8) -> Result<()> {
        self.call = if self.call == 0 { 1 } else { self.call + 2 };
        self.ended = false;
        self.body.clear();
        self.taken = 0;
        let mut message = Vec::with_capacity(GRPC_PREFIX + request.encoded_len());
        message.put_u8(0);
        message.put_u32(u32::try_from(request.encoded_len()).context("length of a request")?);
        request.encode(&mut message).context("encode a request")?;
        ensure!(message.len() <= FIRST_WINDOW, "a request of {} bytes", message.len());
        while self.send_window < message.len() {
            self.fill().await?;
        }
        self.send_window -= message.len();
        frame(&mut self.output, HEADERS, END_HEADERS, self.call, &request_headers(path, &self.authority)?);
        let mut chunks = message.chunks(MAX_FRAME).peekable();
        while let Some(chunk) = chunks.next() {
            let flags = if chunks.peek().is_none() { end } else { 0 };
            frame(&mut self.output, DATA, flags, self.call, chunk);
        }
        self.flush().await
    }

    /// Reads what has come, at least one byte, and answers what must be answered.
    async fn fill(&mut self) -> Result<()> {
        self.input.reserve(READ);
        let read = self.stream.read_buf(&mut self.input).await.context("read from the server")?;
        ensure!(read > 0, "the server closed the connection");
        while self.digest()? {}
        self.flush().await
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await.context("write to the server")?;
            self.stream.flush().await.context("write to the server")?;
            self.output.clear();
        }
        Ok(())
    }

    /// Takes one frame out of the input; false if there is no whole one.
    fn digest(&mut self) -> Result<bool> {
        let Some(header) = FrameHeader::read(&self.input) else { return Ok(false) };
        let whole = FRAME_HEADER + header.length;
        let Some(payload) = self.input.get(FRAME_HEADER..whole) else { return Ok(false) };
        let ours = header.stream == self.call;
        match header.kind {
            DATA => {
                ensure!(header.flags & PADDED == 0, "a padded frame");
                self.received += header.length;
                ensure!(self.received <= MAX_WINDOW, "more than the {MAX_WINDOW} bytes of the window");
                if ours {
                    self.body.extend_from_slice(payload);
                    self.ended |= header.flags & END_STREAM != 0;
                }
            }
            HEADERS if ours => self.ended |= header.flags & END_STREAM != 0,
            RST_STREAM if ours => self.ended = true,
            GOAWAY => bail!("the server said goodbye: {}", String::from_utf8_lossy(payload)),
            SETTINGS if header.flags & ACK == 0 => frame(&mut self.output, SETTINGS, ACK, 0, &[]),
            PING if header.flags & ACK == 0 => frame(&mut self.output, PING, ACK, 0, payload),
            WINDOW_UPDATE if header.stream == 0 => {
                let increment = payload.first_chunk().copied().map_or(0, u32::from_be_bytes);
                self.send_window += usize::try_from(increment).context("window")?;
            }
            _ => {}
        }
        self.input.advance(whole);
        Ok(true)
    }
}

impl FrameHeader {
    fn read(input: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, s, t, u, v] = *input.first_chunk::<FRAME_HEADER>()?;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        Some(Self { length, kind, flags, stream: u32::from_be_bytes([s, t, u, v]) & 0x7fff_ffff })
    }
}

fn frame(output: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    output.put_uint(payload.len() as u64, 3);
    output.put_slice(&[kind, flags]);
    output.put_u32(stream);
    output.put_slice(payload);
}

/// The headers of a gRPC call in HPACK (RFC 7541): indexed or literal, never entered into the table.
fn request_headers(path: &str, authority: &str) -> Result<Vec<u8>> {
    // :method POST and :scheme https are entries 3 and 7 of the static table.
    let mut block = vec![0x83, 0x87];
    let mut literal = |name: &[u8], value: &str| -> Result<()> {
        block.put_slice(name);
        block.put_u8(u8::try_from(value.len()).ok().filter(|length| *length < 127).context("long header")?);
        block.put_slice(value.as_bytes());
        Ok(())
    };
    // Entries 4 (:path), 1 (:authority) and 31 (content-type) lend their names.
    literal(&[0x04], path)?;
    literal(&[0x01], authority)?;
    literal(&[0x0f, 0x10], "application/grpc")?;
    literal(b"\x00\x02te", "trailers")?;
    Ok(block)
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const GRPC_PREFIX: usize = 5;
/// The window of both sides before anything is said (RFC 9113, section 6.9.2).
const FIRST_WINDOW: usize = 65_535;
const MAX_WINDOW: usize = 0x7fff_ffff;
/// The longest frame that every peer takes; gRPC clients in Go ask for no more.
const MAX_FRAME: usize = 16_384;
const READ: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back() {
        let mut bytes = Vec::new();
        frame(&mut bytes, DATA, END_STREAM, 5, &[7; 300]);
        let header = FrameHeader::read(&bytes).expect("a whole header");
        assert_eq!((header.length, header.kind, header.flags, header.stream), (300, DATA, END_STREAM, 5));
        assert_eq!(bytes.len(), FRAME_HEADER + 300);
        assert!(FrameHeader::read(&bytes[..8]).is_none());
    }

    #[test]
    fn a_header_that_needs_a_longer_length_is_refused() {
        assert!(request_headers(&"x".repeat(127), "hub").is_err());
        let block = request_headers("/etcdserverpb.KV/Range", "hub").expect("short");
        assert!(block.starts_with(b"\x83\x87\x04\x16/etcdserverpb.KV/Range\x01\x03hub"), "{block:?}");
    }
}
