//! A pod's `log`, `exec`, `attach` and `portforward`: the kubelet's paths for them.

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected, Limited};
use k8s_openapi::api::core::v1::Pod;
use keelson_api::field::{self, Path};
use keelson_api::names::GroupKind;
use keelson_api::status::{ApiError, ApiResult};

use super::forward::{empty_body, forward};
use super::{Body, BodyError, KubeletAccess, Lookup, Target};
use crate::http::arriving::Arriving;
use crate::http::piece::Piece;

/// How much of a kubelet's error text is passed on.
const MAX_ERROR_BYTES: usize = 10 * 1024;

/// GET of `pods/log`: the lines as plain text, live with `follow`.
pub(super) async fn log(
    access: &KubeletAccess,
    lookup: &dyn Lookup,
    target: Target<'_>,
    request: Request<Arriving>,
) -> ApiResult<Response<Body>> {
    let query = Query::parse(request.uri().query());
    query.check_log(target.name)?;
    let pod = lookup.pod(target.namespace, target.name).await?;
    let container = container(&pod, query.get("container"))?;
    let Some(node) = node_name(&pod) else {
        return Ok(Response::new(empty_body()));
    };
    let backend = access.backend(&lookup.node(node).await?)?;
    let passed = [
        "follow",
        "previous",
        "timestamps",
        "sinceSeconds",
        "sinceTime",
        "tailLines",
        "limitBytes",
        "stream",
    ];
    let path = format!(
        "/containerLogs/{}/{}/{container}{}",
        target.namespace,
        target.name,
        query.only(&passed)
    );
    let mut response = forward(&backend, &path, request).await?;
    if !response.status().is_success() {
        return Err(kubelet_error(response).await);
    }
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

/// `pods/exec`, `pods/attach` and `pods/portforward`: a tunnel to the kubelet.
pub(super) async fn stream(
    access: &KubeletAccess,
    lookup: &dyn Lookup,
    target: Target<'_>,
    request: Request<Arriving>,
) -> ApiResult<Response<Body>> {
    let query = Query::parse(request.uri().query());
    let pod = lookup.pod(target.namespace, target.name).await?;
    let (namespace, name) = (target.namespace, target.name);
    let path = match target.subresource {
        "portforward" => format!("/portForward/{namespace}/{name}{}", query.kubelet_ports()),
        verb => {
            query.check_streams(verb)?;
            let container = container(&pod, query.get("container"))?;
            format!(
                "/{verb}/{namespace}/{name}/{container}{}",
                query.kubelet_streams()
            )
        }
    };
    let node = node_name(&pod)
        .ok_or_else(|| ApiError::bad_request(format!("pod {name} does not have a host assigned")))?;
    let backend = access.backend(&lookup.node(node).await?)?;
    let response = forward(&backend, &path, request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS || response.status().is_success() {
        return Ok(response);
    }
    Err(kubelet_error(response).await)
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|node| !node.is_empty())
}

/// The container asked for, or the only one there is.
fn container(pod: &Pod, wanted: Option<&str>) -> ApiResult<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else {
        return Err(ApiError::bad_request(format!("pod {name} has no spec")));
    };
    let containers: Vec<&str> = spec
        .containers
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    let init: Vec<&str> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| container.name.as_str())
        .collect();
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|container| container.name.as_str());
    match wanted.filter(|wanted| !wanted.is_empty()) {
        Some(wanted)
            if containers
                .iter()
                .chain(&init)
                .copied()
                .chain(ephemeral)
                .any(|name| name == wanted) =>
        {
            Ok(wanted.to_owned())
        }
        Some(wanted) => Err(ApiError::bad_request(format!(
            "container {wanted} is not valid for pod {name}"
        ))),
        None => match containers.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}"
            ))),
            several => {
                let mut choice = format!("choose one of: [{}]", several.join(" "));
                if !init.is_empty() {
                    choice.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                Err(ApiError::bad_request(format!(
                    "a container name must be specified for pod {name}, {choice}"
                )))
            }
        },
    }
}

/// The first bytes of a body. Boxed: the compiler cannot see through the boxed error in a future of its own.
fn start_of(body: Body) -> BoxFuture<'static, Result<Collected<Piece>, BodyError>> {
    Box::pin(Limited::new(body, MAX_ERROR_BYTES).collect())
}

/// What the kubelet said, as the `Status` the API gives for it.
async fn kubelet_error(response: Response<Body>) -> ApiError {
    let code = response.status();
    let text = match start_of(response.into_body()).await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim_end().to_owned(),
        Err(error) => error.to_string(),
    };
    match code {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => ApiError::new(404, "NotFound", text),
        StatusCode::UNAUTHORIZED => {
            ApiError::internal("the kubelet does not accept the apiserver's identity")
        }
        StatusCode::FORBIDDEN => ApiError::new(403, "Forbidden", text),
        other if other.is_client_error() => ApiError::new(other.as_u16(), "BadRequest", text),
        _ => ApiError::internal(text),
    }
}

