//! What most pods live through.

use serde_json::json;

use crate::support::Node;
use crate::{shell, state};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_and_goes() {
    let Some(node) = Node::start().await else { return };
    node.api.create("configmaps", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "default"}, "data": {"key": "one"}}));
    node.api.create("secrets", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec", "namespace": "default"}, "data": {"pass": "aHVzaA=="}}));
    node.run_pod(
        "full",
        json!({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["friend"]}],
            "initContainers": [{"name": "init", "command": shell("echo from-init > /shared/file")
                , "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],
            "containers": [{"name": "c", "command": shell("cat /shared/file /cm/key /sec/pass; echo; echo $NAME $KEY $KUBERNETES_SERVICE_HOST $(echo expanded) $SUM; cat /token/token; echo; grep friend /etc/hosts; hostname; while true; do cat /cm/key; sleep 1; done"),
                "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
                "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "key"}}},
                    {"name": "SUM", "value": "$(NAME)-$(KEY)"}],
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "cm", "mountPath": "/cm"},
                    {"name": "sec", "mountPath": "/sec"}, {"name": "token", "mountPath": "/token"}]}],
            "volumes": [{"name": "shared", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "cm"}}, {"name": "sec", "secret": {"secretName": "sec"}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}),
    );
    let pod = node.wait_ready("full").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    assert_eq!(
        pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"],
        "Completed"
    );
    assert!(pod["status"]["podIP"].as_str().is_some_and(|ip| !ip.is_empty()));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let (code, log) = node.get("/containerLogs/default/full/c").await;
    println!("{log}");
    assert_eq!(code, 200);
    for wanted in [
        "from-init",
        "onehush",
        "full one 10.96.0.1 expanded full-one",
        "token-of-default",
        "1.2.3.4",
        "\nfull\n",
    ] {
        assert!(log.contains(wanted), "{wanted:?} is not in {log:?}");
    }
    node.api
        .patch("configmaps", "default", "cm", &json!({"data": {"key": "two\n"}}));
    let begun = std::time::Instant::now();
    loop {
        let (_, log) = node.get("/containerLogs/default/full/c?tailLines=1").await;
        if log.contains("two") {
            break;
        }
        assert!(
            begun.elapsed().as_secs() < 10,
            "the change did not reach the pod: {log:?}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let events = node.api.events().join("\n");
    for wanted in ["full Pulled", "full Created", "full Started Started container c"] {
        assert!(events.contains(wanted), "{wanted:?} is not in {events}");
    }
    let (code, _) = node.pki.get(node.port, "/pods", false).await;
    assert_eq!(code, 401);
    node.delete_pod("full").await;
    assert!(
        node.api
            .events()
            .join("\n")
            .contains("full Killing Stopping container c")
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_and_failures_show() {
    let Some(node) = Node::start().await else { return };
    node.run_pod("once", json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": shell("echo bye > /dev/termination-log; exit 3")}]}));
    node.run_pod(
        "done",
        json!({"restartPolicy": "OnFailure", "containers": [{"name": "c", "command": shell("exit 0")}]}),
    );
    node.run_pod(
        "loop",
        json!({"containers": [{"name": "c", "command": shell("echo life; exit 1")}]}),
    );
    node.run_pod(
        "absent",
        json!({"containers": [{"name": "c", "image": "127.0.0.1:1/not/there:1"}]}),
    );
    node.run_pod(
        "never",
        json!({"containers": [{"name": "c", "image": "not/there:1", "imagePullPolicy": "Never"}]}),
    );
    node.run_pod("config", json!({"containers": [{"name": "c", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]}]}));
    node.run_pod(
        "huge",
        json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "900Ti"}}}]}),
    );
    node.run_pod(
        "noexec",
        json!({"containers": [{"name": "c", "command": ["/not/there"]}]}),
    );

    let once = node
        .wait_for_pod("once", "to fail", |status| status["phase"] == "Failed")
        .await;
    let ended = state(&once["status"], 0, "terminated").clone();
    assert_eq!(
        (
            ended["exitCode"].as_i64(),
            ended["reason"].as_str(),
            ended["message"].as_str()
        ),
        (Some(3), Some("Error"), Some("bye\n"))
    );
    node.wait_for_pod("done", "to succeed", |status| status["phase"] == "Succeeded")
        .await;
    node.wait_for_pod("loop", "to back off", |status| {
        state(status, 0, "waiting")["reason"] == "CrashLoopBackOff"
            && status["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
    node.wait_for_pod("absent", "to wait for its image", |status| {
        matches!(
            state(status, 0, "waiting")["reason"].as_str(),
            Some("ErrImagePull" | "ImagePullBackOff")
        )
    })
    .await;
    node.wait_for_pod("absent", "to back off", |status| {
        state(status, 0, "waiting")["reason"] == "ImagePullBackOff"
    })
    .await;
    node.wait_for_pod("never", "to say so", |status| {
        state(status, 0, "waiting")["reason"] == "ErrImageNeverPull"
    })
    .await;
    let config = node
        .wait_for_pod("config", "to say so", |status| {
            state(status, 0, "waiting")["reason"] == "CreateContainerConfigError"
        })
        .await;
    assert_eq!(
        state(&config["status"], 0, "waiting")["message"],
        "secret \"none\" not found"
    );
    let huge = node
        .wait_for_pod("huge", "to be refused", |status| {
            status["reason"] == "OutOfmemory"
        })
        .await;
    assert_eq!(huge["status"]["phase"], "Failed");
    node.wait_for_pod("noexec", "to say so", |status| {
        let container = &status["containerStatuses"][0];
        container["state"]["waiting"]["reason"] == "RunContainerError"
            || container["lastState"]["terminated"]["reason"] == "StartError"
    })
    .await;
    let (code, text) = node.get("/containerLogs/default/absent/c").await;
    assert_eq!(
        (code, text.as_str()),
        (
            400,
            "container \"c\" in pod \"absent\" is waiting to start: trying and failing to pull image\n"
        )
    );
    let (_, previous) = node.get("/containerLogs/default/loop/c?previous=true").await;
    assert_eq!(previous, "life\n");
    for event in node.api.events() {
        println!("{event}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_hooks_act() {
    let Some(node) = Node::start().await else { return };
    let serve = shell("mkdir -p /www; echo ok > /www/ready; httpd -f -p 8080 -h /www");
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "web"}, "periodSeconds": 1, "failureThreshold": 2});
    node.run_pod(
        "web",
        json!({"containers": [{"name": "c", "command": serve, "ports": [{"name": "web", "containerPort": 8080}],
            "startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 10},
            "readinessProbe": probe("/ready"),
            "lifecycle": {"postStart": {"exec": {"command": shell("echo started > /tmp/hook")}}, "preStop": {"sleep": {"seconds": 1}}}}],
            "terminationGracePeriodSeconds": 3}),
    );
    node.run_pod("sick", json!({"containers": [{"name": "c", "command": shell("sleep 1000"),
        "livenessProbe": {"exec": {"command": shell("echo no; exit 1")}, "periodSeconds": 1, "failureThreshold": 1}}]}));
    node.run_pod("unready", json!({"containers": [{"name": "c", "command": serve, "ports": [{"name": "web", "containerPort": 8080}], "readinessProbe": probe("/none")}]}));
    node.wait_ready("web").await;
    node.wait_for_pod("sick", "to be restarted", |status| {
        status["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
    node.wait_for_pod("unready", "to run but not be ready", |status| {
        status["phase"] == "Running"
            && status["containerStatuses"][0]["ready"] == false
            && status["containerStatuses"][0]["started"] == true
    })
    .await;
    node.wait_for("events about the probes", |api| {
        let events = api.events().join("\n");
        (events.contains("unready Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 404")
            && events.contains("sick Killing Container c failed liveness probe, will be restarted"))
        .then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_kubelet_leaves_pods_alone() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    node.run_pod(
        "steady",
        json!({"containers": [{"name": "c", "command": shell("sleep 1000")}]}),
    );
    let before = node.wait_ready("steady").await;
    node.stop_kubelet().await;
    node.run_pod(
        "late",
        json!({"containers": [{"name": "c", "command": shell("sleep 1000")}]}),
    );
    node.start_kubelet();
    node.wait_ready("late").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let after = node.wait_ready("steady").await;
    assert_eq!(
        before["status"]["containerStatuses"],
        after["status"]["containerStatuses"]
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_security_contexts_hold() {
    let Some(node) = Node::start().await else { return };
    let host = node.dir.path().join("host");
    std::fs::create_dir(&host).expect("a folder");
    std::fs::write(host.join("greeting"), "from-host\n").expect("written");
    node.api.create(
        "configmaps",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files", "namespace": "default"},
        "data": {"a.conf": "A\n", "b.conf": "B\n"}}),
    );
    let script = "id -u; id -g; cat /sub/file; cat /host/greeting; cat /down/labels; echo; ls -l /mem | head -1; \
        stat -c '%a %g' /shared/written /mem; grep ' /mem ' /proc/mounts | cut -d' ' -f1,4; echo $MEM; \
        touch /readonly 2>/dev/null && echo writable || echo read-only-root; grep NoNewPrivs /proc/self/status | tr '\\t' ' '; \
        grep CapEff /proc/self/status; cat /proc/self/oom_score_adj; sleep 1000";
    node.run_pod(
        "secure",
        json!({"securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": [{"name": "i", "command": shell("echo x > /shared/written; cat /all/a.conf > /shared/file"),
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "all", "mountPath": "/all"}]}],
            "containers": [{"name": "c", "command": shell(script),
                "env": [{"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}],
                "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
                "securityContext": {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "shared", "mountPath": "/sub/file", "subPath": "file"},
                    {"name": "host", "mountPath": "/host", "readOnly": true}, {"name": "down", "mountPath": "/down"}, {"name": "mem", "mountPath": "/mem"}]}],
            "volumes": [{"name": "shared", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
                {"name": "host", "hostPath": {"path": host, "type": "Directory"}},
                {"name": "all", "configMap": {"name": "files", "items": [{"key": "a.conf", "path": "a.conf"}]}},
                {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}),
    );
    node.run_pod(
        "wrong",
        json!({"containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "hostPath": {"path": host.join("greeting"), "type": "Directory"}}]}),
    );
    node.run_pod(
        "root",
        json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}),
    );
    node.run_pod("hungry", json!({"restartPolicy": "Never", "containers": [{"name": "c",
        "command": shell("x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"), "resources": {"limits": {"memory": "16Mi"}}}]}));
    node.wait_ready("secure").await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let (_, log) = node.get("/containerLogs/default/secure/c").await;
    println!("{log}");
    for wanted in [
        "1000\n2000\nA\nfrom-host\napp=\"secure\"\n",
        "644 3000",
        "777 3000",
        "tmpfs rw",
        "size=8192k",
        "\n64\n",
        "read-only-root",
        "NoNewPrivs: 1",
        "0000000000000000",
    ] {
        assert!(log.contains(wanted), "{wanted:?} is not in {log:?}");
    }
    node.wait_for("the event about the volume", |api| {
        let wanted = "is not a directory";
        api.events()
            .iter()
            .any(|event| {
                event.starts_with("wrong FailedMount MountVolume.SetUp failed for volume \"v\"")
                    && event.ends_with(wanted)
            })
            .then_some(())
    })
    .await;
    let root = node
        .wait_for_pod("root", "to be refused", |status| {
            state(status, 0, "waiting")["reason"] == "CreateContainerConfigError"
        })
        .await;
    assert!(
        state(&root["status"], 0, "waiting")["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("container has runAsNonRoot and image will run as root"))
    );
    let hungry = node
        .wait_for_pod("hungry", "to fail", |status| status["phase"] == "Failed")
        .await;
    assert_eq!(state(&hungry["status"], 0, "terminated")["reason"], "OOMKilled");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_needs_no_apiserver_and_shows_there() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    node.stop_kubelet().await;
    let folder = node.dir.path().join("manifests");
    std::fs::create_dir(&folder).expect("a folder");
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fixed"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": node.image, "command": shell("sleep 1000")}]}});
    std::fs::write(folder.join("fixed.yaml"), manifest.to_string()).expect("written");
    node.start_kubelet();
    let mirror = node.wait_ready("fixed-test-node").await;
    node.api.mark_deleted("default", "fixed-test-node", 1);
    let again = node
        .wait_for_pod("fixed-test-node", "to be mirrored again", |status| {
            status["phase"] == "Running"
        })
        .await;
    assert_eq!(
        mirror["status"]["containerStatuses"][0]["containerID"],
        again["status"]["containerStatuses"][0]["containerID"]
    );
    std::fs::remove_file(folder.join("fixed.yaml")).expect("removed");
    node.wait_for("the mirror to go", |api| {
        api.get("pods", "default", "fixed-test-node")
            .is_none()
            .then_some(())
    })
    .await;
    node.finish().await;
}
