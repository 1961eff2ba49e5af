//! The gRPC health protocol, `grpc.health.v1.Health/Check`.

use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks a service whether it is well.
///
/// # Errors
/// A text that says that it is not, or why it could not be asked.
pub async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Result<(), String> {
    let address = format!("{host}:{port}");
    let unreachable = |_| {
        format!(
            "timeout: failed to connect service \"{address}\" within {}",
            crate::pods::backoff::go_duration(limit)
        )
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let channel = endpoint
        .connect_timeout(limit)
        .connect()
        .await
        .map_err(unreachable)?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let mut request = Request::new(HealthCheckRequest {
        service: service.to_owned(),
    });
    request.set_timeout(limit);
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    match client.unary(request, path, codec).await {
        Ok(answer) if answer.get_ref().status == SERVING => Ok(()),
        Ok(answer) => Err(format!(
            "service unhealthy (responded with \"{}\")",
            name(answer.get_ref().status)
        )),
        Err(status) if status.code() == Code::Unimplemented => Err(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".into(),
        ),
        Err(status) => Err(format!("error: health rpc probe failed: {}", status.message())),
    }
}

fn name(status: i32) -> &'static str {
    match status {
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}
