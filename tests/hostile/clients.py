"""Clients that attacks are made with: WebSocket, the Pusher protocol, and its HTTP API. Standard library
only; nothing here holds back, checks or repeats anything for its user."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import struct
import time
import urllib.parse

from cluster import KEY, SECRET


def sign(text):
    return f"{KEY}:{hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()}"


def frame(payload, opcode=1, mask=b"\0\0\0\0"):
    """A client's frame; a mask of zeros leaves the payload as it is."""
    head = bytes([0x80 | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        head += b"\xfe" + struct.pack(">H", len(payload))
    else:
        head += b"\xff" + struct.pack(">Q", len(payload))
    return head + mask + payload


class WebSocket:
    """A WebSocket client whose reading and writing are separate."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.closed = None

    @classmethod
    async def connect(cls, port, path, source="127.0.0.1"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), limit=2**24)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        if status != 101:
            writer.close()
            raise ConnectionRefusedError(f"the handshake was answered {status}")
        return cls(reader, writer)

    def send(self, payload):
        self.writer.write(frame(payload if isinstance(payload, bytes) else payload.encode()))

    async def receive(self):
        """The next text; None when the connection has ended, and then `closed` has the code."""
        while self.closed is None:
            try:
                first, second = await self.reader.readexactly(2)
                size = second & 127
                if size > 125:
                    size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
                payload = await self.reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.closed = 1006
                return None
            opcode = first & 15
            if opcode == 8:
                self.closed = int.from_bytes(payload[:2], "big") if payload else 1005
                self.writer.write(frame(payload[:2], 8))
                self.writer.close()
                return None
            if opcode == 9:
                self.writer.write(frame(payload, 10))
            elif opcode in (1, 2):
                return payload.decode()
        return None

    def abort(self):
        self.writer.transport.abort()


class Pusher(WebSocket):
    """A Pusher client of the suite's app."""

    @classmethod
    async def join(cls, port, source="127.0.0.1"):
        client = await cls.connect(port, f"/app/{KEY}?protocol=7", source)
        established = json.loads(await client.receive())
        assert established["event"] == "pusher:connection_established", established
        client.socket_id = json.loads(established["data"])["socket_id"]
        return client

    def event(self, name, data, **more):
        self.send(json.dumps({"event": name, "data": data, **more}))

    def subscribe(self, channel, member=None):
        """`member` is the channel_data of a presence channel."""
        data = {"channel": channel}
        if channel.startswith(("private-", "presence-")):
            signed = f"{self.socket_id}:{channel}"
            if member is not None:
                data["channel_data"] = json.dumps(member)
                signed += ":" + data["channel_data"]
            data["auth"] = sign(signed)
        self.event("pusher:subscribe", data)

    def sign_in(self, user):
        text = json.dumps(user)
        self.event("pusher:signin", {"user_data": text, "auth": sign(f"{self.socket_id}::user::{text}")})

    async def expect(self, name, channel=None, seconds=30):
        """The next event of this name (and channel); others are passed over."""
        async def find():
            while (text := await self.receive()) is not None:
                event = json.loads(text)
                if event["event"] == name and channel in (None, event.get("channel")):
                    return event
            raise AssertionError(f"closed with {self.closed} before {name} came")
        return await asyncio.wait_for(find(), seconds)

    async def subscribed(self, channel, member=None):
        self.subscribe(channel, member)
        await self.expect("pusher_internal:subscription_succeeded", channel)


def api_request(method, path, body=b"", signed=True, key=KEY, headers=()):
    """A request of the HTTP API, as bytes."""
    query = {"auth_key": key, "auth_timestamp": str(int(time.time())), "auth_version": "1.0"}
    if body:
        query["body_md5"] = hashlib.md5(body).hexdigest()
    text = "&".join(f"{name}={query[name]}" for name in sorted(query))
    signature = sign(f"{method}\n{path}\n{text}").split(":")[1] if signed else "0" * 64
    lines = [f"{method} {path}?{urllib.parse.quote(text, safe='=&.')}&auth_signature={signature} HTTP/1.1",
             "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Api:
    """A backend with one connection that is kept."""

    def __init__(self, port, source="127.0.0.1"):
        self.port, self.source = port, source
        self.writer = None

    async def call(self, method, path, body=None, seconds=60):
        """(status, body as text)"""
        payload = json.dumps(body).encode() if body is not None else b""
        return await asyncio.wait_for(self._call(api_request(method, path, payload)), seconds)

    async def _call(self, request):
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection(
                "127.0.0.1", self.port, local_addr=(self.source, 0), limit=2**26)
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.split("content-length:")[1].split("\r\n")[0])
        body = await self.reader.readexactly(size)
        if "connection: close" in head:
            self.close()
        return int(head.split(" ")[1]), body.decode()

    async def publish(self, channel, data, name="e"):
        return await self.call("POST", "/apps/1/events", {"name": name, "channel": channel, "data": data})

    def close(self):
        if self.writer is not None:
            self.writer.close()
            self.writer = None
