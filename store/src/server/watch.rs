//! The Watch service.

use std::sync::Arc;

use keelson_proto::etcd::watch_server::Watch;
use keelson_proto::etcd::{WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use crate::watch::session::Session;

/// Responses that may wait for a client's connection.
const RESPONSES: usize = 16;

/// The Watch service.
#[derive(Clone)]
pub struct WatchService(pub Arc<Api>);

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let leader_lost = self
            .0
            .clone()
            .leader_lost(super::wants_leader(request.metadata()));
        let (out, responses) = mpsc::channel(RESPONSES);
        let session = Session::new(
            self.0.state.clone(),
            self.0.headers.clone(),
            self.0.limits.watch,
            out,
        );
        tokio::spawn(session.run(request.into_inner(), self.0.shutdown.clone(), leader_lost));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}
