//! The Lock service: the head of a line has the lock.

use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::etcd::DeleteRangeRequest;
use keelson_proto::etcd::kv_server::Kv;
use keelson_proto::lock::lock_server::Lock;
use keelson_proto::lock::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use super::Api;
use super::kv::KvService;
use super::line::{Line, attended, unknown};

/// The lease ended while the lock was waited for.
const SESSION_EXPIRED: &str = "mutex: session is expired";

/// The Lock service.
#[derive(Clone)]
pub struct LockService(pub Arc<Api>);

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let LockRequest { name, lease } = request.into_inner();
        let line = Line::new(self.0.clone(), name);
        attended(|gone| async move {
            let lease = line.lease(lease).await?;
            let place = line.enter(lease, Bytes::new()).await?;
            match line.turn(&place, &gone).await? {
                Some(header) => Ok(Response::new(LockResponse {
                    header: Some(header),
                    key: place.key,
                })),
                None => Err(Status::unknown(SESSION_EXPIRED)),
            }
        })
        .await
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let request = DeleteRangeRequest {
            key: request.into_inner().key,
            ..DeleteRangeRequest::default()
        };
        let deleted = KvService(self.0.clone())
            .delete_range(Request::new(request))
            .await
            .map_err(|status| unknown(&status))?;
        Ok(Response::new(UnlockResponse {
            header: deleted.into_inner().header,
        }))
    }
}
