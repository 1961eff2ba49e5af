// JavaScript's client library against a cluster: `node stories.mjs STORY NAMESPACE KUBECONFIG`, where a story is one of
// the functions below. It succeeds or ends with a stack trace.

import assert from 'node:assert/strict';
import net from 'node:net';
import { PassThrough, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

import * as k8s from '@kubernetes/client-node';

const ECHO = 'keelson.local/echo:1';
const TOOLBOX = 'keelson.local/toolbox:1';
const PATIENCE = 120_000;

const [story, namespace, kubeconfig] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

const patchAs = (strategy) => k8s.setHeaderOptions('Content-Type', strategy);

const pod = (name, image, ...command) => ({
  metadata: { name, labels: { app: name } },
  spec: {
    terminationGracePeriodSeconds: 1,
    containers: [{ name: 'main', image, ...(command.length ? { command } : {}) }],
  },
});

/** Watches a path until an object satisfies `wanted`, and returns it. */
function until(path, query, wanted) {
  return new Promise((resolve, reject) => {
    let stop = () => {};
    const timer = setTimeout(() => { stop(); reject(new Error(`waited for ${path}`)); }, PATIENCE);
    new k8s.Watch(config).watch(
      path, query,
      (type, object) => {
        if (!wanted(type, object)) return;
        clearTimeout(timer);
        resolve(object);
        stop();
      },
      (error) => { if (error && error.name !== 'AbortError') reject(error); },
    ).then((request) => { stop = () => request.abort(); }, reject);
  });
}

const podPath = () => `/api/v1/namespaces/${namespace}/pods`;
const isReady = (_, object) =>
  (object.status?.conditions ?? []).some((c) => c.type === 'Ready' && c.status === 'True');
const ready = (name) => until(podPath(), { fieldSelector: `metadata.name=${name}` }, isReady);

async function refused(code, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.code, code, error);
    return typeof error.body === 'string' ? error.body : JSON.stringify(error.body);
  }
  throw new Error(`not refused with ${code}`);
}

function collected() {
  let text = '';
  const sink = new Writable({ write(chunk, _, done) { text += chunk; done(); } });
  return { sink, text: () => text };
}

async function pods() {
  const made = await core.createNamespacedPod({
    namespace, body: pod('talker', TOOLBOX, 'sh', '-c', 'echo hello; exec sleep 600'),
  });
  assert.ok(made.metadata.uid && made.metadata.creationTimestamp instanceof Date);
  await refused(409, () => core.createNamespacedPod({ namespace, body: pod('talker', TOOLBOX) }));
  await ready('talker');
  assert.equal(await core.readNamespacedPodLog({ namespace, name: 'talker' }), 'hello\n');
  const { sink, text } = collected();
  await new k8s.Log(config).log(namespace, 'talker', 'main', sink, { follow: true, tailLines: 1 });
  for (let tries = 0; !text() && tries < 100; tries += 1) await sleep(50);
  assert.equal(text(), 'hello\n');
  const listed = await core.listNamespacedPod({ namespace, labelSelector: 'app=talker' });
  assert.deepEqual(listed.items.map((p) => p.metadata.name), ['talker']);
  const labelled = await core.patchNamespacedPod(
    { namespace, name: 'talker', body: { metadata: { labels: { tier: 'front' } } } }, patchAs(k8s.PatchStrategy.MergePatch),
  );
  assert.deepEqual(labelled.metadata.labels, { app: 'talker', tier: 'front' });
  const gone = until(podPath(), { fieldSelector: 'metadata.name=talker' }, (type) => type === 'DELETED');
  await core.deleteNamespacedPod({ namespace, name: 'talker' });
  await gone;
  assert.match(await refused(404, () => core.readNamespacedPod({ namespace, name: 'talker' })), /NotFound/);
  const wrong = { metadata: { name: 'p' }, spec: { containers: [] } };
  assert.match(
    await refused(422, () => core.createNamespacedPod({ namespace, body: wrong })), /spec\.containers: Required value/,
  );
}

