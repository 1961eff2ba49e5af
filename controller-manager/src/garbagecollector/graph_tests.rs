use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::names::Gvr;

fn resource() -> Arc<Resource> {
    Arc::new(Resource {
        gvr: Gvr::new("", "v1", "things"),
        kind: "Thing".into(),
        namespaced: true,
    })
}

fn meta(uid: &str, owners: &[&str]) -> ObjectMeta {
    let owner = |uid: &&str| OwnerReference {
        uid: (*uid).to_owned(),
        name: (*uid).to_owned(),
        block_owner_deletion: Some(true),
        ..OwnerReference::default()
    };
    ObjectMeta {
        uid: Some(uid.into()),
        name: Some(uid.into()),
        namespace: Some("n".into()),
        owner_references: Some(owners.iter().map(owner).collect()),
        ..ObjectMeta::default()
    }
}

fn deleting(mut meta: ObjectMeta, finalizer: &str) -> ObjectMeta {
    meta.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    meta.finalizers = Some(vec![finalizer.to_owned()]);
    meta
}

fn judge(uid: &str) -> Work {
    Work::Judge(uid.into())
}

fn see(graph: &mut Graph, meta: &ObjectMeta) -> Vec<Work> {
    graph.observe(&resource(), meta, |_| Some(resource()))
}

#[test]
fn dependents_are_judged_when_their_owner_goes() {
    let mut graph = Graph::default();
    assert!(see(&mut graph, &meta("owner", &[])).is_empty());
    assert!(see(&mut graph, &meta("child", &["owner"])).is_empty());
    assert_eq!(graph.remove("owner"), [judge("child")]);
    assert_eq!(graph.presence("owner"), Presence::Absent);
    // Another dependent, seen late, need not look for the owner again.
    assert_eq!(see(&mut graph, &meta("late", &["owner"])), [judge("late")]);
}

#[test]
fn an_owner_never_seen_is_looked_up() {
    let mut graph = Graph::default();
    assert_eq!(see(&mut graph, &meta("child", &["owner"])), [judge("owner")]);
    assert!(graph.get("owner").is_some_and(|node| node.ghost));
    assert_eq!(graph.presence("owner"), Presence::Unknown);
    // Seen after all: it keeps its dependent.
    assert!(see(&mut graph, &meta("owner", &[])).is_empty());
    assert_eq!(graph.presence("owner"), Presence::Present);
    assert_eq!(graph.blocking_dependents("owner"), ["child".into()]);
}

#[test]
fn an_owner_of_a_kind_nobody_knew_is_looked_up_once_it_is_known() {
    let mut graph = Graph::default();
    graph.observe(&resource(), &meta("child", &["owner"]), |_| None);
    assert!(graph.get("owner").is_some_and(|node| node.resource.is_none()));
    assert!(graph.recognize(|_| None).is_empty());
    let known = |owner: &OwnerReference| (owner.name == "owner").then(resource);
    assert_eq!(graph.recognize(known), [judge("owner")]);
    assert!(
        graph
            .get("owner")
            .is_some_and(|node| node.ghost && node.resource.is_some())
    );
    assert!(graph.recognize(known).is_empty());
}

#[test]
fn a_foreground_deletion_waits_for_its_dependents() {
    let mut graph = Graph::default();
    see(&mut graph, &meta("owner", &[]));
    see(&mut graph, &meta("child", &["owner"]));
    let work = see(&mut graph, &deleting(meta("owner", &[]), "foregroundDeletion"));
    assert_eq!(work, [judge("child"), judge("owner")]);
    assert_eq!(graph.presence("owner"), Presence::Waiting);
    assert_eq!(graph.remove("child"), [judge("owner")]);
    assert!(graph.blocking_dependents("owner").is_empty());
}

#[test]
fn releasing_a_dependent_unblocks_its_owner() {
    let mut graph = Graph::default();
    see(&mut graph, &deleting(meta("owner", &[]), "foregroundDeletion"));
    see(&mut graph, &meta("child", &["owner"]));
    assert_eq!(see(&mut graph, &meta("child", &[])), [judge("owner")]);
    assert!(graph.get("owner").is_some_and(|node| node.dependents.is_empty()));
}

#[test]
fn an_orphaning_deletion_is_noticed_once() {
    let mut graph = Graph::default();
    see(&mut graph, &meta("child", &["owner"]));
    let going = deleting(meta("owner", &[]), "orphan");
    assert_eq!(see(&mut graph, &going), [Work::Orphan("owner".into())]);
    assert!(see(&mut graph, &going).is_empty());
}

#[test]
fn what_is_seen_no_more_is_looked_up() {
    let mut graph = Graph::default();
    see(&mut graph, &meta("owner", &[]));
    see(&mut graph, &meta("child", &["owner"]));
    let newer = Arc::new(Resource {
        gvr: Gvr::new("", "v2", "things"),
        ..Resource::clone(&resource())
    });
    // Served in another version: whoever watches that one shows it again.
    assert_eq!(graph.lose_sight(&resource(), Some(&newer)).len(), 2);
    assert_eq!(graph.presence("owner"), Presence::Unknown);
    assert!(graph.observe(&newer, &meta("owner", &[]), |_| None).is_empty());
    assert_eq!(graph.presence("owner"), Presence::Present);
    assert_eq!(graph.blocking_dependents("owner"), ["child".into()]);
    // Served no more: what owns something is kept in mind, the rest is not.
    graph.observe(&newer, &meta("child", &["owner"]), |_| None);
    graph.observe(&newer, &meta("alone", &[]), |_| None);
    let work = graph.lose_sight(&newer, None);
    assert!(graph.get("alone").is_none() && !work.contains(&judge("alone")));
    assert_eq!(graph.presence("owner"), Presence::Unknown);
}

#[test]
fn with_a_definition_its_objects_are_gone() {
    let mut graph = Graph::default();
    see(&mut graph, &meta("owner", &[]));
    let other = Arc::new(Resource {
        gvr: Gvr::new("other", "v1", "children"),
        ..Resource::clone(&resource())
    });
    graph.observe(&other, &meta("child", &["owner"]), |_| None);
    assert_eq!(graph.withdraw("", "things"), [judge("child")]);
    assert_eq!(graph.presence("owner"), Presence::Absent);
    assert!(graph.get("child").is_some());
}
