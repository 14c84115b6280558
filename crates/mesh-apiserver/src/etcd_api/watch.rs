//! The Watch service: several watches on one stream.

mod session;

use super::{Api, Grants};
use kvstore::proto::etcdserverpb::{WatchRequest, WatchResponse, watch_server::Watch};
use session::Session;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

#[tonic::async_trait]
impl Watch for Api {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let grants = Grants::of(request.extensions());
        if let Some(reason) = grants.refusal() {
            return Err(super::refusal::permission_denied(Some(reason)));
        }
        let (out, responses) = mpsc::channel(RESPONSES_AHEAD);
        let session = Session::new(self.clone(), grants, out);
        // The task ends by itself when the client goes: its channel closes.
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// Responses that wait for a client that does not read, beside its flow-control window. Each is bounded by one
/// [`kvstore::Watcher::take`].
const RESPONSES_AHEAD: usize = 2;
