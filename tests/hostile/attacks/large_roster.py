"""Groups have rosters of more bytes than one gRPC message may have, and one of two gateways stops for a
while: then it has to learn everything again."""

import asyncio
import signal

from clients import WebSocket
from cluster import Cluster, until

INFO = "x" * 4000
PAUSE_SECONDS = 3
MEMBERS_MIN = 1500
# Several, so that some have their home at the gateway that stops.
HALLS = [f"hall-{n}" for n in range(4)]


async def attack(executable, scale):
    cluster = Cluster(executable, gateways=2)
    try:
        await cluster.ready()
        one, other = cluster.gateways
        members = max(MEMBERS_MIN, int(4000 * scale))
        clients = [await WebSocket.connect(one.web, "/ws") for _ in range(members)]
        for n, client in enumerate(ids(cluster)):
            member = {"user_id": f"user-{n}", "info": INFO}
            cluster.command("Join", {"clients": [client], "groups": HALLS, "member": member})
        whole = [members] * len(HALLS)
        assert rosters(cluster, 1) == whole, "the rosters are not whole before the pause"

        before = lost(cluster)
        other.signal(signal.SIGSTOP)
        await asyncio.sleep(PAUSE_SECONDS)
        other.signal(signal.SIGCONT)
        await until("the gateways are one cluster again", cluster.complete)
        await until("the rosters are whole again", lambda: rosters(cluster, 1) == whole == rosters(cluster, 0))
        settled = lost(cluster)
        await asyncio.sleep(PAUSE_SECONDS)
        assert lost(cluster) == settled, f"links still break: {lost(cluster) - settled:.0f} in {PAUSE_SECONDS} s"
        assert cluster.complete(), "answers are incomplete again"
        for client in clients:
            client.abort()
        return f"{len(HALLS)} rosters of {members * len(INFO) / 1e6:.0f} MB; {settled - before:.0f} links broke by the pause"
    finally:
        cluster.stop()


def lost(cluster):
    return sum(gateway.metric("broadgate_gateway_peer_links_lost_total") for gateway in cluster.gateways)


def ids(cluster):
    """The ids of all raw clients."""
    found, cursor = [], ""
    while True:
        page = cluster.command("ListClients", {"of": {"all": True}, "limit": 1000, "cursor": cursor})
        found += [client["client_id"] for client in page["clients"]]
        cursor = page["next_cursor"]
        if not cursor:
            return found


def rosters(cluster, gateway):
    """What the groups' homes say of their numbers, when they can."""
    try:
        answers = [cluster.command("Roster", {"group": hall, "limit": 1}, gateway) for hall in HALLS]
    except OSError:
        return []
    return [answer["total"] for answer in answers if answer["coverage"]["complete"]]
