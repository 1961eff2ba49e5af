//! What kinds answer in their own way: the object that is gone, an approval nobody takes back, a resource that is not
//! given up, a condition without its moment.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use keelson_tests::control_plane::ControlPlane;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

fn asked(plane: &ControlPlane, method: &str, path: &str, body: &Value, code: u16) -> Result<Value> {
    let mut args = plane.certificate("admin");
    if method == "PATCH" {
        args.extend(["-H", "Content-Type: application/merge-patch+json", "-d"].map(str::to_owned));
        args.push(body.to_string());
    }
    let text = (!body.is_null() && method != "PATCH").then(|| body.to_string());
    let answer = plane.curl(method, path, text.as_deref(), &args)?;
    ensure!(answer.code == code, "{method} {path}: {answer:?}");
    serde_json::from_str(&answer.body).context(answer.body)
}

#[test]
fn kinds_answer_in_their_own_way() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    deletions(&plane)?;
    approvals(&plane)?;
    resources(&plane)?;
    defaults_of_metadata(&plane)?;
    preconditions(&plane)?;
    conditions(&plane)
}

/// Labels that a kind has by default are there again after a patch that takes them away.
fn defaults_of_metadata(plane: &ControlPlane) -> Result<()> {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (path, object, labels) in [
        (
            "/api/v1/namespaces",
            json!({"metadata": {"name": "labelled"}}),
            json!({"kubernetes.io/metadata.name": "labelled"}),
        ),
        (
            "/api/v1/namespaces/default/replicationcontrollers",
            json!({"metadata": {"name": "labelled"}, "spec": {"replicas": 0, "template": template}}),
            json!({"a": "b"}),
        ),
    ] {
        asked(plane, "POST", path, &object, 201)?;
        for patch in [
            json!({"labels": null}),
            json!({"labels": {"kubernetes.io/metadata.name": "x", "a": null}}),
        ] {
            let one = format!("{path}/labelled");
            let patched = asked(plane, "PATCH", &one, &json!({"metadata": patch}), 200)?;
            let got = &patched["metadata"]["labels"];
            let kept = labels.as_object().into_iter().flatten();
            let name = got["kubernetes.io/metadata.name"] == "x" && path.ends_with("controllers");
            ensure!(
                name || kept.into_iter().all(|(key, value)| got[key] == *value),
                "{patch}: {patched}"
            );
        }
    }
    Ok(())
}

/// A deletion of what has changed since, and of what came in its place.
fn preconditions(plane: &ControlPlane) -> Result<()> {
    let path = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let made = asked(
        plane,
        "POST",
        path,
        &json!({"metadata": {"name": "r"}, "revision": 1, "data": {}}),
        201,
    )?;
    let (uid, version) = (&made["metadata"]["uid"], &made["metadata"]["resourceVersion"]);
    for (what, field, wanted, found, why) in [
        ("UID", "uid", "other", uid, "deleted and then recreated"),
        ("ResourceVersion", "resourceVersion", "1", version, "modified"),
    ] {
        let body = json!({"preconditions": {field: wanted}});
        let status = asked(plane, "DELETE", &format!("{path}/r"), &body, 409)?;
        let found = found.as_str().context("a text")?;
        let message = format!(
            "Operation cannot be fulfilled on ControllerRevision.apps \"r\": the {what} in the precondition ({wanted}) does \
             not match the {what} in record ({found}). The object might have been {why}"
        );
        let details = &status["details"];
        ensure!(
            status["message"] == message && details["kind"] == "ControllerRevision",
            "{status}"
        );
    }
    Ok(())
}

