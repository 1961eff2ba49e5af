//! Kinds of one's own: definitions and what becomes of them.

use anyhow::{Result, ensure};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("a_kind_of_ones_own", a_kind_of_ones_own),
    ("a_kind_says_what_is_wrong", a_kind_says_what_is_wrong),
    ("a_kind_changes_while_it_is_used", a_kind_changes_while_it_is_used),
    (
        "a_kind_goes_when_its_objects_have_gone",
        a_kind_goes_when_its_objects_have_gone,
    ),
];

/// The group of a story's kinds: definitions live in no namespace.
fn group(stage: &Stage) -> String {
    format!("{}.example.com", stage.namespace)
}

fn definition(stage: &Stage, more: &str) -> String {
    let (group, short) = (group(stage), stage.namespace.replace('-', ""));
    format!(
        r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: crontabs.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct{short}]}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {{}}
      scale: {{specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {{name: Spec, type: string, jsonPath: .spec.cronSpec}}
    - {{name: Replicas, type: integer, jsonPath: .spec.replicas}}
    - {{name: Age, type: date, jsonPath: .metadata.creationTimestamp}}
    selectableFields: [{{jsonPath: .spec.image}}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What runs, and when.
            required: [cronSpec]
            x-kubernetes-validations:
            - {{rule: 'self.replicas <= self.maxReplicas', message: 'replicas must not be above maxReplicas'}}
            properties:
              cronSpec:
                type: string
                pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){{4}}$'
                description: The moments to run at.
              image:
                type: string
                default: busybox
                x-kubernetes-validations: [{{rule: 'self == oldSelf', message: 'the image cannot be changed'}}]
              replicas: {{type: integer, minimum: 0, default: 1}}
              maxReplicas: {{type: integer, default: 5}}
{more}
          status:
            type: object
            properties: {{replicas: {{type: integer}}}}
"
    )
}

fn object(stage: &Stage, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: {}/v1\nkind: CronTab\nmetadata: {{name: {name}}}\nspec: {spec}\n",
        group(stage)
    )
}

fn define(stage: &Stage) -> Result<()> {
    stage.kubectl.feed("apply -f -", &definition(stage, ""))?;
    stage.kubectl.run(&format!(
        "wait --for=condition=Established --timeout=30s crd/crontabs.{}",
        group(stage)
    ))?;
    Ok(())
}

fn withdraw(stage: &Stage) -> Result<()> {
    stage
        .kubectl
        .run(&format!("delete crd crontabs.{}", group(stage)))
        .map(drop)
}

fn a_kind_of_ones_own(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    define(stage)?;
    let group = group(stage);
    let plural = format!("crontabs.{group}");
    let resources = kubectl.run(&format!("api-resources --api-group={group}"))?;
    ensure!(
        resources.contains("crontabs") && resources.contains("CronTab") && resources.contains("true"),
        "{resources}"
    );
    kubectl.feed(
        "apply -f -",
        &object(stage, "one", "{cronSpec: '* * * * */5', replicas: 2}"),
    )?;
    let table = kubectl.run(&format!("get ct{}", stage.namespace.replace('-', "")))?;
    ensure!(
        table.contains("SPEC") && table.contains("* * * * */5") && table.contains("REPLICAS"),
        "{table}"
    );
    let found = kubectl.json(&format!("get {plural} one"))?;
    ensure!(
        found["spec"]["image"] == "busybox" && found["metadata"]["generation"] == 1,
        "{found}"
    );
    let selected = kubectl.run(&format!(
        "get {plural} --field-selector spec.image=busybox -o name"
    ))?;
    ensure!(selected.trim() == format!("crontab.{group}/one"), "{selected}");
    let none = kubectl.run(&format!("get {plural} --field-selector spec.image=other -o name"))?;
    ensure!(none.trim().is_empty(), "{none}");

    let explained = kubectl.run(&format!("explain {plural}.spec"))?;
    ensure!(
        explained.contains("What runs, and when.") && explained.contains("cronSpec"),
        "{explained}"
    );
    let described = kubectl.run(&format!("describe {plural} one"))?;
    ensure!(described.contains("Cron Spec:"), "{described}");

    kubectl.run(&format!("scale {plural}/one --replicas=4"))?;
    let replicas = kubectl.path(&format!("get {plural} one"), "{.spec.replicas}")?;
    ensure!(replicas == "4", "{replicas}");
    kubectl.args(&[
        "patch",
        &plural,
        "one",
        "--type=merge",
        "--subresource=status",
        "-p",
        r#"{"status":{"replicas":3},"spec":{"replicas":0}}"#,
    ])?;
    let found = kubectl.json(&format!("get {plural} one"))?;
    ensure!(
        found["status"]["replicas"] == 3
            && found["spec"]["replicas"] == 4
            && found["metadata"]["generation"] == 2,
        "{found}"
    );
    let applied = object(stage, "one", "{cronSpec: '1 * * * *'}");
    kubectl.feed("apply --server-side --force-conflicts -f -", &applied)?;
    let spec = kubectl.path(&format!("get {plural} one"), "{.spec.cronSpec}")?;
    ensure!(spec == "1 * * * *", "{spec}");
    withdraw(stage)
}

