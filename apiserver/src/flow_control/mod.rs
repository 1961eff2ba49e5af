//! Priority and fairness: how many requests are served at the same time, and whose.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`schema`] | which flow of which level a request belongs to |
//! | [`cost`] | how many seats it takes |
//! | [`level`] | a level's seats, and fair queues for those who find none free |
//! | [`hand`] | which queues a flow may wait in |
//! | [`retry`] | when those who are refused may come again |
//! | [`sharing`] | how levels lend each other seats |
//! | [`configuration`], [`follow`] | all this as FlowSchemas and PriorityLevelConfigurations say |
//! | [`inflight`] | two plain limits instead of all this |
//!
//! Connections that stay open hold no seat; a watch holds one until it has begun, a list until it is sent. Source:
//! KEP-1040, "API Priority and Fairness".

pub mod configuration;
pub mod cost;
pub mod follow;
pub mod hand;
pub mod inflight;
pub mod level;
pub mod retry;
pub mod schema;
pub mod sharing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::status::{ApiError, ApiResult};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::authentication::User;
use crate::authorization::attributes::Attributes;
use crate::metrics::flows::FlowMetrics;
use configuration::Levels;
use inflight::Inflight;
use level::{Asked, Refused, Seat};
use schema::Schema;

/// How long a request may take that is neither a watch nor a connection that stays open.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// How long a request waits for a seat: a quarter of that.
const PATIENCE: Duration = Duration::from_secs(15);
/// What those are told who get none.
const REFUSAL: &str = "Too many requests, please try again later.";
/// When those may come again who are refused because two plain limits say so.
const RETRY_SECONDS: i32 = 1;

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// How a request is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Requests that change nothing.
    Reading,
    /// Requests that may change something.
    Writing,
    /// Watches: they count until they have begun.
    Beginning,
    /// Logs, exec and the like: no limit.
    Unlimited,
}

/// Where a request belongs.
#[derive(Clone, Default)]
pub struct Flow(Option<Arc<Schema>>);

impl Flow {
    /// Says in an answer's headers where its request belonged.
    pub fn mark(&self, headers: &mut HeaderMap) {
        let Some(schema) = &self.0 else { return };
        for (name, uid) in [(SCHEMA_UID, &schema.uid), (LEVEL_UID, &schema.level.uid)] {
            if let Some(uid) = uid {
                headers.insert(name, uid.clone());
            }
        }
    }
}

/// What limits requests.
pub enum FlowControl {
    /// Levels, schemas and queues.
    Fair(Levels),
    /// Two plain limits.
    Plain(Inflight),
}

impl FlowControl {
    /// Priority and fairness. All levels share so many seats.
    pub fn fair(seats: u32, metrics: FlowMetrics) -> Self {
        Self::Fair(Levels::new(seats, metrics))
    }

    /// So many requests of either sort; 0 is no limit.
    pub fn plain(reading: usize, writing: usize) -> Self {
        Self::Plain(Inflight::new(reading, writing))
    }

    /// Where a request belongs.
    pub fn flow(&self, user: &User, attributes: &Attributes<'_>) -> Flow {
        match self {
            Self::Fair(levels) => Flow(levels.configuration().of(user, attributes).cloned()),
            Self::Plain(_) => Flow::default(),
        }
    }