/// Deletes one of a kind; what is answered is of the kind given.
fn deletions(plane: &ControlPlane) -> Result<()> {
    let requests = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
    let slice = json!({"driver": "d.example.com", "nodeName": "n",
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}});
    let attachment = json!({"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
    for (path, object, kind) in [
        ("/api/v1/namespaces/default/configmaps", json!({}), "Status"),
        (
            "/api/v1/namespaces/default/podtemplates",
            json!({"template": {"spec":
            {"containers": [{"name": "c", "image": "i"}]}}}),
            "PodTemplate",
        ),
        (
            "/apis/storage.k8s.io/v1/csidrivers",
            json!({"spec": {}}),
            "CSIDriver",
        ),
        (
            "/apis/storage.k8s.io/v1/csinodes",
            json!({"spec": {"drivers": []}}),
            "CSINode",
        ),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"provisioner": "p"}),
            "StorageClass",
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            json!({"spec": attachment}),
            "VolumeAttachment",
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattributesclasses",
            json!({"driverName": "d.example.com",
            "parameters": {"a": "b"}}),
            "VolumeAttributesClass",
        ),
        (
            "/apis/resource.k8s.io/v1/deviceclasses",
            json!({"spec": {}}),
            "DeviceClass",
        ),
        (
            "/apis/resource.k8s.io/v1/resourceslices",
            json!({"spec": slice}),
            "ResourceSlice",
        ),
        (
            "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims",
            json!({"spec": requests}),
            "ResourceClaim",
        ),
        (
            "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates",
            json!({"spec": {"spec": requests}}),
            "ResourceClaimTemplate",
        ),
    ] {
        let mut object = object;
        object["metadata"] = json!({"name": "one"});
        asked(plane, "POST", path, &object, 201)?;
        let gone = asked(plane, "DELETE", &format!("{path}/one"), &Value::Null, 200)?;
        ensure!(gone["kind"] == kind, "{path}: {gone}");
    }
    Ok(())
}

/// Whoever signs neither approves nor takes an approval back.
fn approvals(plane: &ControlPlane) -> Result<()> {
    let request = CertificateParams::default().serialize_request(&KeyPair::generate()?)?;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let object = json!({"metadata": {"name": "one"}, "spec": {"request": B64.encode(request.pem()?),
        "signerName": "example.com/signer", "usages": ["digital signature"]}});
    let mut object = asked(plane, "POST", path, &object, 201)?;
    let one = format!("{path}/one");
    object["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "Right"}]);
    let mut approved = asked(plane, "PUT", &format!("{one}/approval"), &object, 200)?;
    approved["status"]["conditions"][0]["reason"] = "Other".into();
    let mut kept = asked(plane, "PUT", &format!("{one}/status"), &approved, 200)?;
    ensure!(kept["status"]["conditions"][0]["reason"] == "Right", "{kept}");
    kept["status"]["conditions"] = json!([]);
    let refused = asked(plane, "PUT", &format!("{one}/status"), &kept, 422)?;
    let message = refused["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("updates may not remove a condition of type \"Approved\""),
        "{refused}"
    );
    Ok(())
}

/// What a container was given may become more or less, but not nothing.
fn resources(plane: &ControlPlane) -> Result<()> {
    let pods = "/api/v1/namespaces/default/pods";
    let account = json!({"metadata": {"name": "default"}});
    asked(
        plane,
        "POST",
        "/api/v1/namespaces/default/serviceaccounts",
        &account,
        201,
    )?;
    let container =
        |name: &str, resources: Value| json!({"name": name, "image": "i", "resources": resources});
    let both = || json!({"requests": {"cpu": "10m", "memory": "1Mi"}, "limits": {"cpu": "20m"}});
    let pod = json!({"metadata": {"name": "one"}, "spec": {"automountServiceAccountToken": false,
        "containers": [container("a", both()), container("b", both())]}});
    let pod = asked(plane, "POST", pods, &pod, 201)?;
    let requests = json!({"requests": {"cpu": "10m", "memory": "1Mi"}});
    let less = json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "20m"}});
    let (a, b) = (|| container("a", both()), || container("b", both()));
    for (containers, message) in [
        (
            json!([container("a", requests), b()]),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            json!([container("a", less), b()]),
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
        (
            json!([b(), a()]),
            "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize, \
             spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize",
        ),
        (
            json!([a()]),
            "spec.containers: Forbidden: containers may not be added or removed on resize",
        ),
    ] {
        let mut wanted = pod.clone();
        wanted["spec"]["containers"] = containers;
        let refused = asked(plane, "PUT", &format!("{pods}/one/resize"), &wanted, 422)?;
        ensure!(
            refused["message"].as_str().unwrap_or_default().contains(message),
            "{refused}"
        );
    }
    ranges(plane, &format!("{pods}/one/resize"), &pod)?;
    unsupported(plane, &format!("{pods}/one"))
}

