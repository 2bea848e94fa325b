"""A signed-in client repeats its sign-in, which has a full watchlist, for as long as it is read from."""

import asyncio
import json

from clients import Pusher, sign, frame
from cluster import MIB, Cluster
from honest import Honest


async def attack(executable, scale):
    cluster = Cluster(executable, gateways=2, app="watchlist = true")
    try:
        await cluster.ready()
        gateway = cluster.gateways[0]
        client = await Pusher.join(gateway.web)
        user = json.dumps({"id": "rude", "watchlist": [f"user-{n}" for n in range(100)]})
        message = json.dumps({"event": "pusher:signin", "data": {
            "user_data": user, "auth": sign(f"{client.socket_id}::user::{user}")}}).encode()
        client.send(message)
        await client.expect("pusher:signin_success")
        before = gateway.resident_bytes()
        async with Honest(gateway.web) as honest:
            sent, most = 0, before
            flood = frame(message) * 32
            discard = asyncio.create_task(read_all(client))
            while sent < 25 * MIB * scale and not client.writer.is_closing():
                client.writer.write(flood)
                sent += len(flood)
                most = max(most, gateway.resident_bytes())
                try:
                    await asyncio.wait_for(client.writer.drain(), 5)
                except (asyncio.TimeoutError, ConnectionError):
                    break
            await asyncio.sleep(2 * PAUSE)
            most = max(most, gateway.resident_bytes())
            discard.cancel()
            seen = honest.check()
        assert most - before < 64 * MIB, f"{sent / MIB:.0f} MiB of sign-ins cost {(most - before) / MIB:.0f} MiB"
        client.abort()
        return f"{sent / MIB:.1f} MiB of sign-ins cost {(most - before) / MIB:.0f} MiB; {seen}"
    finally:
        cluster.stop()


PAUSE = 0.5


async def read_all(client):
    while await client.reader.read(65536):
        pass
