"""A storm of TLS handshakes beside clients that are there: strangers that connect all at once and again, some
that send half a handshake and stay, some that speak no TLS. Honest clients over TLS must not notice."""

import asyncio
import os
import ssl
import subprocess
import time

from clients import frame
from cluster import Cluster, free_port, until

# Users notice more than this; what is left of a core serves the storm.
STALL_SECONDS = 1.0


def certificate(folder):
    cert, key = f"{folder}/tls.pem", f"{folder}/tls.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)
    os.chmod(key, 0o600)
    return cert, key


def context():
    it = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    it.check_hostname, it.verify_mode = False, ssl.CERT_NONE
    return it


class Honest:
    """A raw client over TLS that pings and waits for the pong, again and again."""

    def __init__(self):
        self.rounds, self.worst = 0, 0.0

    async def join(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, ssl=context())
        self.writer.write(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        return self

    async def go_on(self):
        while True:
            began = time.monotonic()
            self.writer.write(frame(b"p", 9))
            pong = await self.reader.readexactly(3)
            assert pong == b"\x8a\x01p", pong
            self.worst = max(self.worst, time.monotonic() - began)
            self.rounds += 1
            await asyncio.sleep(0.02)


async def handshakes(port, until_time, counts):
    while time.monotonic() < until_time:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context())
            counts["made"] += 1
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            counts["failed"] += 1


async def attack(executable, scale):
    tls = free_port()
    folder = Cluster(executable, gateways=0)
    cert, key = certificate(folder.folder)
    listener = (f'[[gateway.listeners]]\nname = "tls"\nkind = "web"\nbind = "127.0.0.1:{tls}"\nservice = ""\n'
                f'tls = [{{ cert = "{cert}", key = "{key}" }}]')
    cluster = Cluster(executable, listener=listener, gateway="shards = 1",
                      limits='first_byte_time_max = "3s"\nhandshake_time_max = "5s"\nclients_per_ip_max = 0')
    strangers = []
    try:
        await cluster.ready()
        gateway = cluster.gateways[0]
        honest = [await Honest().join(tls) for _ in range(5)]
        rounds = [asyncio.create_task(it.go_on()) for it in honest]
        # As many as may be computed at once, many times over, that hold what they can hold.
        halves = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello"]
        for n in range(int(2000 * scale)):
            _, writer = await asyncio.open_connection("127.0.0.1", tls)
            writer.write(halves[n % len(halves)])
            strangers.append(writer)
        counts = {"made": 0, "failed": 0}
        until_time = time.monotonic() + max(5, 30 * scale)
        await asyncio.gather(*(handshakes(tls, until_time, counts) for _ in range(40)))
        assert counts["made"] > 50 and counts["failed"] == 0, counts
        for task in rounds:
            assert not task.done(), task.exception()
            task.cancel()
        worst = max(it.worst for it in honest)
        assert min(it.rounds for it in honest) > 20, [it.rounds for it in honest]
        assert worst < STALL_SECONDS, f"an honest client waited {worst:.1f} s for a pong"

        def counted():
            failures = "broadgate_gateway_tls_failures_total"
            return all(gateway.metric(failures, f'reason="{why}"') > 0 for why in ("plain", "malformed", "timeout"))
        await until("each kind of failure is counted, and the silent are closed", counted, 30)
        for writer in strangers:
            writer.transport.abort()
        return (f"{counts['made']} handshakes beside {len(strangers)} strangers; honest clients: "
                f"{sum(it.rounds for it in honest)} pongs, worst {worst * 1000:.0f} ms")
    finally:
        cluster.stop()
        folder.stop()
