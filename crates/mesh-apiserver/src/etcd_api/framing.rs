//! gRPC messages that are encoded before they come here, as bodies of HTTP/2 responses.
//!
//! tonic's encoder copies each message into a buffer of its stream. What many clients are sent alike (a batch of
//! events, a page of records) is encoded once instead and shared: a message is a few bytes of its own in front of
//! bytes that it shares with others.

use super::room::Taken;
use axum::{body::Body, response::Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderValue, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::Frame;
use kvstore::codec::Codec;
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::{Status, Streaming, codec::Codec as _};

/// One encoded message.
#[derive(Debug)]
pub(super) struct Message {
    /// The frame's head and the first fields.
    own: BytesMut,
    /// The remaining fields; may be empty.
    shared: Bytes,
}

impl Message {
    /// A message whose fields are those of `first`, followed by fields that are encoded already.
    ///
    /// Protocol buffers allow fields in any order, so the two need not know of each other. The caller bounds
    /// `shared` far below 4 GiB.
    pub(super) fn new(first: &impl kvstore::proto::Message, shared: Bytes) -> Self {
        let own_bytes = first.encoded_len();
        let total = u32::try_from(own_bytes + shared.len()).expect("messages are shorter than 4 GiB");
        // A small message goes out in one piece: a copy costs less than a second frame.
        let (copied, shared) =
            if shared.len() <= COPIED_BYTES { (shared, Bytes::new()) } else { (Bytes::new(), shared) };
        let mut own = BytesMut::with_capacity(HEAD_BYTES + own_bytes + copied.len());
        own.put_u8(UNCOMPRESSED);
        own.put_u32(total);
        first.encode(&mut own).expect("the buffer grows");
        own.put(copied);
        Self { own, shared }
    }
}

impl Message {
    /// Bytes that are not its own; they are held until the connection has taken the message.
    pub(super) fn shared_bytes(&self) -> usize {
        self.shared.len()
    }
}

/// The response to a call that is answered by a stream of messages; an error ends it with that status.
pub(super) fn streaming(messages: impl Stream<Item = Result<Message, Status>> + Send + 'static) -> Response {
    respond(messages, None)
}

/// The response to a call that is answered by one message; `room` is given back when the message is written.
pub(super) fn unary(message: Message, room: Taken) -> Response {
    respond(futures_util::stream::iter([Ok(message)]), room)
}

fn respond(messages: impl Stream<Item = Result<Message, Status>> + Send + 'static, room: Taken) -> Response {
    let body = Messages { messages: Box::pin(messages), pending: Bytes::new(), ended: false, _room: room };
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The messages of a call, decoded; none is longer than `most` bytes.
pub(super) fn requests<T>(body: Body, most: usize) -> Streaming<T>
where
    T: kvstore::proto::Message + Default + Send + 'static,
{
    let decoder = Codec::<(), T>::default().decoder();
    Streaming::new_request(decoder, body, None, Some(most))
}

/// The one message of a call; nothing that follows it is waited for. Its fields may share memory with the connection's
/// buffer, so what is kept for long is to be copied.
///
/// The body bounds what it announces, and the time that it takes ([`Arriving`](super::arriving::Arriving)).
pub(super) async fn request<T>(mut body: Body) -> Result<T, Status>
where
    T: kvstore::proto::Message + Default,
{
    let mut read = BytesMut::new();
    let whole = loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                // Nearly always all of it comes at once.
                if read.is_empty() && message_end(&data).is_some() {
                    break data;
                }
                read.put(data);
                if message_end(&read).is_some() {
                    break read.freeze();
                }
            }
            Some(Err(error)) => return Err(Status::from_error(error.into())),
            None if read.is_empty() => return Err(Status::internal("Missing request message.")),
            None => return Err(Status::internal("Unexpected EOF decoding stream.")),
        }
    };
    let message = whole.slice(HEAD_BYTES..message_end(&whole).unwrap_or(HEAD_BYTES));
    T::decode(message).map_err(|error| Status::internal(error.to_string()))
}

/// Where the first message of what has come ends, if all of it has come.
fn message_end(read: &[u8]) -> Option<usize> {
    let [_flags, length @ ..] = *read.first_chunk::<HEAD_BYTES>()?;
    let end = HEAD_BYTES + u32::from_be_bytes(length) as usize;
    (read.len() >= end).then_some(end)
}

/// Writes messages one after another, then the status.
struct Messages<S> {
    messages: Pin<Box<S>>,
    /// The shared part of the message whose own part was just written.
    pending: Bytes,
    ended: bool,
    _room: Taken,
}

