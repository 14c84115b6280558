"""The Python client `etcd3` against a hub: arguments are host and port.

`pip install etcd3 'protobuf<3.21'` into a virtual environment; `ETCD3_PYTHON` names its interpreter for the test in
`src/etcd_api/tests/python.rs`. Prints `ok` at the end; any difference from what etcd does raises.
"""

import queue
import sys

import etcd3

host, port = sys.argv[1:3]
client = etcd3.client(host=host, port=int(port), timeout=10)


def expect(found, wanted):
    if found != wanted:
        raise AssertionError(f"found {found!r}, expected {wanted!r}")


client.put("py/a", "1")
client.put("py/b", "2")
expect(client.get("py/a")[0], b"1")
expect([(meta.key, value) for value, meta in client.get_prefix("py/")], [(b"py/a", b"1"), (b"py/b", b"2")])
expect(client.get("py/none"), (None, None))

done, _ = client.transaction(
    compare=[client.transactions.value("py/a") == "1", client.transactions.version("py/none") == 0],
    success=[client.transactions.put("py/a", "3"), client.transactions.delete("py/b")],
    failure=[client.transactions.put("py/failed", "1")],
)
expect(done, True)
expect([value for value, _ in client.get_prefix("py/")], [b"3"])
expect(client.replace("py/a", "3", "4"), True)
expect(client.replace("py/a", "3", "5"), False)

events = queue.Queue()
watch = client.add_watch_prefix_callback("py/", lambda answer: [events.put(event) for event in answer.events])
lease = client.lease(60)
client.put("py/leased", "x", lease=lease)
expect(lease.keys, [b"py/leased"])
expect([answer.TTL for answer in lease.refresh()], [60])
lease.revoke()
seen = [events.get(timeout=10), events.get(timeout=10)]
expect([type(event).__name__ for event in seen], ["PutEvent", "DeleteEvent"])
expect([event.key for event in seen], [b"py/leased"] * 2)
client.cancel_watch(watch)

with client.lock("name", ttl=10) as lock:
    expect(lock.is_acquired(), True)
expect([member.name for member in client.members], ["isthmus"])
expect(client.status().version.startswith("3.5."), True)
expect(client.delete_prefix("py/").deleted, 1)
print("ok")