/// A request's query parameters, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: Option<&str>) -> Self {
        Self(
            form_urlencoded::parse(query.unwrap_or_default().as_bytes())
                .into_owned()
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Anything but 0 and false says yes, even nothing at all.
    fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// The named parameters as a query string.
    fn only(&self, names: &[&str]) -> String {
        let named = self.0.iter().filter(|(key, _)| names.contains(&key.as_str()));
        render(named.map(|(key, value)| (key.as_str(), value.as_str())))
    }

    /// The ports to forward, by the kubelet's name for them. Those who forward over SPDY name them stream by stream instead.
    fn kubelet_ports(&self) -> String {
        let given = self.0.iter().filter(|(key, _)| key == "ports" || key == "port");
        let ports = given.flat_map(|(_, value)| value.split(','));
        render(ports.map(|port| ("port", port)))
    }

    /// The kubelet's names for exec's and attach's parameters.
    fn kubelet_streams(&self) -> String {
        let streams = [
            ("stdin", "input"),
            ("stdout", "output"),
            ("stderr", "error"),
            ("tty", "tty"),
        ];
        let streams = streams
            .iter()
            .filter(|(ours, _)| self.flag(ours))
            .map(|(_, kubelets)| (*kubelets, "1"));
        let commands = self
            .0
            .iter()
            .filter(|(key, _)| key == "command")
            .map(|(key, value)| (key.as_str(), value.as_str()));
        render(streams.chain(commands))
    }

    /// `PodExecOptions` and `PodAttachOptions`.
    fn check_streams(&self, verb: &str) -> ApiResult<()> {
        if !(self.flag("stdin") || self.flag("stdout") || self.flag("stderr")) {
            return Err(ApiError::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        if verb == "exec" && self.get("command").is_none() {
            return Err(ApiError::bad_request(
                "you must specify at least 1 command for the container",
            ));
        }
        Ok(())
    }

    /// `PodLogOptions`.
    fn check_log(&self, pod: &str) -> ApiResult<()> {
        let mut errors = field::Errors::new();
        let mut at_least = |name: &'static str, least: i64, message: &'static str| -> ApiResult<()> {
            let Some(text) = self.get(name) else { return Ok(()) };
            let number: i64 = text.parse().map_err(|_| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            })?;
            if number < least {
                errors.push(field::Error::invalid(&Path::new(name), number, message));
            }
            Ok(())
        };
        at_least("tailLines", 0, "must be greater than or equal to 0")?;
        at_least("limitBytes", 1, "must be greater than 0")?;
        at_least("sinceSeconds", 1, "must be greater than 0")?;
        if self.get("sinceSeconds").is_some() && self.get("sinceTime").is_some() {
            errors.push(field::Error::forbidden(
                &Path::new(""),
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(
            &GroupKind::new("", "PodLogOptions"),
            pod,
            &errors,
        ))
    }
}

fn render<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish();
    if query.is_empty() {
        query
    } else {
        format!("?{query}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_parameters_get_the_kubelet_s_names() {
        let query = Query::parse(Some(
            "command=sh&command=-c&command=echo+a%26b&stdin=true&stdout=1&tty=false&container=c",
        ));
        assert_eq!(
            query.kubelet_streams(),
            "?input=1&output=1&command=sh&command=-c&command=echo+a%26b"
        );
        assert!(query.check_streams("exec").is_ok());
        assert!(Query::parse(Some("stdout=true")).check_streams("exec").is_err());
    }

    #[test]
    fn ports_get_the_kubelet_s_name() {
        let ports = |query| Query::parse(Some(query)).kubelet_ports();
        assert_eq!(ports("ports=8080"), "?port=8080");
        assert_eq!(
            ports("ports=80&ports=443,8443&x=y"),
            "?port=80&port=443&port=8443"
        );
        assert_eq!(ports("x=y"), "");
    }

    #[test]
    fn log_options_are_checked_as_upstream_does() {
        assert!(
            Query::parse(Some("tailLines=0&follow=true"))
                .check_log("p")
                .is_ok()
        );
        let error = Query::parse(Some("tailLines=-1"))
            .check_log("p")
            .expect_err("negative");
        assert_eq!(error.code(), 422);
        assert!(
            error.message().contains("must be greater than or equal to 0"),
            "{}",
            error.message()
        );
        assert_eq!(
            Query::parse(Some("tailLines=x"))
                .check_log("p")
                .expect_err("text")
                .code(),
            400
        );
    }

    #[test]
    fn a_container_has_to_be_named_when_there_are_several() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}
        }))
        .unwrap_or_default();
        assert_eq!(container(&pod, Some("i")).ok().as_deref(), Some("i"));
        let error = container(&pod, None).expect_err("two containers");
        assert_eq!(
            error.message(),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(
            container(&pod, Some("c"))
                .expect_err("no such container")
                .message(),
            "container c is not valid for pod p"
        );
    }
}
