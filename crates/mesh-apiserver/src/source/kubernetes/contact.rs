//! What passes between the hub and the API server about one kind: counted, and when anything was heard last. A layer
//! below the Kubernetes client, because a watch that is quiet shows no sign of life above it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// Holds what is known of the contact about one kind. Shared by its follower, the metrics and the status page.
#[derive(Debug)]
pub struct Contact {
    began: Instant,
    /// Milliseconds after `began`, plus one; 0: never.
    heard: AtomicU64,
    /// Requests sent.
    pub lists: AtomicU64,
    /// Watches begun.
    pub watches: AtomicU64,
    /// Requests without an answer, and answers that are errors.
    pub errors: AtomicU64,
    /// Complete lists.
    pub relists: AtomicU64,
    /// Objects known.
    pub objects: AtomicUsize,
    /// Whether the last list or watch is good.
    pub is_current: AtomicBool,
    /// Whether the kind is followed at all.
    pub is_followed: AtomicBool,
    retry_after: Mutex<Option<Duration>>,
    answers: watch::Sender<u64>,
    watch_starts: Mutex<(f64, Instant)>,
}

impl Default for Contact {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            heard: AtomicU64::default(),
            lists: AtomicU64::default(),
            watches: AtomicU64::default(),
            errors: AtomicU64::default(),
            relists: AtomicU64::default(),
            objects: AtomicUsize::default(),
            is_current: AtomicBool::default(),
            is_followed: AtomicBool::default(),
            retry_after: Mutex::default(),
            answers: watch::Sender::new(0),
            watch_starts: Mutex::new((WATCH_BURST, now)),
        }
    }
}

impl Contact {
    /// Time since the API server last said anything about the kind, bookmarks included; `None` if it never did.
    pub fn silence(&self) -> Option<Duration> {
        let heard = self.heard.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.began.elapsed().saturating_sub(Duration::from_millis(heard)))
    }

    /// Answers without an error so far; changes with each.
    pub fn answers(&self) -> watch::Receiver<u64> {
        self.answers.subscribe()
    }

    /// How long the API server asked to be left alone, at its last answer.
    pub fn take_retry_after(&self) -> Option<Duration> {
        self.retry_after.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn hear(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.heard.store(now + 1, Ordering::Relaxed);
    }

    /// Takes a permission to begin a watch; gives the time to wait before it is used. A server that ends each watch at
    /// once is an error to nobody else, and would be asked without a pause.
    fn pace(&self) -> Duration {
        let mut starts = self.watch_starts.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = *starts;
        let now = Instant::now();
        let left = (left + now.duration_since(at).as_secs_f64() * WATCH_RATE).min(WATCH_BURST) - 1.0;
        *starts = (left, now);
        Duration::from_secs_f64((-left).max(0.0) / WATCH_RATE)
    }

    fn answered<B>(&self, response: &Response<B>) {
        self.hear();
        if response.status().is_success() {
            self.answers.send_modify(|count| *count += 1);
            return;
        }
        self.errors.fetch_add(1, Ordering::Relaxed);
        if matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let seconds = seconds.and_then(|text| text.trim().parse::<u64>().ok());
            let wanted = seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
            *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        }
    }
}

/// Puts a [`Contact`] between a client and its connection.
#[derive(Clone, Debug)]
pub struct ContactLayer(pub Arc<Contact>);

impl<S> Layer<S> for ContactLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observed { inner, contact: Arc::clone(&self.0) }
    }
}

/// A connection that is observed.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    inner: S,
    contact: Arc<Contact>,
}

impl<S, R, B> Service<Request<R>> for Observed<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: 'static,
{
    type Response = Response<ObservedBody<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let contact = Arc::clone(&self.contact);
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let (count, pause) = match is_watch {
            true => (&contact.watches, contact.pace()),
            false => (&contact.lists, Duration::ZERO),
        };
        count.fetch_add(1, Ordering::Relaxed);
        // The future of the inner service sends nothing before it is polled.
        let sent = self.inner.call(request);
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            let answer = match tokio::time::timeout(ANSWER_TIME, sent).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {} s", ANSWER_TIME.as_secs()).into()),
            };
            match &answer {
                Ok(response) => contact.answered(response),
                Err(_) => drop(contact.errors.fetch_add(1, Ordering::Relaxed)),
            }
            Ok(answer?.map(|body| ObservedBody { body: Box::pin(body), contact }))
        })
    }
}

/// A body whose pieces are signs of life.
#[derive(Debug)]
pub struct ObservedBody<B> {
    body: Pin<Box<B>>,
    contact: Arc<Contact>,
}

impl<B: Body<Data = Bytes>> Body for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(self.body.as_mut().poll_frame(context));
        if let Some(Ok(_)) = &frame {
            self.contact.hear();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Time for the head of an answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Most that a server can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);
/// Watches of a kind that may begin at once, and a second after that.
const WATCH_BURST: f64 = 10.0;
const WATCH_RATE: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn watches_are_begun_at_a_bounded_rate() {
        let contact = Contact::default();
        let pauses: Vec<Duration> = (0..13).map(|_| contact.pace()).collect();
        assert!(pauses[..10].iter().all(Duration::is_zero), "{pauses:?}");
        assert!(pauses[10] > Duration::ZERO && pauses[12] > pauses[11], "{pauses:?}");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(contact.pace(), Duration::ZERO, "a quiet minute is forgiven");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_time_since_the_last_sign_of_life() {
        let contact = Contact::default();
        assert_eq!(contact.silence(), None);
        contact.hear();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(contact.silence(), Some(Duration::from_secs(7)));
    }

    #[tokio::test]
    async fn a_server_can_ask_to_be_left_alone() {
        let contact = Contact::default();
        let answer = |status: u16, after: &str| {
            Response::builder().status(status).header(header::RETRY_AFTER, after).body(()).expect("an answer")
        };
        contact.answered(&answer(429, "3"));
        assert_eq!(contact.take_retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(contact.take_retry_after(), None, "once");
        contact.answered(&answer(503, "99999999"));
        assert_eq!(contact.take_retry_after(), Some(MAX_RETRY_AFTER));
        contact.answered(&answer(429, "soon"));
        assert_eq!(contact.take_retry_after(), None);
        assert_eq!(contact.errors.load(Ordering::Relaxed), 3);
    }
}
