"""A worker in Python: sends every message back to its client.

Run:
    python3 -m venv venv && venv/bin/pip install -r business/examples/python/requirements.txt
    venv/bin/python business/examples/python/worker.py

It needs nothing of this project but the .proto files: the stubs are made from them when it starts.
It follows the register's views without being a member, attaches to every gateway, acknowledges what
it has handled, attaches again when a stream breaks, and on SIGTERM or Ctrl-C leaves without losing
an event. BROADGATE_REGISTER names the register (127.0.0.1:7100), BROADGATE_SECRET its secret,
BROADGATE_SERVICE whose events it takes (default). Where the cluster has [cluster.tls],
BROADGATE_CLUSTER__TLS__CA, __CERT, __KEY and __SERVER_NAME are the same as for its processes.
"""

import importlib
import itertools
import os
import pathlib
import queue
import random
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_tools import protoc


def variable(name, default):
    """A variable of the environment; an empty one counts as not set."""
    text = os.environ.get(name) or default
    try:
        text.encode()
    except UnicodeEncodeError:
        sys.exit(f"environment variable {name}: its value is not UTF-8: set it to a text, or unset it")
    return text


PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto"
REGISTERS = [one.strip() for one in variable("BROADGATE_REGISTER", "127.0.0.1:7100").split(",") if one.strip()]
SECRET = variable("BROADGATE_SECRET", "").replace(",", " ").split()
CA, CERT, KEY = (variable(f"BROADGATE_CLUSTER__TLS__{file}", "") for file in ("CA", "CERT", "KEY"))
SERVER_NAME = variable("BROADGATE_CLUSTER__TLS__SERVER_NAME", "broadgate")
SERVICE = variable("BROADGATE_SERVICE", "default")
# 48 random bits in base32, as every incarnation: the last of the 10 characters holds only 3 of them.
INCARNATION = "".join(random.choices("0123456789abcdefghijklmnopqrstuv", k=9) + random.choices("048cgkos"))
EVENTS_MAX = 256  # that one gateway may leave unanswered here
WAIT_MIN_S, WAIT_MAX_S = 0.1, 2.0  # between two tries
STOP_S = 20  # to be released by every gateway
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


