"""A tenant publishes to more cache channels than anybody can keep the last value of."""

import json

from clients import Api
from cluster import MIB, Cluster
from honest import Honest


async def attack(executable, scale):
    cluster = Cluster(executable, limits=f"retained_app_bytes_max = {APP_MIB * MIB}")
    try:
        await cluster.ready()
        gateway = cluster.gateways[0]
        before = gateway.resident_bytes()
        api, value = Api(gateway.web), "x" * 10_000
        async with Honest(gateway.web) as honest:
            channels = int(60_000 * scale)
            for first in range(0, channels, 10):
                batch = [{"name": "e", "channel": f"cache-{n}", "data": value} for n in range(first, first + 10)]
                status, body = await api.call("POST", "/apps/1/batch_events", {"batch": batch})
                assert status == 200, f"{status}: {body}"
            seen = honest.check()
        grown = gateway.resident_bytes() - before
        assert gateway.metric("broadgate_gateway_retained_bytes") <= APP_MIB * MIB
        assert grown < (APP_MIB + SLACK_MIB) * MIB, f"{channels} values of 10 kB are kept in {grown / MIB:.0f} MiB"
        return f"{channels} values of 10 kB are kept in {grown / MIB:.0f} MiB; {seen}"
    finally:
        cluster.stop()


# The smallest that may be set, and what the requests, the allocator and the tables may take besides.
APP_MIB = 8
SLACK_MIB = 32
