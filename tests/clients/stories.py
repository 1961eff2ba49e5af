"""Python's client library against a cluster: `stories.py STORY NAMESPACE KUBECONFIG`, where a story is one of the
functions below. It succeeds or ends with a traceback."""

import json
import sys
import threading
import time

import yaml
from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

ECHO = "keelson.local/echo:1"
TOOLBOX = "keelson.local/toolbox:1"
PATIENCE = 120


def container(image, *command):
    return client.V1Container(name="main", image=image, command=list(command) or None)


def pod(name, image, *command):
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels={"app": name}),
        spec=client.V1PodSpec(
            containers=[container(image, *command)], termination_grace_period_seconds=1
        ),
    )


def until(listing, wanted, **selection):
    """Watches until an object satisfies `wanted`, and returns it."""
    watching = watch.Watch()
    for event in watching.stream(listing, timeout_seconds=PATIENCE, **selection):
        if wanted(event["type"], event["object"]):
            watching.stop()
            return event["object"]
    raise AssertionError("nothing that was waited for in %d s" % PATIENCE)


def ready(_, found):
    return any(c.type == "Ready" and c.status == "True" for c in found.status.conditions or [])


def refused(status, call):
    try:
        call()
    except ApiException as error:
        assert error.status == status, error
        return error
    raise AssertionError("not refused with %d" % status)


def pods(namespace):
    core = client.CoreV1Api()
    made = core.create_namespaced_pod(namespace, pod("talker", TOOLBOX, "sh", "-c", "echo hello; exec sleep 600"))
    assert made.metadata.uid and made.status.phase == "Pending", made
    refused(409, lambda: core.create_namespaced_pod(namespace, pod("talker", TOOLBOX)))
    only = dict(namespace=namespace, field_selector="metadata.name=talker")
    running = until(core.list_namespaced_pod, ready, **only)
    assert running.status.pod_ip, running
    assert core.read_namespaced_pod_log("talker", namespace) == "hello\n"
    listed = core.list_namespaced_pod(namespace, label_selector="app in (talker)")
    assert [p.metadata.name for p in listed.items] == ["talker"], listed
    labelled = core.patch_namespaced_pod("talker", namespace, {"metadata": {"labels": {"tier": "front"}}})
    assert labelled.metadata.labels == {"app": "talker", "tier": "front"}, labelled
    core.delete_namespaced_pod("talker", namespace)
    until(core.list_namespaced_pod, lambda kind, _: kind == "DELETED", **only)
    missing = refused(404, lambda: core.read_namespaced_pod("talker", namespace))
    assert "NotFound" in missing.body, missing.body
    wrong = refused(422, lambda: core.create_namespaced_pod(namespace, {"metadata": {"name": "p"}, "spec": {"containers": []}}))
    assert "spec.containers: Required value" in wrong.body, wrong.body


def tunnels(namespace):
    core = client.CoreV1Api()
    core.create_namespaced_pod(namespace, pod("shell", TOOLBOX, "sleep", "600"))
    core.create_namespaced_pod(namespace, pod("web", ECHO))
    for name in ("shell", "web"):
        until(core.list_namespaced_pod, ready, namespace=namespace, field_selector="metadata.name=" + name)
    said = stream(
        core.connect_get_namespaced_pod_exec, "shell", namespace, command=["sh", "-c", "echo out; echo err >&2"],
        stdin=False, stdout=True, stderr=True, tty=False,
    )
    assert "out\n" in said and "err\n" in said, said
    shell = stream(
        core.connect_get_namespaced_pod_exec, "shell", namespace, command=["sh", "-c", "read line; echo got $line; exit 3"],
        stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
    )
    shell.write_stdin("fed\n")
    shell.run_forever(timeout=30)
    assert shell.read_stdout(timeout=30) == "got fed\n", "standard input"
    assert shell.returncode == 3, shell.returncode
    forward = portforward(core.connect_get_namespaced_pod_portforward, "web", namespace, ports="8080")
    socket = forward.socket(8080)
    socket.settimeout(PATIENCE)
    socket.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
    answer = b""
    while part := socket.recv(4096):
        answer += part
    assert answer.startswith(b"HTTP/1.1 200") and b"web" in answer, answer
    assert forward.error(8080) is None, forward.error(8080)
    for name in ("shell", "web"):
        core.delete_namespaced_pod(name, namespace)


