"""Every command of Python's etcd3 client, against three members with TLS.

Arguments: the port of a member, the authority, a client's certificate and its key.
"""

import io
import sys
import threading

import etcd3

port, ca, cert, key = sys.argv[1:5]
client = etcd3.client(host="127.0.0.1", port=int(port), ca_cert=ca, cert_cert=cert, cert_key=key, timeout=20)


def check(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r} instead of {wanted!r}")


# Keys
client.put("a", "1")
value, meta = client.get("a")
check((value, meta.key, meta.version), (b"1", b"a", 1))
check(client.get("absent"), (None, None))
check(client.put("a", "2", prev_kv=True).prev_kv.value, b"1")
check(client.put_if_not_exists("a", "3"), False)
check(client.put_if_not_exists("b", "3"), True)
check(client.replace("a", "wrong", "x"), False)
check(client.replace("a", "2", "4"), True)
check([value for value, _ in client.get_all()], [b"4", b"3"])
check([meta.key for _, meta in client.get_all(keys_only=True)], [b"a", b"b"])
check([value for value, _ in client.get_all(sort_order="descend", sort_target="key")], [b"3", b"4"])
check([value for value, _ in client.get_range("a", "b")], [b"4"])
check([value for value, _ in client.get_all()], [b"4", b"3"])
check(client.get_response("a", serializable=True).count, 1)
check(client.delete("b"), True)
check(client.delete("b"), False)
for number in range(5):
    client.put(f"p/{number}", str(number))
check(client.delete_prefix("p/").deleted, 5)

# Transactions
succeeded, responses = client.transaction(
    compare=[
        client.transactions.value("a") == "4",
        client.transactions.version("a") > 0,
        client.transactions.create("a") > 0,
        client.transactions.mod("a") > 0,
    ],
    success=[client.transactions.put("t", "yes"), client.transactions.get("a")],
    failure=[client.transactions.delete("a")],
)
check(succeeded, True)
check(responses[1][0][0], b"4")
succeeded, _ = client.transaction(
    compare=[client.transactions.value("a") == "other"],
    success=[],
    failure=[client.transactions.delete("t"), client.transactions.txn([], [], [])],
)
check(succeeded, False)
check(client.get("t")[0], None)

# Watches
seen = []
done = threading.Event()


def on_change(response):
    seen.extend((type(event).__name__, event.key, event.value) for event in response.events)
    if len(seen) >= 3:
        done.set()


watch = client.add_watch_prefix_callback("w/", on_change)
client.put("w/1", "x")
client.put("w/2", "y")
client.delete("w/1")
if not done.wait(20):
    raise AssertionError(f"watched only {seen}")
client.cancel_watch(watch)
check(seen, [("PutEvent", b"w/1", b"x"), ("PutEvent", b"w/2", b"y"), ("DeleteEvent", b"w/1", b"")])
threading.Timer(0.5, lambda: client.put("once", "now")).start()
check(client.watch_once("once", timeout=20).value, b"now")
revision = client.get("w/2")[1].mod_revision
events, cancel = client.watch("w/2", start_revision=revision)
check(next(events).value, b"y")
cancel()
client.compact(client.get_response("a").header.revision)
try:
    events, cancel = client.watch("w/2", start_revision=1)
    next(events)
    raise AssertionError("compacted history was watched")
except etcd3.exceptions.RevisionCompactedError as error:
    check(error.compacted_revision > 0, True)

# Leases and locks
lease = client.lease(60)
client.put("leased", "x", lease=lease)
check(lease.granted_ttl, 60)
check(0 < lease.remaining_ttl <= 60, True)
check(list(lease.keys), [b"leased"])
check(list(lease.refresh())[0].TTL, 60)
check(list(client.refresh_lease(lease.id))[0].ID, lease.id)
check(client.get_lease_info(lease.id).grantedTTL, 60)
lease.revoke()
check(client.get("leased")[0], None)
with client.lock("name", ttl=20) as lock:
    check(lock.is_acquired(), True)
    check(client.lock("name", ttl=20).acquire(timeout=1), False)
check(lock.is_acquired(), False)

# The group
members = list(client.members)
check(len(members), 3)
check(sorted(member.name for member in members), ["m1", "m2", "m3"])
status = client.status()
check(status.leader.name in ("m1", "m2", "m3"), True)
check(status.db_size > 0, True)
check(client.hash() is not None, True)
check(list(client.list_alarms()), [])
alarm = list(client.create_alarm())
check(len(alarm), 1)
try:
    client.put("refused", "x")
    raise AssertionError("a put in spite of the alarm")
except Exception as error:
    check("database space exceeded" in str(error), True)
check(len(list(client.disarm_alarm())), 1)
client.put("accepted", "x")
client.defragment()
backup = io.BytesIO()
client.snapshot(backup)
check(len(backup.getvalue()) % 512, 32)
added = client.add_member(["https://127.0.0.1:1"])
added.update(["https://127.0.0.1:2"])
check([member.peer_urls for member in client.members if member.id == added.id], [["https://127.0.0.1:2"]])
added.remove()
check(len(list(client.members)), 3)
client.close()
print("every command was answered")
