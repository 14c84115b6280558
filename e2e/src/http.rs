//! As much HTTP/1.1 as the pods need: GET with a small answer, on connections that may stay open. Bounded on both sides.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Most bytes of a request line or of one header line.
const LINE_LIMIT: u64 = 8 * 1024;
/// Most header lines of one message.
const HEADER_LIMIT: usize = 64;
/// Most bytes of an answer's body (a node's whole map image is below this).
const BODY_LIMIT: u64 = 64 * 1024 * 1024;

/// Most time for a whole page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// An `http://` address without names: the lab has no DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Where to connect.
    pub address: SocketAddr,
    /// What to ask for, beginning with a slash.
    pub path: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

impl FromStr for Url {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let rest = text
            .strip_prefix("http://")
            .with_context(|| format!("{text}: expected http://ADDRESS[:PORT][/PATH]"))?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let with_port = if authority.ends_with(']') || !authority.contains(':') {
            format!("{authority}:80")
        } else {
            authority.to_owned()
        };
        let address = with_port
            .parse()
            .with_context(|| format!("{text}: {authority} is not an IP address with or without port"))?;
        Ok(Self { address, path: path.to_owned() })
    }
}

/// A page as text, asked for on a connection of its own; fails unless it is answered with 200 within ten seconds.
pub async fn page(address: SocketAddr, path: &str) -> Result<String> {
    let url = Url { address, path: path.to_owned() };
    let ask = async {
        let stream = TcpStream::connect(address).await.context("connect")?;
        get(&mut BufStream::new(stream), &url, false).await
    };
    let answer = timeout(PAGE_TIMEOUT, ask).await.with_context(|| format!("{path}: no answer"))??;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(answer.status == 200, "{path}: {} {text}", answer.status);
    Ok(text)
}

/// Asks for a path and reads the answer. With `keep_alive` the connection can be used again afterwards.
pub async fn get<S>(stream: &mut S, url: &Url, keep_alive: bool) -> Result<Response>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let Url { address, path } = url;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("send request")?;
    stream.flush().await.context("send request")?;
    let status_line = read_line(stream).await.context("read status line")?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status =
        status.with_context(|| format!("status line {status_line:?}: expected HTTP/1.1 and a code"))?;
    let mut length = None;
    let mut chunked = false;
    for (name, value) in read_headers(stream).await? {
        match name.as_str() {
            "content-length" => {
                length = Some(value.parse::<u64>().with_context(|| format!("content-length {value:?}"))?);
            }
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let body = match (chunked, length) {
        (true, _) => read_chunks(stream).await?,
        (false, Some(length)) => read_exactly(stream, length).await?,
        (false, None) => {
            let mut body = Vec::new();
            stream.take(BODY_LIMIT).read_to_end(&mut body).await.context("read body")?;
            body
        }
    };
    Ok(Response { status, body })
}

/// Reads one request and gives its path and whether the client wants the connection kept; `None` if it closed.
pub async fn read_request<S>(stream: &mut S) -> Result<Option<(String, bool)>>
where
    S: AsyncBufRead + Unpin,
{
    let line = read_line(stream).await.context("read request line")?;
    if line.is_empty() {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (Some("GET"), Some(path)) = (words.next(), words.next()) else {
        bail!("request line {line:?}: expected GET and a path");
    };
    let path = path.to_owned();
    let headers = read_headers(stream).await?;
    let close =
        headers.iter().any(|(name, value)| name == "connection" && value.eq_ignore_ascii_case("close"));
    Ok(Some((path, !close)))
}

/// Sends an answer with a JSON body.
pub async fn respond<S>(stream: &mut S, status: u16, body: &[u8], keep_alive: bool) -> Result<()>
where
    S: AsyncWrite + Unpin,
{
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let reason = if status == 200 { "OK" } else { "Error" };
    let mut message = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    message.extend_from_slice(body);
    stream.write_all(&message).await.context("send answer")?;
    stream.flush().await.context("send answer")
}

async fn read_line<S: AsyncBufRead + Unpin>(stream: &mut S) -> Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_LIMIT).read_until(b'\n', &mut line).await.context("read")?;
    ensure!(line.is_empty() || line.ends_with(b"\n"), "line of {} bytes without an end", line.len());
    while line.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
        line.pop();
    }
    String::from_utf8(line).context("line is not text")
}

