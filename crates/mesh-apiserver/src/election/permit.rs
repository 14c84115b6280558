//! Writes to the API server, which knows no fence: they are made only while this replica knows that it leads.
//!
//! The store is fenced by etcd, request by request. Of the API server no such condition can be asked, so each client that
//! writes has a [`PermitLayer`] in front, which looks at the clock before a request goes out. A replica that was paused
//! finds its permit expired when it wakes up, before it has learned anything. A request that was on its way before the
//! pause arrives; most carry the revision of the object that they are meant for.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// Whether this process may write to the API server. Clones are the same permit.
#[derive(Clone, Debug, Default)]
pub struct Permit(Option<Arc<Mutex<Option<Instant>>>>);

impl Permit {
    /// For a hub without others: it always may.
    pub fn always() -> Self {
        Self(None)
    }

    /// For one of several hubs: it may not yet.
    pub fn withheld() -> Self {
        Self(Some(Arc::default()))
    }

    /// It may until then, and not longer.
    pub fn grant_until(&self, until: Instant) {
        self.set(Some(until));
    }

    /// It may no longer.
    pub fn withhold(&self) {
        self.set(None);
    }

    /// Whether it may now.
    pub fn is_granted(&self) -> bool {
        let Some(until) = &self.0 else { return true };
        let until = *until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        if let Some(granted) = &self.0 {
            *granted.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
    }
}

/// Puts a [`Permit`] in front of a client.
#[derive(Clone, Debug)]
pub struct PermitLayer(pub Permit);

impl<S> Layer<S> for PermitLayer {
    type Service = Permitted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Permitted { inner, permit: self.0.clone() }
    }
}

/// A client whose writes need a permit.
#[derive(Clone, Debug)]
pub struct Permitted<S> {
    inner: S,
    permit: Permit,
}

/// The request was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sent: this replica does not lead, or does not know it")]
pub struct NotPermitted;

impl<S, R, B> Service<Request<R>> for Permitted<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let permit = self.permit.clone();
        // The future of the inner service sends nothing before it is polled.
        let sent = self.inner.call(request);
        Box::pin(async move {
            if !reads && !permit.is_granted() {
                return Err(NotPermitted.into());
            }
            sent.await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn writes_need_a_permit_that_has_not_expired() {
        let permit = Permit::withheld();
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let service = PermitLayer(permit.clone()).layer(inner.map_err(BoxError::from));
        let ask = async |method: Method| {
            let request = Request::builder().method(method).body(()).expect("a request");
            service.clone().oneshot(request).await.map(drop).map_err(|error| error.to_string())
        };
        let refused = Err(NotPermitted.to_string());
        assert_eq!(ask(Method::GET).await, Ok(()), "reads are free");
        assert_eq!(ask(Method::POST).await, refused);
        permit.grant_until(Instant::now() + Duration::from_secs(10));
        assert_eq!(ask(Method::PATCH).await, Ok(()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(ask(Method::PUT).await, refused, "nobody has to take it away");
        permit.grant_until(Instant::now() + Duration::from_secs(10));
        permit.withhold();
        assert_eq!(ask(Method::DELETE).await, refused);
        assert!(Permit::always().is_granted());
    }
}