async function tunnels() {
  await core.createNamespacedPod({ namespace, body: pod('shell', TOOLBOX, 'sleep', '600') });
  await core.createNamespacedPod({ namespace, body: pod('web', ECHO) });
  await Promise.all([ready('shell'), ready('web')]);
  const run = async (command, input) => {
    const [out, err] = [collected(), collected()];
    const status = await new Promise((resolve, reject) => {
      new k8s.Exec(config)
        .exec(namespace, 'shell', 'main', command, out.sink, err.sink, input, false, resolve)
        .catch(reject);
    });
    return { status, out: out.text(), err: err.text() };
  };
  const plain = await run(['sh', '-c', 'echo out; echo err >&2'], null);
  assert.deepEqual([plain.status.status, plain.out, plain.err], ['Success', 'out\n', 'err\n']);
  const failed = await run(['sh', '-c', 'exit 3'], null);
  assert.equal(failed.status.status, 'Failure');
  assert.deepEqual(failed.status.details.causes, [{ reason: 'ExitCode', message: '3' }]);
  // It stays open: the end of input would end the connection.
  const input = new PassThrough();
  input.write('fed\n');
  const fed = await run(['sh', '-c', 'read line; echo got $line'], input);
  assert.equal(fed.out, 'got fed\n');
  const forward = new k8s.PortForward(config);
  const server = net.createServer((socket) => {
    forward.portForward(namespace, 'web', [8080], socket, null, socket);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const answer = await new Promise((resolve, reject) => {
    let text = '';
    const socket = net.connect(server.address().port, '127.0.0.1', () => {
      socket.write('GET / HTTP/1.1\r\nHost: web\r\n\r\n');
    });
    socket.on('data', (part) => {
      text += part;
      if (text.includes('web')) { socket.destroy(); resolve(text); }
    });
    socket.on('error', reject);
  });
  assert.match(answer, /^HTTP\/1\.1 200/);
  server.close();
}

async function deployments() {
  const labels = { app: 'web' };
  await apps.createNamespacedDeployment({
    namespace,
    body: {
      metadata: { name: 'web', labels },
      spec: {
        replicas: 1, selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: { containers: [{ name: 'main', image: ECHO }] } },
      },
    },
  });
  const path = `/apis/apps/v1/namespaces/${namespace}/deployments`;
  const only = { fieldSelector: 'metadata.name=web' };
  const available = (count) => until(path, only, (_, { metadata, status = {} }) =>
    status.availableReplicas === count && status.updatedReplicas === count && status.replicas === count
      && status.observedGeneration === metadata.generation);
  const name = 'web';
  await available(1);
  await apps.patchNamespacedDeployment(
    { namespace, name, body: [{ op: 'replace', path: '/spec/replicas', value: 2 }] }, patchAs(k8s.PatchStrategy.JsonPatch),
  );
  await available(2);
  assert.equal((await apps.readNamespacedDeploymentScale({ namespace, name })).spec.replicas, 2);
  const change = { spec: { template: { spec: { containers: [{ name: 'main', env: [{ name: 'A', value: '1' }] }] } } } };
  const changed = await apps.patchNamespacedDeployment(
    { namespace, name, body: change }, patchAs(k8s.PatchStrategy.StrategicMergePatch),
  );
  assert.equal(changed.spec.template.spec.containers[0].image, ECHO);
  await available(2);
  // The controller still counts pods that end: a replacement may come just after it wrote that down.
  let current;
  for (let replaced = false; !replaced;) {
    current = await apps.readNamespacedDeployment({ namespace, name });
    current.spec.replicas = 1;
    replaced = await apps.replaceNamespacedDeployment({ namespace, name, body: current }).then(() => true, (error) => {
      if (error.code !== 409) throw error;
      return false;
    });
  }
  assert.match(
    await refused(409, () => apps.replaceNamespacedDeployment({ namespace, name, body: current })),
    /the object has been modified/,
  );
  await available(1);
  const gone = until(path, only, (type) => type === 'DELETED');
  await apps.deleteNamespacedDeployment({ namespace, name, propagationPolicy: 'Foreground' });
  await gone;
  assert.equal((await core.listNamespacedPod({ namespace, labelSelector: 'app=web' })).items.length, 0);
}

async function informers() {
  const make = (name) => core.createNamespacedConfigMap({ namespace, body: { metadata: { name, labels: { of: 'us' } }, data: { a: '1' } } });
  await make('m0');
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const seen = [];
  const informer = k8s.makeInformer(
    config, path, () => core.listNamespacedConfigMap({ namespace, labelSelector: 'of=us' }), 'of=us',
  );
  for (const verb of ['add', 'update', 'delete']) informer.on(verb, (map) => seen.push(`${verb} ${map.metadata.name}`));
  const told = async (...wanted) => {
    for (let tries = 0; seen.length < wanted.length && tries < 200; tries += 1) await sleep(50);
    assert.deepEqual(seen.splice(0), wanted);
  };
  await informer.start();
  await told('add m0');
  await make('m1');
  await told('add m1');
  await core.patchNamespacedConfigMap(
    { namespace, name: 'm0', body: { data: { a: '2' } } }, patchAs(k8s.PatchStrategy.MergePatch),
  );
  await told('update m0');
  // It goes on from where it was, whatever happened while nobody looked.
  await informer.stop();
  await core.deleteNamespacedConfigMap({ namespace, name: 'm1' });
  await informer.start();
  await told('delete m1');
  assert.equal(informer.get('m0', namespace).data.a, '2');
  await informer.stop();
  const pages = await core.listNamespacedConfigMap({ namespace, limit: 1 });
  assert.ok(pages.metadata._continue && pages.items.length === 1);
}

async function applying() {
  const objects = k8s.KubernetesObjectApi.makeApiClient(config);
  const apply = (manager, data, force) => objects.patch(
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'shared', namespace }, data },
    undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply,
  );
  await apply('one', { a: '1', b: '1' });
  assert.deepEqual((await apply('two', { c: '2' })).data, { a: '1', b: '1', c: '2' });
  assert.match(await refused(409, () => apply('two', { a: '2', c: '2' })), /conflict with \\*"one\\*"/);
  assert.deepEqual((await apply('two', { a: '2', c: '2' }, true)).data, { a: '2', b: '1', c: '2' });
  assert.deepEqual((await apply('one', { a: '2' })).data, { a: '2', c: '2' });
  const read = await objects.read({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'shared', namespace } });
  assert.deepEqual(read.metadata.managedFields.map((entry) => entry.manager).sort(), ['one', 'two']);
  await objects.delete({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'shared', namespace } });
}