async fn read_headers<S: AsyncBufRead + Unpin>(stream: &mut S) -> Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    for _ in 0..=HEADER_LIMIT {
        let line = read_line(stream).await.context("read header")?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) =
            line.split_once(':').with_context(|| format!("header {line:?}: expected a colon"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    bail!("more than {HEADER_LIMIT} headers")
}

async fn read_exactly<S: AsyncRead + Unpin>(stream: &mut S, length: u64) -> Result<Vec<u8>> {
    ensure!(length <= BODY_LIMIT, "body of {length} bytes, at most {BODY_LIMIT} are read");
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body).await.context("read body")?;
    ensure!(body.len() as u64 == length, "body ended after {} of {length} bytes", body.len());
    Ok(body)
}

async fn read_chunks<S: AsyncBufRead + Unpin>(stream: &mut S) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream).await.context("read chunk length")?;
        let length = u64::from_str_radix(&line, 16).with_context(|| format!("chunk length {line:?}"))?;
        ensure!(length <= BODY_LIMIT - body.len() as u64, "body longer than {BODY_LIMIT} bytes");
        body.extend(read_exactly(stream, length).await?);
        ensure!(read_line(stream).await?.is_empty(), "chunk without an end");
        if length == 0 {
            return Ok(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{BufReader, BufStream, duplex};

    use super::*;

    #[test]
    fn urls() {
        for (text, address, path) in [
            ("http://10.96.0.10", "10.96.0.10:80", "/"),
            ("http://10.96.0.10:8080/x", "10.96.0.10:8080", "/x"),
            ("http://[fd00:96::10]/", "[fd00:96::10]:80", "/"),
            ("http://[fd00:96::10]:81", "[fd00:96::10]:81", "/"),
        ] {
            let url: Url = text.parse().expect(text);
            assert_eq!((url.address.to_string().as_str(), url.path.as_str()), (address, path));
        }
        assert!("http://echo.shop/".parse::<Url>().is_err());
        assert!("10.96.0.10".parse::<Url>().is_err());
    }

    #[tokio::test]
    async fn two_requests_on_one_connection() {
        let (client, server) = duplex(64 * 1024);
        let (mut client, mut server) = (BufStream::new(client), BufStream::new(server));
        let url: Url = "http://10.0.0.1/a".parse().expect("url");
        let serve = async {
            for _ in 0..2 {
                let (path, keep) = read_request(&mut server).await.expect("request").expect("open");
                respond(&mut server, 200, path.as_bytes(), keep).await.expect("sent");
            }
        };
        let ask = async {
            for _ in 0..2 {
                let response = get(&mut client, &url, true).await.expect("answer");
                assert_eq!(response, Response { status: 200, body: b"/a".to_vec() });
            }
        };
        tokio::join!(serve, ask);
    }

    #[tokio::test]
    async fn chunked_bodies_are_joined() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        let mut stream = BufReader::new(tokio_test_stream(answer));
        let url = "http://10.0.0.1".parse().expect("url");
        let response = get(&mut stream, &url, false).await.expect("answer");
        assert_eq!(response.body, b"abcd");
    }

    #[tokio::test]
    async fn an_endless_header_is_refused() {
        let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
        answer.extend(std::iter::repeat_n(b'x', 20_000));
        let mut stream = BufReader::new(tokio_test_stream(&answer));
        let url = "http://10.0.0.1".parse().expect("url");
        let error = get(&mut stream, &url, false).await.expect_err("too long");
        assert!(format!("{error:#}").contains("without an end"), "{error:#}");
    }

    /// A stream that gives these bytes and swallows what is written to it.
    fn tokio_test_stream(bytes: &[u8]) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        let (mut far, near) = duplex(1024 * 1024);
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            let written = far.write_all(&bytes).await;
            // Keep the far end open until the reader is done with it.
            let mut rest = Vec::new();
            let read = far.read_to_end(&mut rest).await;
            drop((written, read));
        });
        near
    }
}
