"""Strangers send large bodies to the HTTP API and to the internal port, and never finish them."""

import asyncio

from clients import api_request
from cluster import MIB, Cluster
from honest import Honest


async def open_and_send(port, request, source):
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write(request)
        return reader, writer
    except OSError:
        return None


async def attack(executable, scale):
    limits = "message_bytes_max = 1048576"
    cluster = Cluster(executable, limits=limits, app="[apps.limits]\nevent_data_bytes_max = 1048576")
    try:
        await cluster.ready()
        gateway = cluster.gateways[0]
        before, most, held = gateway.resident_bytes(), 0, []
        async with Honest(gateway.web) as honest:
            body = b'{"name":"e","channel":"c","data":"' + b"x" * (2 * MIB) + b'"}'
            whole = api_request("POST", "/apps/1/batch_events", body * 4, signed=False)
            # All but the end: a server that waits for the whole holds it.
            unfinished = whole[:-1]
            for n in range(int(200 * scale)):
                held.append(await open_and_send(gateway.web, unfinished, f"127.0.1.{n % 200 + 1}"))
                most = max(most, gateway.resident_bytes())
            internal = (b"POST /v1/Send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                        b"Authorization: Bearer wrong\r\nContent-Length: 2097151\r\n\r\n" + body[:2 * MIB - 16])
            for n in range(int(200 * scale)):
                held.append(await open_and_send(gateway.internal, internal, f"127.0.2.{n % 200 + 1}"))
                most = max(most, gateway.resident_bytes())
            for _ in range(20):
                await asyncio.sleep(0.1)
                most = max(most, gateway.resident_bytes())
            seen = honest.check()
        for connection in filter(None, held):
            connection[1].transport.abort()
        grown = (most - before) / MIB
        assert grown < 96, f"{len(held)} unfinished requests of strangers cost {grown:.0f} MiB"
        return f"{len(held)} unfinished requests of strangers cost {grown:.0f} MiB; {seen}"
    finally:
        cluster.stop()
