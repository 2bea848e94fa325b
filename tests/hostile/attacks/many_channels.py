"""A tenant has many channels and asks for all of them, while an operator polls the status."""

import asyncio
import json

from clients import Api, Pusher
from cluster import Cluster
from honest import Honest

PER_CLIENT = 1000


async def attack(executable, scale):
    cluster = Cluster(executable, limits="groups_per_client_max = 1100", app="[apps.limits]\n" + RATES)
    try:
        await cluster.ready()
        gateway = cluster.gateways[0]
        clients = []
        for c in range(int(200 * scale)):
            client = await Pusher.join(gateway.web)
            for n in range(PER_CLIENT):
                client.subscribe(f"channel-{c}-{n}")
                if n % 100 == 99:
                    await client.expect("pusher_internal:subscription_succeeded", f"channel-{c}-{n}")
            clients.append(client)
        api = Api(gateway.web)
        async with Honest(gateway.web) as honest:
            for _ in range(5):
                status, body = await api.call("GET", "/apps/1/channels")
                found = len(json.loads(body)["channels"])
                assert status == 200 and found == len(clients) * PER_CLIENT + 1, f"{status}, {found} channels"
            for _ in range(50):
                await asyncio.to_thread(cluster.command, "Status", {})
                await asyncio.sleep(0.1)
            seen = honest.check()
        for client in clients:
            client.abort()
        return f"{len(clients) * PER_CLIENT} channels listed five times, 50 statuses; {seen}"
    finally:
        cluster.stop()


RATES = ""
