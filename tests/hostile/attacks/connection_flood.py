"""Strangers open more connections than the gateway takes, on every path, and keep them: some send nothing,
some half a request, some ask for the API, and some never read what they are answered."""

import asyncio

from clients import api_request
from cluster import KEY, Cluster, until
from honest import Honest

CLIENTS_MAX = 100
PER_ADDRESS_MAX = 20
# Farewells and sockets that the system has accepted but the gateway not yet.
SLACK = 80


def requests():
    upgrade = ("Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    return [
        b"",
        b"GET / HTTP/1.1\r\nHost: loc",
        api_request("GET", "/apps/1/channels"),
        api_request("GET", "/apps/1/channels", signed=False) * 200,
        api_request("POST", "/apps/1/events", b"x" * 5000, signed=False)[:-100],
        b"GET /up HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500,
        f"GET /app/{KEY}?protocol=7 HTTP/1.1\r\n{upgrade}".encode(),
        f"GET /app/unknown?protocol=7 HTTP/1.1\r\n{upgrade}".encode(),
        f"GET /ws HTTP/1.1\r\n{upgrade}".encode(),
    ]


async def attack(executable, scale):
    limits = f"clients_max = {CLIENTS_MAX}\nclients_per_ip_max = {PER_ADDRESS_MAX}\nfirst_byte_time_max = \"2s\""
    cluster = Cluster(executable, limits=limits)
    try:
        await cluster.ready()
        gateway = cluster.gateways[0]
        before = gateway.descriptors()
        async with Honest(gateway.web) as honest:
            kinds, writers, most = requests(), [], 0
            for n in range(int(3000 * scale)):
                try:
                    # A few addresses: the limit per address must hold.
                    source = f"127.0.3.{n % 4 + 1}"
                    _, writer = await asyncio.open_connection("127.0.0.1", gateway.web, local_addr=(source, 0))
                    writer.write(kinds[n % len(kinds)])
                    # Nobody reads: what is answered fills the buffers of both ends.
                    writer.transport.pause_reading()
                    writers.append(writer)
                except OSError:
                    pass
                if n % 50 == 0:
                    await asyncio.sleep(0)
                    most = max(most, gateway.descriptors() - before)
            for _ in range(10):
                await asyncio.sleep(0.1)
                most = max(most, gateway.descriptors() - before)
            assert most < CLIENTS_MAX + SLACK, f"{most} descriptors at a limit of {CLIENTS_MAX} clients"
            assert gateway.ready(), "/readyz does not answer under the flood"
            assert cluster.complete(), "the internal port's status is incomplete"
            seen = honest.check()
        for writer in writers:
            writer.transport.abort()
        await until("all descriptors are given back", lambda: gateway.descriptors() - before < 20)
        return f"{len(writers)} connections took {most} descriptors at a limit of {CLIENTS_MAX}; {seen}"
    finally:
        cluster.stop()