async function custom() {
  const group = `${namespace}.example.test`;
  const extensions = config.makeApiClient(k8s.ApiextensionsV1Api);
  const name = `boats.${group}`;
  const spec = { type: 'object', properties: { size: { type: 'integer', minimum: 1 } } };
  await extensions.createCustomResourceDefinition({
    body: {
      metadata: { name },
      spec: {
        group, scope: 'Namespaced', names: { plural: 'boats', singular: 'boat', kind: 'Boat' },
        versions: [{
          name: 'v1', served: true, storage: true,
          schema: { openAPIV3Schema: { type: 'object', properties: { spec } } },
        }],
      },
    },
  });
  try {
    await until(
      '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', { fieldSelector: `metadata.name=${name}` },
      (_, object) => (object.status?.conditions ?? []).some((c) => c.type === 'Established' && c.status === 'True'),
    );
    const boats = config.makeApiClient(k8s.CustomObjectsApi);
    const place = { group, version: 'v1', namespace, plural: 'boats' };
    const boat = { apiVersion: `${group}/v1`, kind: 'Boat', metadata: { name: 'one' }, spec: { size: 3, sails: 1 } };
    const made = await boats.createNamespacedCustomObject({ ...place, body: boat });
    assert.deepEqual(made.spec, { size: 3 });
    const wrong = { ...boat, metadata: { name: 'two' }, spec: { size: 0 } };
    assert.match(await refused(422, () => boats.createNamespacedCustomObject({ ...place, body: wrong })), /spec\.size/);
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const listed = await objects.list(`${group}/v1`, 'Boat', namespace);
    assert.deepEqual(listed.items.map((b) => b.metadata.name), ['one']);
    await boats.deleteNamespacedCustomObject({ ...place, name: 'one' });
  } finally {
    await extensions.deleteCustomResourceDefinition({ name });
  }
}

async function leases() {
  const coordination = config.makeApiClient(k8s.CoordinationV1Api);
  const renewTime = new k8s.V1MicroTime();
  const body = { metadata: { name: 'held' }, spec: { holderIdentity: 'me', leaseDurationSeconds: 15, renewTime } };
  const theirs = await coordination.createNamespacedLease({ namespace, body });
  const mine = await coordination.readNamespacedLease({ namespace, name: 'held' });
  assert.equal(new Date(mine.spec.renewTime).getTime(), renewTime.getTime());
  mine.spec.renewTime = renewTime;
  mine.spec.holderIdentity = 'me again';
  await coordination.replaceNamespacedLease({ namespace, name: 'held', body: mine });
  theirs.spec.holderIdentity = 'somebody else';
  await refused(409, () => coordination.replaceNamespacedLease({ namespace, name: 'held', body: theirs }));
  assert.equal((await coordination.readNamespacedLease({ namespace, name: 'held' })).spec.holderIdentity, 'me again');
}

await { pods, tunnels, deployments, informers, applying, custom, leases }[story]();
// Streams that the library keeps open would keep the process.
process.exit(0);
