"""Half an hour of connects, joins, publishes and kills: memory and descriptors of what lives on stay flat."""

import asyncio
import random
import time

from clients import Api, Pusher
from cluster import MIB, Cluster
from honest import Honest

# Only when it is asked for: it takes 30 minutes at full scale.
ALONE = True
MINUTES = 30
CLIENTS = 300
KILL_SECONDS = 20
# What may be added between the first third and the last.
GROWTH_BYTES_MAX = 24 * MIB
GROWTH_DESCRIPTORS_MAX = 40


async def attack(executable, scale):
    app = "client_events = true\nwatchlist = true\n[apps.limits]\npresence_members_max = 1000"
    cluster = Cluster(executable, gateways=3, app=app, gateway='spool = "@SPOOL"')
    try:
        await cluster.ready()
        # The first gateway and the register live; the others are killed in turn.
        watched = [cluster.register, cluster.gateways[0]]
        seconds = MINUTES * 60 * scale
        counts = {"connects": 0, "publishes": 0, "kills": 0, "broken": 0}
        tasks = [asyncio.create_task(life(cluster, counts)) for _ in range(CLIENTS)]
        tasks += [asyncio.create_task(publish(cluster, counts)) for _ in range(4)]
        tasks.append(asyncio.create_task(kill(cluster, counts)))
        samples, began = [], time.monotonic()
        async with Honest(cluster.gateways[0].web) as honest:
            while time.monotonic() - began < seconds:
                await asyncio.sleep(max(0.5, seconds / 180))
                samples.append([(p.resident_bytes(), p.descriptors()) for p in watched])
            rounds = honest.rounds
        for task in tasks:
            task.cancel()
        assert rounds > seconds, f"the honest user got {rounds} messages only: {honest.failures[:3]}"
        return f"{counts}; " + "; ".join(flat(p.name, [s[n] for s in samples]) for n, p in enumerate(watched))
    finally:
        cluster.stop()


def flat(name, samples):
    """Compares the medians of the second and the last sixth."""
    sixth = len(samples) // 6
    early, late = samples[sixth:2 * sixth], samples[-sixth:]

    def median(part, index):
        return sorted(sample[index] for sample in part)[len(part) // 2]
    memory = median(late, 0) - median(early, 0)
    descriptors = median(late, 1) - median(early, 1)
    words = (f"{name}: {median(early, 0) / MIB:.1f} -> {median(late, 0) / MIB:.1f} MiB, "
             f"{median(early, 1)} -> {median(late, 1)} descriptors")
    assert memory < GROWTH_BYTES_MAX and descriptors < GROWTH_DESCRIPTORS_MAX, f"not flat: {words}"
    return words


async def life(cluster, counts):
    """A client that comes, joins some channels, says something, and goes in one way or another."""
    while True:
        try:
            gateway = random.choice(cluster.gateways)
            client = await asyncio.wait_for(Pusher.join(gateway.web), 10)
            counts["connects"] += 1
            user = random.randrange(500)
            if random.random() < 0.3:
                client.sign_in({"id": str(user), "watchlist": [str(n) for n in range(user, user + 10)]})
            for _ in range(random.randrange(1, 6)):
                room = random.randrange(2000)
                kind = random.choice(["", "private-", "presence-", "cache-"])
                member = {"user_id": str(user)} if kind == "presence-" else None
                client.subscribe(f"{kind}room-{room}", member)
            reading = asyncio.create_task(read_all(client))
            await asyncio.wait([reading], timeout=random.uniform(0.5, 20))
            reading.cancel()
            if random.random() < 0.5:
                client.abort()
            else:
                client.writer.close()
        except (OSError, asyncio.TimeoutError, AssertionError, TypeError, asyncio.IncompleteReadError):
            counts["broken"] += 1
            await asyncio.sleep(0.5)


async def publish(cluster, counts):
    while True:
        api = Api(random.choice(cluster.gateways).web)
        try:
            for _ in range(50):
                kind = random.choice(["", "private-", "presence-", "cache-"])
                await api.publish(f"{kind}room-{random.randrange(2000)}", "x" * random.randrange(2000))
                counts["publishes"] += 1
                await asyncio.sleep(0.02)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            counts["broken"] += 1
            await asyncio.sleep(0.5)
        api.close()


async def kill(cluster, counts):
    while True:
        for victim in cluster.gateways[1:]:
            await asyncio.sleep(KILL_SECONDS)
            victim.kill()
            counts["kills"] += 1
            await asyncio.sleep(2)
            victim.start()


async def read_all(client):
    while await client.reader.read(65536):
        pass