def stubs(folder):
    """Makes Python modules of the .proto files and returns those that are needed."""
    files = sorted(str(path) for path in (PROTO / "broadgate" / "v1").glob("*.proto"))
    made = protoc.main(["protoc", f"-I{PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files])
    if made != 0:
        sys.exit(f"no stubs could be made of the .proto files in {PROTO}")
    sys.path.insert(0, folder)
    names = ("types_pb2", "worker_pb2", "gateway_pb2", "register_pb2", "worker_pb2_grpc", "gateway_pb2_grpc",
             "register_pb2_grpc")
    return [importlib.import_module(f"broadgate.v1.{name}") for name in names]


# What is imported does not need its files any more, and however this process ends, none is left behind.
with tempfile.TemporaryDirectory(prefix="broadgate-stubs-") as stub_folder:
    types, worker, gateway, register, worker_grpc, gateway_grpc, register_grpc = stubs(stub_folder)
    sys.path.remove(stub_folder)

NAME = f"python-{os.getpid()}"
# Operators see the name where a command of this worker closes a client.
METADATA = [("broadgate-worker", NAME)]
if SECRET:
    METADATA.append(("authorization", f"Bearer {SECRET[0]}"))
stopping = threading.Event()


def log(*words):
    print(*words, file=sys.stderr, flush=True)


def read(path):
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        sys.exit(f"{path} cannot be read: {error.strerror} (BROADGATE_CLUSTER__TLS__CA, __CERT, __KEY)")


def connect(address):
    """A channel; inside TLS if there are certificates, which are read again for each channel.

    All certificates of a cluster have one name, whatever address is dialled.
    """
    if not (CA or CERT or KEY):
        return grpc.insecure_channel(address, options=KEEPALIVE)
    if not (CA and CERT and KEY):
        sys.exit("TLS needs all of BROADGATE_CLUSTER__TLS__CA, BROADGATE_CLUSTER__TLS__CERT and BROADGATE_CLUSTER__TLS__KEY")
    shown = grpc.ssl_channel_credentials(read(CA), read(KEY), read(CERT))
    return grpc.secure_channel(address, shown, options=[*KEEPALIVE, ("grpc.ssl_target_name_override", SERVER_NAME)])


def waits():
    """Growing waits, with jitter so that a cluster does not redial as one."""
    wait = WAIT_MIN_S
    while True:
        yield wait * random.uniform(0.5, 1)
        wait = min(wait * 2, WAIT_MAX_S)


class ClientQueues:
    """Handles the events of one client in turn, those of different clients at the same time.

    Bounded by what the gateway leaves unanswered.
    """

    def __init__(self, handle):
        self.handle = handle
        self.pool = ThreadPoolExecutor(max_workers=8)
        self.lock = threading.Lock()
        self.waiting = {}  # client id -> events; a client that is here has a thread at work

    def put(self, event):
        with self.lock:
            events = self.waiting.get(event.client_id)
            if events is not None:
                events.append(event)
                return
            self.waiting[event.client_id] = [event]
        self.pool.submit(self.run, event.client_id)

    def run(self, client_id):
        while True:
            with self.lock:
                event = self.waiting[client_id][0]
            self.handle(event)
            with self.lock:
                self.waiting[client_id].pop(0)
                if not self.waiting[client_id]:
                    del self.waiting[client_id]
                    return

    def drop(self):
        """The stream broke: what has not begun is given out again by the gateway."""
        with self.lock:
            for events in self.waiting.values():
                del events[1:]


class Link:
    """One gateway, from when it comes into the view until it leaves it."""

    def __init__(self, member):
        self.member = member
        self.gone = threading.Event()
        self.call = None
        self.out = None
        self.thread = threading.Thread(target=self.run, daemon=True, name=member.name)
        self.thread.start()

    def run(self):
        with connect(self.member.address) as channel:
            self.commands = gateway_grpc.GatewayStub(channel)
            wait = waits()
            while not self.gone.is_set() and not stopping.is_set():
                queues = ClientQueues(self.handle)
                try:
                    if self.attach(worker_grpc.WorkerStub(channel), queues):
                        return
                    wait = waits()
                except grpc.RpcError as error:
                    log(f"{self.member.name}: {error.code().name}: {error.details()}")
                queues.drop()
                queues.pool.shutdown(wait=True)
                self.gone.wait(next(wait))

    def attach(self, stub, queues):
        """One stream; True if the gateway has released this worker."""
        self.out = out = queue.Queue()
        hello = worker.WorkerHello(
            incarnation=INCARNATION, name=NAME, services=[SERVICE], events_max=EVENTS_MAX,
            version="0.1.0")
        out.put(worker.WorkerFrame(hello=hello))
        if stopping.is_set():
            return True
        try:
            self.call = stub.Attach(iter(out.get, None), metadata=METADATA)
            for frame in self.call:
                kind = frame.WhichOneof("frame")
                if kind == "hello":
                    log(f"attached to {frame.hello.name}")
                    if frame.hello.incarnation != self.member.incarnation:
                        return self.gone.is_set()
                elif kind == "events":
                    for event in frame.events.events:
                        queues.put(event)
                elif kind == "released":
                    log(f"released by {self.member.name}")
                    return True
            return False
        finally:
            out.put(None)

    def handle(self, event):
        out = self.out
        try:
            if event.WhichOneof("event") == "handshake":
                accept = worker.Decision(seq=event.seq, accept=worker.Accept())
                out.put(worker.WorkerFrame(decision=accept))
                return
            if event.WhichOneof("event") == "message":
                self.echo(event)
        except Exception as error:  # one event's trouble must not end the worker
            log(f"event of {event.client_id} failed: {error!r}")
        out.put(worker.WorkerFrame(acks=worker.Acks(seqs=[event.seq])))

    def echo(self, event):
        # The gateway that sent a client's event is the nearest one for commands about it.
        to = types.Audience(app=event.app, clients=[event.client_id])
        request = gateway.SendRequest(to=to)
        kind = event.message.WhichOneof("payload")
        if kind is not None:
            setattr(request, kind, getattr(event.message, kind))
            self.commands.Send(request, metadata=METADATA, timeout=5)

    def leave(self):
        if self.out is not None:
            self.out.put(worker.WorkerFrame(leaving=worker.Leaving()))

    def end(self):
        self.gone.set()
        if self.call is not None:
            self.call.cancel()


def follow(links):
    """Follows the register's views, for ever; the registers are tried in turn."""
    wait = waits()
    for address in itertools.cycle(REGISTERS):
        if stopping.is_set():
            return
        try:
            with connect(address) as channel:
                stub = register_grpc.RegisterStub(channel)
                for view in stub.Watch(register.WatchRequest(), metadata=METADATA):
                    install(links, view)
                    wait = waits()
        except grpc.RpcError as error:
            # Everything goes on with the last view.
            log(f"register {address}: {error.code().name}: {error.details()}")
        stopping.wait(next(wait))


def install(links, view):
    if stopping.is_set() or not view.HasField("epoch"):
        return
    gateways = {one.incarnation: one for one in view.members if one.role == types.ROLE_GATEWAY and one.address}
    for incarnation in set(links) - set(gateways):
        links.pop(incarnation).end()
    for incarnation in set(gateways) - set(links):
        links[incarnation] = Link(gateways[incarnation])


def main():
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    links = {}
    threading.Thread(target=follow, args=(links,), daemon=True).start()
    while not stopping.wait(0.5):
        pass
    left = list(links.values())
    for link in left:
        link.leave()
    deadline = time.monotonic() + STOP_S
    for link in left:
        link.thread.join(max(0, deadline - time.monotonic()))
    log("the worker has left the cluster")


if __name__ == "__main__":
    main()
