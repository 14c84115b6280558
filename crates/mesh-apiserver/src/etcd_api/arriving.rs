//! The body of a request as it arrives: a client that begins a message and never ends it is not waited for, and one that
//! announces more than is accepted is told as etcd tells it (grpc-go `rpc_util.go`).

use super::{
    Limits,
    room::{NoRoom, Room, Unfinished},
};
use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// A request's body. A message of a stream has [`Limits::message_time`] from its first byte to its last; a call that is no
/// stream has that for all its body. What is not complete yet is counted.
pub(super) struct Arriving<B = Incoming> {
    body: B,
    /// Clients say one thing after another for as long as they like.
    is_stream: bool,
    message: Message,
    unfinished: Unfinished,
    most: usize,
    time: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Where in its messages a body is: each is a byte of flags, its length in four bytes, and so many bytes.
#[derive(Debug, Default)]
struct Message {
    head: [u8; HEAD],
    head_read: usize,
    /// What the head announces, less what has come.
    missing: usize,
}

/// What a piece of a body has begun and ended.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    /// A message has ended.
    ended: bool,
    /// The flags of all messages that have begun.
    flags: u8,
    /// What the longest of them announces.
    longest: usize,
}

impl<B> Arriving<B> {
    /// The body of a request for this path.
    pub(super) fn new(body: B, path: &str, room: &Room, limits: &Limits) -> Self {
        Self {
            body,
            is_stream: STREAMS.contains(&path),
            message: Message::default(),
            unfinished: room.unfinished(),
            most: limits.message_bytes,
            time: limits.message_time,
            deadline: None,
        }
    }

    /// Fails if what was begun cannot become a message.
    fn check(&mut self, begun: Begun) -> Result<(), Status> {
        if begun.flags & COMPRESSED != 0 {
            return Err(Status::internal("grpc: compressed flag set with identity or empty encoding"));
        }
        if begun.longest > self.most {
            let Begun { longest, .. } = begun;
            let text = format!("grpc: received message larger than max ({longest} vs. {})", self.most);
            return Err(Status::resource_exhausted(text));
        }
        self.unfinished.holds(self.message.held()).map_err(|NoRoom| {
            Status::resource_exhausted("etcdserver: too many requests: too many unfinished messages")
        })
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let begun = self.message.read(data.clone());
                    if begun.ended && self.is_stream {
                        self.deadline = None;
                    }
                    if let Err(status) = self.check(begun) {
                        return Poll::Ready(Some(Err(status.into())));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                if self.is_stream && self.message.is_between() {
                    return Poll::Pending;
                }
                let time = self.time;
                let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(time)));
                if deadline.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                let text = format!("the request was not complete within {time:?}");
                Poll::Ready(Some(Err(Status::deadline_exceeded(text).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Message {
    /// Takes what has come.
    fn read(&mut self, mut data: Bytes) -> Begun {
        let mut begun = Begun::default();
        while data.has_remaining() {
            if self.head_read < HEAD {
                let take = data.remaining().min(HEAD - self.head_read);
                let to = self.head.get_mut(self.head_read..self.head_read + take);
                data.copy_to_slice(to.expect("within the head"));
                self.head_read += take;
                if self.head_read == HEAD {
                    self.missing = self.announced();
                    begun.flags |= self.head[0];
                    begun.longest = begun.longest.max(self.missing);
                }
            } else {
                let take = data.remaining().min(self.missing);
                data.advance(take);
                self.missing -= take;
            }
            if self.head_read == HEAD && self.missing == 0 {
                self.head_read = 0;
                begun.ended = true;
            }
        }
        begun
    }

    /// Between two messages.
    fn is_between(&self) -> bool {
        self.head_read == 0
    }

    /// The memory that the message under way takes: its reader makes room for all that is announced.
    fn held(&self) -> usize {
        if self.head_read == HEAD { self.announced() } else { 0 }
    }

    fn announced(&self) -> usize {
        let [_, length @ ..] = self.head;
        u32::from_be_bytes(length) as usize
    }
}

/// The calls that are streams of requests.
const STREAMS: [&str; 2] = ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];
/// The flag of a compressed message; no encoding is ever agreed on.
const COMPRESSED: u8 = 1;
const HEAD: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd_api::{Limits, SharedRoom};
    use proptest::prelude::*;
    use std::{collections::VecDeque, convert::Infallible};
    use tokio::time::{Instant, timeout};

    const RANGE: &str = "/etcdserverpb.KV/Range";
    const WATCH: &str = "/etcdserverpb.Watch/Watch";

    /// A body that says these things and then nothing more, without an end.
    struct Endless(VecDeque<Bytes>);

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.pop_front().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
        }
    }

    fn said(parts: &[&'static [u8]]) -> Endless {
        Endless(parts.iter().map(|part| Bytes::from_static(part)).collect())
    }

    fn room() -> Room {
        Room::new(SharedRoom::default(), &Limits::default())
    }

    /// How a body ends, and when.
    async fn end(parts: &[&'static [u8]], path: &str) -> (Duration, Status) {
        let (mut body, begin) =
            (Arriving::new(said(parts), path, &room(), &Limits::default()), Instant::now());
        loop {
            match std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return (begin.elapsed(), Status::from_error(error)),
                None => panic!("it has no end"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_never_complete_ends_after_its_time() {
        let whole: &[u8] = &[0, 0, 0, 0, 1, 7];
        for (parts, path) in [
            (&[][..], RANGE),
            (&[&whole[..3]], RANGE),
            (&[&whole[..5]], WATCH),
            (&[whole, &whole[..1]], WATCH),
            // A call that is complete, but for its end.
            (&[whole], RANGE),
        ] {
            let (after, status) = end(parts, path).await;
            let expected = (Limits::default().message_time, tonic::Code::DeadlineExceeded);
            assert_eq!((after, status.code()), expected, "{parts:?}");
        }
        for parts in [&[][..], &[whole], &[&whole[..2], &whole[2..]]] {
            let waiting = timeout(Duration::from_secs(86_400), end(parts, WATCH)).await;
            assert!(waiting.is_err(), "a watch stream may be silent: {parts:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn announced_bytes_are_counted_at_once() {
        let room = room();
        let two_mib: &[u8] = &[0, 0, 0x20, 0, 0];
        let mut bodies: Vec<_> =
            (0..3).map(|_| Arriving::new(said(&[two_mib]), RANGE, &room, &Limits::default())).collect();
        let mut begun = Vec::new();
        for body in &mut bodies {
            let first = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
            begun.push(first.expect("something").is_ok());
        }
        assert_eq!(begun, [true, true, false]);
    }

    proptest! {
        #[test]
        fn messages_are_told_apart_however_they_are_cut(
            lengths in proptest::collection::vec(0_usize..300, 0..8),
            cuts in proptest::collection::vec(1_usize..90, 1..60),
        ) {
            let mut bytes = Vec::new();
            for length in &lengths {
                bytes.push(0);
                bytes.extend(u32::try_from(*length).expect("short").to_be_bytes());
                bytes.resize(bytes.len() + length, 1);
            }
            let mut left = Bytes::from(bytes);
            let mut message = Message::default();
            for cut in cuts.into_iter().cycle() {
                if left.is_empty() {
                    break;
                }
                message.read(left.split_to(cut.min(left.len())));
                prop_assert!(message.held() < 300);
            }
            prop_assert!(message.is_between());
        }
    }
}