/// A range holds for what is resized as it does for what is created.
fn ranges(plane: &ControlPlane, resize: &str, pod: &Value) -> Result<()> {
    let ranges = "/api/v1/namespaces/default/limitranges";
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "30m"}}]}});
    let range = asked(plane, "POST", ranges, &range, 201)?;
    let version = range["metadata"]["resourceVersion"]
        .as_str()
        .context("a version")?;
    let mut wanted = pod.clone();
    for (limit, code) in [("31m", 403), ("30m", 200)] {
        // As late as the range at least.
        asked(
            plane,
            "GET",
            &format!("{ranges}?resourceVersion={version}"),
            &Value::Null,
            200,
        )?;
        wanted["spec"]["containers"][0]["resources"]["limits"]["cpu"] = limit.into();
        let answer = asked(plane, "PUT", resize, &wanted, code)?;
        let message = answer["message"].as_str().unwrap_or_default();
        let refused = message.contains("maximum cpu usage per Container is 30m, but limit is 31m");
        ensure!(refused == (code == 403), "{answer}");
    }
    asked(plane, "DELETE", &format!("{ranges}/r"), &Value::Null, 200).map(drop)
}

/// A node that does not say what it has given to a running container gives no more and no less.
fn unsupported(plane: &ControlPlane, pod: &str) -> Result<()> {
    let running = json!({"status": {"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {}}}]}});
    let mut wanted = asked(plane, "PATCH", &format!("{pod}/status"), &running, 200)?;
    wanted["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "11m".into();
    let refused = asked(plane, "PUT", &format!("{pod}/resize"), &wanted, 422)?;
    let message = refused["message"].as_str().unwrap_or_default();
    let expected = "spec: Forbidden: Pod running on node without support for resize";
    ensure!(message.contains(expected), "{refused}");
    let given = json!({"status": {"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {}}, "resources": {"requests": {"cpu": "10m"}}}]}});
    asked(plane, "PATCH", &format!("{pod}/status"), &given, 200)?;
    wanted["metadata"]["resourceVersion"] = Value::Null;
    let resized = asked(plane, "PUT", &format!("{pod}/resize"), &wanted, 200)?;
    ensure!(resized["metadata"]["generation"] == 3, "{resized}");
    Ok(())
}

/// Clients written in Go leave a moment out that they do not know, or say that it is null.
fn conditions(plane: &ControlPlane) -> Result<()> {
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "one"}, "spec": {"ports": [{"port": 80}]}});
    asked(plane, "POST", services, &service, 201)?;
    let status = format!("{services}/one/status");
    let mut condition = json!({"type": "Odd", "status": "True", "reason": "Test", "message": ""});
    for moment in [None, Some(Value::Null)] {
        if let Some(moment) = moment {
            condition["lastTransitionTime"] = moment;
        }
        let patch = json!({"status": {"conditions": [condition]}});
        let patched = asked(plane, "PATCH", &status, &patch, 200)?;
        ensure!(patched["status"]["conditions"][0]["type"] == "Odd", "{patched}");
        let mut whole = patched;
        whole["status"]["conditions"] = json!([condition]);
        asked(plane, "PUT", &status, &whole, 200)?;
    }
    Ok(())
}
