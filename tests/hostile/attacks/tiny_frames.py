"""Strangers send frames of six bytes without end: pongs, empty texts and empty continuations."""

import asyncio

from clients import WebSocket, frame
from cluster import Cluster
from honest import Honest

# Continuations belong to one message that never ends.
FRAMES = {
    "pongs": (b"", frame(b"", 10)),
    "empty texts": (b"", frame(b"")),
    "continuations": (b"\x01\x80\0\0\0\0", b"\0\x80\0\0\0\0"),
}
FLOOD_BYTES = 60_000
SECONDS = 5
# The honest user pauses 50 ms after each message, so that some 90 fit.
MESSAGES_MIN = 20


async def attack(executable, scale):
    cluster = Cluster(executable, gateways=1)
    try:
        await cluster.ready()
        gateway = cluster.gateways[0]
        seen = []
        for name, (first, tiny) in FRAMES.items():
            floods = []
            for number in range(max(60, int(200 * scale))):
                client = await WebSocket.connect(gateway.web, "/ws", source=f"127.0.1.{1 + number % 200}")
                client.writer.write(first)
                floods.append(asyncio.create_task(flood(client, tiny * (FLOOD_BYTES // len(tiny)))))
            async with Honest(gateway.web) as honest:
                await asyncio.sleep(SECONDS)
                seen.append(f"{name} of {len(floods)}: {honest.check()}")
                assert honest.rounds >= MESSAGES_MIN, seen[-1]
            for task in floods:
                task.cancel()
            await asyncio.gather(*floods, return_exceptions=True)
        return "; ".join(seen)
    finally:
        cluster.stop()


async def flood(client, frames):
    """Until it is closed; what it gets is read and thrown away."""
    discard = asyncio.create_task(discarded(client.reader))
    try:
        while not discard.done():
            client.writer.write(frames)
            await client.writer.drain()
    except ConnectionError:
        pass
    finally:
        discard.cancel()
        client.abort()


async def discarded(reader):
    while await reader.read(65536):
        pass
