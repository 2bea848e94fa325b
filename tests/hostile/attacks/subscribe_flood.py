"""With the public key alone a stranger subscribes and unsubscribes without end; webhooks of genuine channels
must still arrive."""

import asyncio
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep

from clients import Pusher
from cluster import Cluster, free_port, until
from honest import Honest

GENUINE = 40


class Receiver(BaseHTTPRequestHandler):
    """A receiver that takes its time, as PHP does."""

    heard = set()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        sleep(0.02)
        self.heard.update((event["name"], event.get("channel")) for event in body["events"])
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


async def attack(executable, scale):
    port = free_port()
    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    hook = f'[[apps.webhooks]]\nurl = "http://127.0.0.1:{port}/"\nevents = ["channel_occupied"]'
    cluster = Cluster(executable, webhooks=hook)
    try:
        await cluster.ready()
        gateway = cluster.gateways[0]
        strangers = [asyncio.create_task(flood(gateway.web, n, int(20_000 * scale))) for n in range(8)]
        await asyncio.sleep(1)
        async with Honest(gateway.web) as honest:
            for n in range(GENUINE):
                client = await Pusher.join(gateway.web, "127.0.0.8")
                await client.subscribed(f"genuine-{n}")
            await asyncio.gather(*strangers)
            seen = honest.check()

        def genuine():
            return sum(("channel_occupied", f"genuine-{n}") in Receiver.heard for n in range(GENUINE))
        await until("every genuine webhook has arrived", lambda: genuine() == GENUINE, 120)
        return f"{GENUINE} genuine webhooks arrived among {len(Receiver.heard)}; {seen}"
    finally:
        cluster.stop()
        server.shutdown()


async def flood(port, number, times):
    """Continues when it is refused or closed."""
    done = 0
    while done < times:
        try:
            client = await Pusher.join(port, f"127.0.4.{number + 1}")
            reading = asyncio.create_task(read_all(client))
            while done < times and not reading.done():
                channel = f"junk-{number}-{done}"
                client.subscribe(channel)
                client.event("pusher:unsubscribe", {"channel": channel})
                done += 1
                await asyncio.wait_for(client.writer.drain(), 30)
            client.abort()
        except (OSError, asyncio.TimeoutError):
            pass
        done += 1


async def read_all(client):
    while await client.reader.read(65536):
        pass
