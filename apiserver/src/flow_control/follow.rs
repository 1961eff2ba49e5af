//! Keeps flow control as the stored configuration says, and says of each schema whether its level is there.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, FlowSchemaCondition, PriorityLevelConfiguration};
use keelson_api::object::{Kind, Object as _};
use keelson_api::status::ApiResult;
use tokio_util::sync::CancellationToken;

use super::FlowControl;
use super::configuration::Levels;
use crate::authentication::User;
use crate::state::Server;
use crate::storage::changes::Changes;

/// How often seats are dealt anew.
const SHARING: Duration = Duration::from_secs(10);
/// A condition that could not be written is written after this.
const RETRY: Duration = Duration::from_secs(1);
const DANGLING: &str = "Dangling";

/// Follows the configuration until `shutdown`.
pub async fn run(server: Arc<Server>, shutdown: CancellationToken) {
    if let FlowControl::Fair(levels) = &server.flow {
        let share = async {
            let mut turns = tokio::time::interval(SHARING);
            loop {
                turns.tick().await;
                levels.share();
            }
        };
        let both = async { tokio::join!(follow(&server, levels), share) };
        shutdown.run_until_cancelled(both).await;
    }
}

async fn follow(server: &Arc<Server>, levels: &Levels) {
    let (Some(mut of_levels), Some(mut of_schemas)) = (
        Changes::of::<PriorityLevelConfiguration>(server).await,
        Changes::of::<FlowSchema>(server).await,
    ) else {
        return;
    };
    loop {
        let pause = match configure(server, levels).await {
            Ok(()) => Duration::MAX,
            Err(error) => {
                tracing::warn!(%error, "cannot say which flow schemas have no priority level");
                RETRY
            }
        };
        let more = tokio::select! {
            more = of_levels.wait(pause) => more,
            more = of_schemas.wait(pause) => more,
        };
        if !more {
            return;
        }
    }
}

async fn configure(server: &Arc<Server>, in_force: &Levels) -> ApiResult<()> {
    let levels = owned(server.cached_list::<PriorityLevelConfiguration>(""));
    let schemas = owned(server.cached_list::<FlowSchema>(""));
    if levels.is_empty() || schemas.is_empty() {
        // A new cluster: what it will have is in force already.
        return Ok(());
    }
    in_force.configure(&levels, &schemas);
    for schema in &schemas {
        let spec = schema.spec.as_ref();
        let level = spec.map_or("", |spec| spec.priority_level_configuration.name.as_str());
        let there = levels.iter().any(|found| found.name() == level);
        tell(server, schema, level, there).await?;
    }
    Ok(())
}

fn owned<K: Kind>(objects: Vec<Arc<K>>) -> Vec<K> {
    objects.into_iter().map(|object| K::clone(&object)).collect()
}

/// Writes the condition that says whether a schema's level is there, where it says something else.
async fn tell(server: &Arc<Server>, schema: &FlowSchema, level: &str, there: bool) -> ApiResult<()> {
    let references =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match there {
        true => ("False", "Found", format!("{references} and it exists")),
        false => (
            "True",
            "NotFound",
            format!("{references} but there is no such object"),
        ),
    };
    let conditions = schema
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let says = conditions.into_iter().any(|condition| {
        condition.type_.as_deref() == Some(DANGLING)
            && condition.status.as_deref() == Some(status)
            && condition.message.as_deref() == Some(&message)
    });
    if says {
        return Ok(());
    }
    let change = |fresh: &mut FlowSchema| {
        let conditions = fresh
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default();
        conditions.retain(|condition| condition.type_.as_deref() != Some(DANGLING));
        conditions.push(FlowSchemaCondition {
            type_: Some(DANGLING.to_owned()),
            status: Some(status.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.clone()),
            last_transition_time: Some(keelson_api::time::now()),
        });
        Ok(())
    };
    let key = ("", schema.name(), "status");
    match server.update::<FlowSchema>(&User::loopback(), key, change).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