fn a_kind_says_what_is_wrong(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    define(stage)?;
    for (spec, wanted) in [
        ("{cronSpec: nonsense}", "spec.cronSpec in body should match"),
        (
            "{cronSpec: '* * * * *', replicas: many}",
            "spec.replicas in body must be of type integer: \"string\"",
        ),
        ("{replicas: 1}", "spec.cronSpec: Required value"),
        (
            "{cronSpec: '* * * * *', replicas: 9}",
            "replicas must not be above maxReplicas",
        ),
    ] {
        let said = kubectl.refused(
            "create --validate=false -f -",
            Some(&object(stage, "wrong", spec)),
        )?;
        ensure!(
            said.contains("is invalid") && said.contains(wanted),
            "{spec}: {said}"
        );
    }
    let typo = object(stage, "wrong", "{cronSpec: '* * * * *', typo: 1}");
    let said = kubectl.refused("create --validate=strict -f -", Some(&typo))?;
    ensure!(said.contains("unknown field \"spec.typo\""), "{said}");

    kubectl.feed("create -f -", &object(stage, "one", "{cronSpec: '* * * * *'}"))?;
    let plural = format!("crontabs.{}", group(stage));
    let said = kubectl.refused(
        &format!(r#"patch {plural} one --type=merge -p {{"spec":{{"image":"other"}}}}"#),
        None,
    )?;
    ensure!(said.contains("the image cannot be changed"), "{said}");
    let said = kubectl.refused(
        &format!(r#"patch {plural} one --type=strategic -p {{"spec":{{"replicas":2}}}}"#),
        None,
    )?;
    ensure!(said.contains("is not supported by"), "{said}");

    let broken = definition(
        stage,
        "              extra: {type: string, x-kubernetes-validations: [{rule: 'self.nope > 1'}]}",
    )
    .replace("crontabs", "others")
    .replace("singular: crontab", "singular: other")
    .replace("kind: CronTab", "kind: Other");
    let said = kubectl.refused("create -f -", Some(&broken))?;
    ensure!(
        said.contains("x-kubernetes-validations[0].rule") && said.contains("compilation failed"),
        "{said}"
    );
    withdraw(stage)
}

fn a_kind_changes_while_it_is_used(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    define(stage)?;
    let plural = format!("crontabs.{}", group(stage));
    kubectl.feed("create -f -", &object(stage, "one", "{cronSpec: '* * * * *'}"))?;
    kubectl.feed(
        "apply -f -",
        &definition(stage, "              added: {type: string, default: here}"),
    )?;
    kubectl.until(
        &format!("get {plural} one -o jsonpath={{.spec.added}}"),
        |added| added == "here",
    )?;
    // Another version, which is served as soon as the definition says so and no longer than that.
    let two = definition(stage, "").replace(
        "  versions:\n",
        "  versions:\n  - name: v2\n    served: true\n    storage: false\n    schema: {openAPIV3Schema: {type: object, \
         x-kubernetes-preserve-unknown-fields: true}}\n",
    );
    kubectl.feed("apply -f -", &two)?;
    let newer = format!("crontabs.v2.{}", group(stage));
    kubectl.until(
        &format!("get {newer} one -o jsonpath={{.apiVersion}}"),
        |version| version.ends_with("/v2"),
    )?;
    kubectl.feed("apply -f -", &definition(stage, ""))?;
    kubectl.until(
        &format!("api-resources --api-group={}", group(stage)),
        |resources| !resources.contains("/v2"),
    )?;
    withdraw(stage)
}

fn a_kind_goes_when_its_objects_have_gone(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    define(stage)?;
    let plural = format!("crontabs.{}", group(stage));
    kubectl.until(&format!("get apiservice v1.{}", group(stage)), |table| {
        table.contains("Local") && table.contains("True")
    })?;
    kubectl.feed("create -f -", &object(stage, "held", "{cronSpec: '* * * * *'}"))?;
    let held = r#"patch PLURAL held --type=merge -p {"metadata":{"finalizers":["example.com/hold"]}}"#;
    kubectl.run(&held.replace("PLURAL", &plural))?;
    kubectl.run(&format!("delete crd {plural} --wait=false"))?;
    kubectl.until(
        &format!("get crd {plural} -o jsonpath={{.status.conditions[?(@.type==\"Terminating\")].status}}"),
        |status| status == "True",
    )?;
    let said = kubectl.refused(
        "create --validate=false -f -",
        Some(&object(stage, "late", "{cronSpec: '* * * * *'}")),
    )?;
    ensure!(
        said.contains("create is not supported on resources of kind"),
        "{said}"
    );
    let free = r#"patch PLURAL held --type=merge -p {"metadata":{"finalizers":null}}"#;
    kubectl.run(&free.replace("PLURAL", &plural))?;
    kubectl.run(&format!("wait --for=delete --timeout=30s crd/{plural}"))?;
    let gone = kubectl.refused(&format!("get {plural}"), None)?;
    ensure!(
        gone.contains("doesn't have a resource type") || gone.contains("could not find"),
        "{gone}"
    );
    let registration = format!("apiservice/v1.{}", group(stage));
    kubectl.run(&format!("wait --for=delete --timeout=30s {registration}"))?;
    Ok(())
}
