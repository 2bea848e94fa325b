"""The whole host pauses for longer than any limit of silence, as a laptop or a virtual machine does."""

import asyncio
import signal

from clients import Pusher, WebSocket
from cluster import Cluster, until

CLIENTS = 20


async def attack(executable, scale):
    seconds = max(12, 170 * scale)
    # At a small scale the limits of silence are as much smaller as the pause.
    listener = 'ping_interval = "4s"\nsilence_max = "9s"' if scale < 1 else ""
    app = 'activity_timeout = "5s"\npong_timeout = "4s"' if scale < 1 else ""
    cluster = Cluster(executable, gateways=2, listener=listener, app=app)
    try:
        await cluster.ready()
        raw, pusher = [], []
        for gateway in cluster.gateways:
            raw += [await WebSocket.connect(gateway.web, "/ws") for _ in range(CLIENTS)]
            pusher += [await Pusher.join(gateway.web) for _ in range(CLIENTS)]
        for client in pusher:
            await client.subscribed("room")
        for process in cluster.processes():
            process.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        for process in cluster.processes():
            process.signal(signal.SIGCONT)
        # They have all the time to be closed in.
        await asyncio.sleep(2)
        await until("the cluster is complete again", cluster.complete)
        for audience in ({"app": "1", "groups": ["room"]}, {"all": True}):
            receipt = cluster.command("Send", {"to": audience, "text": "after the pause"})
            assert receipt["coverage"]["complete"], receipt
        for client in raw:
            assert await asyncio.wait_for(client.receive(), 30) == "after the pause", f"closed {client.closed}"
        for client in pusher:
            await client.expect("message", "room")
        return f"{len(raw)} raw and {len(pusher)} Pusher clients stayed over a pause of {seconds:.0f} s"
    finally:
        cluster.stop()
