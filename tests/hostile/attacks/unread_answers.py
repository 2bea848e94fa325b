"""Clients with the public key send what is answered by an error, and read nothing."""

import asyncio

from clients import Pusher, frame
from cluster import MIB, Cluster
from honest import Honest

# Binary messages are answered by an error of some 130 bytes.
JUNK = frame(b"", 2) * 9000
SECONDS = 8


async def attack(executable, scale):
    cluster = Cluster(executable, gateways=1)
    try:
        await cluster.ready()
        gateway = cluster.gateways[0]
        clients = []
        for number in range(max(20, int(500 * scale))):
            client = await Pusher.join(gateway.web, source=f"127.0.1.{1 + number % 200}")
            client.writer.transport.pause_reading()
            clients.append(client)
        before = most = gateway.resident_bytes()
        async with Honest(gateway.web) as honest:
            for client in clients:
                client.writer.write(JUNK)
            for _ in range(SECONDS * 5):
                await asyncio.sleep(0.2)
                most = max(most, gateway.resident_bytes())
            told = honest.check()
        for client in clients:
            client.abort()
        # A frame of six bytes must not make a gateway keep twenty times as much.
        cost, bound = (most - before) / MIB, 32 + 0.3 * len(clients)
        assert cost < bound, f"{len(clients)} clients that do not read cost {cost:.0f} MiB"
        return f"{len(clients)} clients that do not read cost {cost:.0f} MiB; {told}"
    finally:
        cluster.stop()