impl<S: Stream<Item = Result<Message, Status>>> hyper::body::Body for Messages<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.pending.is_empty() {
            // The connection holds what it is given until the client reads: it is given little at a time.
            let most = self.pending.len().min(PIECE_BYTES);
            return Poll::Ready(Some(Ok(Frame::data(self.pending.split_to(most)))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match ready!(self.messages.as_mut().poll_next(context)) {
            Some(Ok(message)) => {
                self.pending = message.shared;
                return Poll::Ready(Some(Ok(Frame::data(message.own.freeze()))));
            }
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        // Fails only for a text that no header can hold; then the code alone is sent.
        if status.add_header(&mut trailers).is_err() {
            trailers.insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(status.code())));
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

const UNCOMPRESSED: u8 = 0;
/// The compression flag and the length before each message.
const HEAD_BYTES: usize = 5;
/// The longest piece that the connection is given before the client has made room for it.
const PIECE_BYTES: usize = 64 << 10;
/// A shared part of at most this many bytes is copied.
const COPIED_BYTES: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use kvstore::proto::{
        Message as _,
        etcdserverpb::{RangeRequest, WatchResponse},
    };

    async fn written(messages: Vec<Result<Message, Status>>) -> (Vec<Bytes>, http::HeaderMap) {
        let mut body = Messages {
            messages: Box::pin(futures_util::stream::iter(messages)),
            pending: Bytes::new(),
            ended: false,
            _room: None,
        };
        let (mut data, mut trailers) = (Vec::new(), http::HeaderMap::new());
        let frames = futures_util::stream::poll_fn(|context| {
            hyper::body::Body::poll_frame(Pin::new(&mut body), context)
        });
        for frame in frames.collect::<Vec<_>>().await {
            match frame.expect("infallible").into_data() {
                Ok(piece) => data.push(piece),
                Err(frame) => trailers = frame.into_trailers().expect("data or trailers"),
            }
        }
        (data, trailers)
    }

    #[tokio::test]
    async fn own_and_shared_fields_are_one_message() {
        let whole =
            WatchResponse { watch_id: 7, cancel_reason: "x".repeat(20_000), ..WatchResponse::default() };
        let own = WatchResponse { watch_id: 7, ..WatchResponse::default() };
        let rest = WatchResponse { cancel_reason: whole.cancel_reason.clone(), ..WatchResponse::default() };
        let large = Message::new(&own, rest.encode_to_vec().into());
        let small = Message::new(&own, Bytes::new());
        let (data, trailers) = written(vec![Ok(large), Ok(small)]).await;
        assert_eq!(data.iter().map(Bytes::len).collect::<Vec<_>>(), [5 + 2, 20_004, 5 + 2]);
        let message = [&data[0][5..], &data[1]].concat();
        assert_eq!(WatchResponse::decode(message.as_slice()).expect("a message"), whole);
        assert_eq!(data[0][..5], [0, 0, 0, 0x4e, 0x26], "no compression, then the length of both parts");
        assert_eq!(trailers["grpc-status"], "0");
    }

    #[tokio::test]
    async fn an_error_is_the_last_thing() {
        let (data, trailers) = written(vec![Err(Status::not_found("no such thing"))]).await;
        assert_eq!((data.len(), &trailers["grpc-status"]), (0, &HeaderValue::from_static("5")));
        assert_eq!(trailers["grpc-message"], "no%20such%20thing");
    }

    #[tokio::test]
    async fn a_request_is_read_however_it_is_cut() {
        let whole = RangeRequest { key: "k".into(), limit: 300, ..RangeRequest::default() };
        let fields = whole.encode_to_vec();
        let mut sent = vec![0, 0, 0, 0, u8::try_from(fields.len()).expect("short")];
        sent.extend(fields);
        let arriving = |pieces: Vec<Vec<u8>>| {
            Body::from_stream(futures_util::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
        };
        for cut in 1..=sent.len() {
            let pieces = sent.chunks(cut).map(<[u8]>::to_vec).collect();
            assert_eq!(request::<RangeRequest>(arriving(pieces)).await.expect("whole"), whole, "by {cut}");
        }
        let followed = [&sent[..], &[1, 2, 3]].concat();
        assert_eq!(request::<RangeRequest>(arriving(vec![followed])).await.expect("whole"), whole);
        for (pieces, text) in [
            (vec![], "Missing request message."),
            (vec![sent[..4].to_vec()], "Unexpected EOF decoding stream."),
            (vec![sent[..8].to_vec()], "Unexpected EOF decoding stream."),
        ] {
            let status = request::<RangeRequest>(arriving(pieces)).await.expect_err("cut off");
            assert_eq!((status.code(), status.message()), (tonic::Code::Internal, text));
        }
        let status = request::<RangeRequest>(arriving(vec![vec![0, 0, 0, 0, 2, 0xff, 0xff]])).await;
        assert_eq!(status.expect_err("no protobuf").code(), tonic::Code::Internal);
    }
}