    /// Takes seats; waits for them if it has to.
    ///
    /// # Errors
    /// 429 when there is no room to wait or the wait is too long.
    pub async fn enter(
        &self,
        flow: &Flow,
        (user, attributes): (&User, &Attributes<'_>),
        pool: Pool,
        seats: u32,
    ) -> ApiResult<Place> {
        match (self, &flow.0) {
            (Self::Plain(inflight), _) => match inflight.enter(pool, user) {
                Ok(permit) => Ok(Place {
                    _permit: permit,
                    ..Place::free()
                }),
                Err(_) => Err(ApiError::too_many_requests(REFUSAL, RETRY_SECONDS)),
            },
            (Self::Fair(_), Some(schema)) if pool != Pool::Unlimited => {
                seated(schema, (user, attributes), seats).await
            }
            _ => Ok(Place::free()),
        }
    }
}

async fn seated(
    schema: &Arc<Schema>,
    (user, attributes): (&User, &Attributes<'_>),
    seats: u32,
) -> ApiResult<Place> {
    let level = &schema.level.level;
    let seats = seats.min(schema.level.most_seats);
    let asked = level.ask(seats, || schema.flow(user, attributes));
    let seat = match asked {
        Ok(Asked::Seated(seat)) => Ok(seat),
        Ok(Asked::Queued(ticket)) => {
            let _counted = schema.figures.waiting();
            let begun = Instant::now();
            let seat = ticket.wait(PATIENCE).await;
            schema.figures.waited(seat.is_ok(), begun.elapsed());
            seat
        }
        Err(why) => Err(why),
    };
    let refused = |why: Refused| {
        schema.figures.rejected(why.as_str());
        ApiError::too_many_requests(REFUSAL, level.retry_after())
    };
    Ok(Place {
        _seat: seat.map_err(refused)?,
        _permit: None,
        _running: Some(Running::begin(schema.clone())),
    })
}

/// Whether an error is the refusal of a request that may simply come again.
pub fn is_refusal(error: &ApiError) -> bool {
    error.code() == 429 && error.message() == REFUSAL
}

struct Running {
    schema: Arc<Schema>,
    since: Instant,
}

impl Running {
    fn begin(schema: Arc<Schema>) -> Self {
        schema.figures.begun();
        Self {
            schema,
            since: Instant::now(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.schema.figures.ended(self.since.elapsed());
    }
}

/// What a request has while it is served.
pub struct Place {
    _seat: Seat,
    _permit: Option<OwnedSemaphorePermit>,
    _running: Option<Running>,
}

impl Place {
    /// No place of anybody's.
    pub fn free() -> Self {
        Self {
            _seat: Seat::free(),
            _permit: None,
            _running: None,
        }
    }

    /// The place of an answer that is being sent. A caller that does not read it loses the place when a request's time
    /// is over.
    pub fn while_sending(self) -> Sending {
        self.while_sending_or(|| ())
    }

    /// The same with something to be done about such a caller.
    pub fn while_sending_or(self, late: impl FnOnce() + Send + 'static) -> Sending {
        self.sending_within(REQUEST_TIME, late)
    }

    fn sending_within(self, time: Duration, late: impl FnOnce() + Send + 'static) -> Sending {
        let (end, ended) = oneshot::channel();
        tokio::spawn(async move {
            let in_time = tokio::time::timeout(time, ended).await;
            drop(self);
            if in_time.is_err() {
                late();
            }
        });
        Sending { _end: end }
    }
}

/// Something is being sent until this is dropped.
pub struct Sending {
    _end: oneshot::Sender<()>,
}

/// An object's uid as it stands in headers.
fn uid(meta: &ObjectMeta) -> Option<HeaderValue> {
    HeaderValue::from_str(meta.uid.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::attributes::Resource;

    #[tokio::test]
    async fn a_crowd_of_one_user_leaves_room_for_another() {
        let flow = FlowControl::fair(600, FlowMetrics::default());
        let attributes = Attributes::resource(
            "get",
            Resource {
                version: "v1",
                resource: "pods",
                namespace: "default",
                name: "web",
                ..Resource::default()
            },
        );
        let (crowd, one) = (User::named("crowd", []), User::named("one", []));
        let belongs = flow.flow(&crowd, &attributes);
        let (mut seats, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            let mut entering = Box::pin(flow.enter(&belongs, (&crowd, &attributes), Pool::Reading, 1));
            match futures::poll!(entering.as_mut()) {
                std::task::Poll::Ready(Ok(seat)) => seats.push(seat),
                std::task::Poll::Ready(Err(error)) => {
                    assert!(is_refusal(&error) && error.retry_after_seconds() == Some(1));
                }
                std::task::Poll::Pending => waiting.push(entering),
            }
        }
        assert_eq!(seats.len(), 49);
        // Six of 128 queues, fifty places each.
        assert_eq!(waiting.len(), 300);
        let belongs = flow.flow(&one, &attributes);
        let mut entering = Box::pin(flow.enter(&belongs, (&one, &attributes), Pool::Reading, 1));
        assert!(futures::poll!(entering.as_mut()).is_pending());
        // There is a turn for each queue that waits.
        seats.clear();
        assert!(matches!(
            futures::poll!(entering.as_mut()),
            std::task::Poll::Ready(Ok(_))
        ));
        let admin = User::named("admin", ["system:masters".to_owned()]);
        let belongs = flow.flow(&admin, &attributes);
        let entered = flow
            .enter(&belongs, (&admin, &attributes), Pool::Reading, 1)
            .await;
        assert!(entered.is_ok());
    }

    #[tokio::test]
    async fn a_caller_that_does_not_read_loses_its_place() {
        let flow = FlowControl::plain(1, 0);
        let (jane, path) = (User::named("jane", []), Attributes::path("get", "/api"));
        let asked = (&jane, &path);
        let none = Flow::default();
        let place = flow.enter(&none, asked, Pool::Reading, 1).await.expect("a place");
        let (late, told) = oneshot::channel::<()>();
        let _sending = place.sending_within(Duration::from_millis(10), move || drop(late));
        assert!(flow.enter(&none, asked, Pool::Reading, 1).await.is_err());
        while flow.enter(&none, asked, Pool::Reading, 1).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(told.await.is_err());
    }
}
