//! Whether plugins, webhooks and policies let a connection be opened. What they are shown are its options.

use std::sync::Arc;

use keelson_api::status::ApiResult;
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::authentication::User;
use crate::handlers::Call;
use crate::registry::catalog::Served;
use crate::registry::info::{SubresourceInfo, group_version};
use crate::request_info::ResourceRequest;
use crate::state::Server;

/// Asks about a connection. Reading a log opens none.
///
/// # Errors
/// The refusal.
pub async fn admit(
    server: &Arc<Server>,
    served: &Served,
    wanted: &ResourceRequest,
    user: &User,
    query: &[(String, String)],
) -> ApiResult<()> {
    let Some(subresource) = served.info().subresource(&wanted.subresource) else {
        return Ok(());
    };
    if subresource.name == "log" {
        return Ok(());
    }
    let call = Call::new(
        server,
        served,
        user,
        &wanted.namespace,
        &wanted.name,
        &wanted.subresource,
    );
    let ctx = call.context(&wanted.name);
    server
        .admit(&ctx, Operation::Connect, &options(subresource, query))
        .await
}

/// The options of a connection as an object, from the request's query.
fn options(subresource: &SubresourceInfo, query: &[(String, String)]) -> Value {
    let version = group_version(subresource.group, subresource.version);
    let mut options = json!({"kind": subresource.kind, "apiVersion": version});
    if matches!(subresource.name, "exec" | "attach") {
        options["stdout"] = true.into();
        options["stderr"] = true.into();
    }
    for (name, value) in query {
        match name.as_str() {
            "stdin" | "stdout" | "stderr" | "tty" => {
                options[name.as_str()] = (!matches!(value.as_str(), "false" | "0")).into();
            }
            "container" | "path" => options[name.as_str()] = value.as_str().into(),
            "command" | "ports" => {
                let value = match value.parse::<i32>() {
                    Ok(port) if name == "ports" => port.into(),
                    _ => Value::from(value.as_str()),
                };
                match options.get_mut(name).and_then(Value::as_array_mut) {
                    Some(values) => values.push(value),
                    None => options[name.as_str()] = json!([value]),
                }
            }
            _ => {}
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::info::{SubresourceForm, Verb};

    #[test]
    fn options_are_what_the_query_says() {
        let exec = SubresourceInfo {
            name: "exec",
            kind: "PodExecOptions",
            group: "",
            version: "v1",
            verbs: &[Verb::Get, Verb::Create],
            form: SubresourceForm::Connect,
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let query = [
            pair("command", "echo"),
            pair("command", "hi"),
            pair("container", "c"),
            pair("stderr", "false"),
            pair("tty", "true"),
        ];
        assert_eq!(
            options(&exec, &query),
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["echo", "hi"], "container": "c",
                "stdout": true, "stderr": false, "tty": true})
        );
    }
}