def deployments(namespace):
    apps, core = client.AppsV1Api(), client.CoreV1Api()
    labels = {"app": "web"}
    wanted = client.V1Deployment(
        metadata=client.V1ObjectMeta(name="web", labels=labels),
        spec=client.V1DeploymentSpec(
            replicas=1,
            selector=client.V1LabelSelector(match_labels=labels),
            template=client.V1PodTemplateSpec(
                metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container(ECHO)])
            ),
        ),
    )
    apps.create_namespaced_deployment(namespace, wanted)

    def available(count):
        def holds(_, found):
            status = found.status
            return status.available_replicas == count == status.updated_replicas and not status.unavailable_replicas \
                and status.observed_generation == found.metadata.generation
        until(apps.list_namespaced_deployment, holds, namespace=namespace, field_selector="metadata.name=web")

    available(1)
    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 2}})
    available(2)
    assert apps.read_namespaced_deployment_scale("web", namespace).spec.replicas == 2
    # Strategic merge: the container is found by its name and keeps its image.
    change = {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}}}
    changed = apps.patch_namespaced_deployment("web", namespace, change)
    assert changed.spec.template.spec.containers[0].image == ECHO, changed
    available(2)
    current = apps.read_namespaced_deployment("web", namespace)
    current.spec.replicas = 1
    apps.replace_namespaced_deployment("web", namespace, current)
    current.spec.replicas = 3
    stale = refused(409, lambda: apps.replace_namespaced_deployment("web", namespace, current))
    assert "the object has been modified" in stale.body, stale.body
    available(1)
    sets = apps.list_namespaced_replica_set(namespace, label_selector="app=web").items
    assert sorted(s.spec.replicas for s in sets) == [0, 1], sets
    gone = client.V1DeleteOptions(propagation_policy="Foreground")
    apps.delete_namespaced_deployment("web", namespace, body=gone)
    until(
        apps.list_namespaced_deployment, lambda kind, _: kind == "DELETED",
        namespace=namespace, field_selector="metadata.name=web",
    )
    assert not core.list_namespaced_pod(namespace, label_selector="app=web").items, "pods outlived their owner"


def watches(namespace):
    core = client.CoreV1Api()

    def make(name):
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"of": "watches"}), data={"a": "1"})
        return core.create_namespaced_config_map(namespace, body)

    first = make("m0")
    for number in range(1, 5):
        make("m%d" % number)
    # From where one has read up to, nothing is missed and nothing comes twice.
    seen = []
    since = first.metadata.resource_version
    for _ in range(2):
        watching = watch.Watch()
        for event in watching.stream(
            core.list_namespaced_config_map, namespace, resource_version=since, label_selector="of=watches", timeout_seconds=PATIENCE
        ):
            seen.append(event["object"].metadata.name)
            since = event["object"].metadata.resource_version
            if len(seen) in (2, 4):
                watching.stop()
    assert seen == ["m1", "m2", "m3", "m4"], seen
    # Pages.
    page, names = core.list_namespaced_config_map(namespace, label_selector="of=watches", limit=2), []
    while True:
        names += [m.metadata.name for m in page.items]
        if not page.metadata._continue:
            break
        page = core.list_namespaced_config_map(
            namespace, label_selector="of=watches", limit=2, _continue=page.metadata._continue
        )
    assert names == ["m0", "m1", "m2", "m3", "m4"], names
    core.delete_collection_namespaced_config_map(namespace, label_selector="of=watches")
    assert not core.list_namespaced_config_map(namespace, label_selector="of=watches").items
    # Bookmarks are asked for by whoever wants to go on later.
    listed = core.list_namespaced_config_map(namespace)
    answer = core.list_namespaced_config_map(
        namespace, watch=True, resource_version=listed.metadata.resource_version, timeout_seconds=1, _preload_content=False
    )
    assert answer.status == 200 and answer.read() == b"", "something happened"


def applying(namespace):
    client_of_kinds = dynamic.DynamicClient(client.ApiClient())
    maps = client_of_kinds.resources.get(api_version="v1", kind="ConfigMap")

    def apply(manager, data, **more):
        # As text: not every version of the library knows how to encode what is applied.
        body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data})
        path = maps.path(name="shared", namespace=namespace)
        return client_of_kinds.request(
            "patch", path, body=body, content_type="application/apply-patch+yaml", field_manager=manager, **more
        )

    apply("one", {"a": "1", "b": "1"})
    assert apply("two", {"c": "2"}).to_dict()["data"] == {"a": "1", "b": "1", "c": "2"}
    try:
        apply("two", {"a": "2", "c": "2"})
        raise AssertionError("no conflict")
    except dynamic.exceptions.ConflictError as error:
        assert 'conflict with "one"' in json.loads(error.body)["message"], error.body
    assert apply("two", {"a": "2", "c": "2"}, force_conflicts=True).to_dict()["data"] == {"a": "2", "b": "1", "c": "2"}
    # What nobody wants any more goes.
    assert apply("one", {"a": "2"}).to_dict()["data"] == {"a": "2", "c": "2"}
    managers = {entry.manager for entry in maps.get(name="shared", namespace=namespace).metadata.managedFields}
    assert managers == {"one", "two"}, managers
    maps.delete(name="shared", namespace=namespace)


def custom(namespace):
    group = namespace + ".example.test"
    extensions = client.ApiextensionsV1Api()
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "required": ["size"], "properties": {"size": {"type": "integer", "minimum": 1}}},
            "status": {"type": "object", "properties": {"done": {"type": "boolean"}}},
        },
    }
    name = "ships." + group
    extensions.create_custom_resource_definition({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": "ships", "singular": "ship", "kind": "Ship"},
            "versions": [{
                "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
            }],
        },
    })
    try:
        until(
            extensions.list_custom_resource_definition,
            lambda _, found: any(c.type == "Established" and c.status == "True" for c in found.status.conditions or []),
            field_selector="metadata.name=" + name,
        )
        ships = client.CustomObjectsApi()
        place = (group, "v1", namespace, "ships")
        ship = {"apiVersion": group + "/v1", "kind": "Ship", "metadata": {"name": "one"}, "spec": {"size": 3, "sails": 2}}
        made = ships.create_namespaced_custom_object(*place, ship)
        assert made["spec"] == {"size": 3}, made
        wrong = dict(ship, metadata={"name": "two"}, spec={"size": 0})
        assert "spec.size" in refused(422, lambda: ships.create_namespaced_custom_object(*place, wrong)).body
        ships.patch_namespaced_custom_object_status(*place, "one", {"status": {"done": True}})
        assert ships.get_namespaced_custom_object(*place, "one")["status"] == {"done": True}
        kinds = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version=group + "/v1", kind="Ship")
        assert [s.metadata.name for s in kinds.get(namespace=namespace).items] == ["one"]
        seen = next(iter(kinds.watch(namespace=namespace, timeout=PATIENCE)))
        assert seen["type"] == "ADDED" and seen["object"].spec.size == 3, seen
        ships.delete_namespaced_custom_object(*place, "one")
        assert not ships.list_namespaced_custom_object(*place)["items"]
    finally:
        extensions.delete_custom_resource_definition(name)


def leaders(namespace):
    from kubernetes.leaderelection import electionconfig, leaderelection
    try:
        from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock as Lock
    except ImportError:  # older than the lock on leases
        from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock as Lock
    led, ended = [], threading.Event()

    def run(identity):
        def lead():
            led.append(identity)
            ended.wait(PATIENCE)
        settings = electionconfig.Config(
            Lock("leader", namespace, identity), lease_duration=4, renew_deadline=3, retry_period=1,
            onstarted_leading=lead, onstopped_leading=lambda: None,
        )
        leaderelection.LeaderElection(settings).run()

    for identity in ("first", "second"):
        threading.Thread(target=run, args=(identity,), daemon=True).start()
        time.sleep(2)
    time.sleep(8)
    assert led == ["first"], led
    ended.set()


def leases(namespace):
    coordination = client.CoordinationV1Api()
    body = client.V1Lease(
        metadata=client.V1ObjectMeta(name="held"),
        spec=client.V1LeaseSpec(holder_identity="me", lease_duration_seconds=15, lease_transitions=0),
    )
    made = coordination.create_namespaced_lease(namespace, body)
    mine, theirs = coordination.read_namespaced_lease("held", namespace), made
    mine.spec.holder_identity = "me again"
    coordination.replace_namespaced_lease("held", namespace, mine)
    theirs.spec.holder_identity = "somebody else"
    refused(409, lambda: coordination.replace_namespaced_lease("held", namespace, theirs))
    assert coordination.read_namespaced_lease("held", namespace).spec.holder_identity == "me again"


def documents(namespace):
    """YAML says what JSON says, to a reader for whom `on` is a boolean and a date a date."""
    words = ["on", "Off", "yes", "n", "~", "null", "0123", "0x1f", "1_000", "1:20", "1e3", "2026-01-01", "<<", "=",
             "a: b", "# a", "- a", " a ", "a\nb\n", "a\n\n", "\t", "\u00e9\u2028", "word " * 60, ""]
    core = client.CoreV1Api()
    data = {"k%d" % number: word for number, word in enumerate(words)}
    named = client.V1ObjectMeta(name="words", annotations={"y": "on"})
    core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=named, data=data))
    maps = "/api/v1/namespaces/%s/configmaps" % namespace

    def text(path, accept="application/json", via=core.api_client):
        try:
            answer = via.call_api(
                path, "GET", header_params={"Accept": accept}, auth_settings=["BearerToken"],
                _preload_content=False, _return_http_data_only=True)
            return answer.data.decode()
        except ApiException as error:
            return error.body if isinstance(error.body, str) else error.body.decode()

    for path in [maps + "/words", maps]:
        shown = yaml.safe_load(text(path, "application/yaml"))
        # Controllers write here as well: a list is compared with what it was at the same version.
        then = "?resourceVersionMatch=Exact&resourceVersion=" + shown["metadata"]["resourceVersion"]
        assert shown == json.loads(text(path + then if path == maps else path)), path
    # Whoever looks at it gets a line for each value.
    looking = client.ApiClient()
    looking.user_agent = "curl/8.0"
    for path in [maps + "/words", maps, maps + "/none", "/apis/apps/v1"]:
        shown = text(path, via=looking)
        assert shown == json.dumps(json.loads(shown), indent=2, ensure_ascii=False), shown
        assert "\n" not in text(path).strip() and "\n" not in text(path + "?pretty=false", via=looking).strip(), path


STORIES = [pods, tunnels, deployments, watches, applying, custom, leaders, leases, documents]

if __name__ == "__main__":
    story, where, kubeconfig = sys.argv[1:]
    config.load_kube_config(config_file=kubeconfig)
    {known.__name__: known for known in STORIES}[story](where)
