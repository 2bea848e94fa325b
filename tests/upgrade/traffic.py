"""What goes on all the time while processes are replaced, and the record by which it is judged.

Each topic has one publisher, which numbers its messages. A connection must get a contiguous run of these
numbers that begins, at the latest, with the first message sent after it was in, and that ends with the last one
if the connection is never closed. Each receipt must be complete, and name as many clients as have got the message.

The version before knows no gateway that is leaving: where it leaves, or is asked, one that has closed its clients and
leaves the cluster may not answer any more what it was just asked, and is named as missing though no client is. Such a
send is repeated under its id, as callers do; then it must be complete.
"""

import asyncio
import json
import random
import time

from clients import Api, Pusher, WebSocket, api_request
from cluster import until

PAUSE_SECONDS = 0.03
# A close by a gateway that stops: 1012 for raw clients, 4200 for Pusher's.
CLOSES = (1012, 4200)


class Topic:
    """The messages of one topic, and who got which."""

    def __init__(self, name):
        self.name = name
        self.sent = 0  # The number of the last message whose sending has begun.
        self.claimed = {}  # What the receipts say: number -> clients.
        self.got = {}  # number -> connections.
        self.connections = []

    def connection(self):
        self.connections.append(Connection(self))
        return self.connections[-1]


class Connection:
    def __init__(self, topic):
        self.topic = topic
        self.due = None  # This number and all later ones, once it is known to be in.
        self.first = self.last = None
        self.open = True

    def enter(self):
        self.due = self.topic.sent + 1
        return self

    def take(self, number):
        where = f"{self.topic.name}: a connection got message {number}"
        if self.first is None:
            assert self.due is None or number <= self.due, f"{where} first, and {self.due} was due"
            self.first = number
        else:
            assert number == self.last + 1, f"{where} after {self.last}"
        self.last = number
        self.topic.got[number] = self.topic.got.get(number, 0) + 1

    def is_up_to_date(self):
        if not self.open:
            return True
        return self.due is not None and (self.last == self.topic.sent or self.due > self.topic.sent)


class Caller:
    """Commands as JSON at a gateway's internal port, over one connection that is kept."""

    def __init__(self, gateway):
        self.gateway, self.api = gateway, Api(gateway.internal)

    async def command(self, call, body):
        answer = await self.answer(call, body)
        assert is_complete(answer), f"{call} at {self.gateway.name} is incomplete: {answer}"
        return answer

    async def attempt(self, call, body):
        """The status of a call that may be refused, and its answer."""
        payload = json.dumps(body).encode()
        head = (f"POST /v1/{call} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(payload)}\r\n\r\n")
        return await asyncio.wait_for(self.api._call(head.encode() + payload), 30)

    async def answer(self, call, body):
        status, text = await self.attempt(call, body)
        assert status == 200, f"{call} at {self.gateway.name}: {status} {text}"
        return json.loads(text)


def is_complete(answer):
    return "coverage" not in answer or answer["coverage"].get("complete")


class Traffic:
    def __init__(self, gateways):
        self.gateways = gateways
        self.all, self.room, self.news = Topic("all"), Topic("presence-room"), Topic("news")
        self.users = set()
        self.echoes = self.reconnects = self.repeats = self.slowest = 0
        self.history = None
        self.over = False
        self.tasks = []

    def start(self, clients):
        publishers = [self.publish_to_all(), self.publish_to_room(), self.publish_news()]
        raw = [self.raw_client(index) for index in range(clients)]
        pusher = [self.pusher_client(index, f"user-{index}") for index in range(clients)]
        self.tasks = [asyncio.create_task(task) for task in publishers + raw + pusher]

    def check(self):
        """Fails with what a task failed with."""
        for task in self.tasks:
            if task.done() and task.exception():
                raise task.exception()

    async def finish(self):
        """Stops the publishers; every open connection must get what is still under way."""
        self.over = True
        await asyncio.gather(*self.tasks[:3])
        topics = self.all, self.room, self.news
        for topic in topics:
            def settled(topic=topic):
                self.check()
                return all(connection.is_up_to_date() for connection in topic.connections)
            await until(f"{topic.name}: every connection gets the last message", settled, 20)
        for task in self.tasks[3:]:
            task.cancel()
        for topic in topics:
            for number, claimed in topic.claimed.items():
                got = topic.got.get(number, 0)
                assert got == claimed, f"{topic.name}: message {number} was placed for {claimed} clients, {got} got it"

    def up(self, index=None):
        """A gateway that is not being replaced; of several, the one of an index."""
        up = [gateway for gateway in self.gateways if gateway.up]
        return up[index % len(up)] if index is not None else random.choice(up)

    async def publish_to_all(self):
        callers = {}
        while not self.over:
            self.all.sent += 1
            await self.send(self.all, callers, {"to": {"all": True}, "text": f"all {self.all.sent}"})

    async def publish_to_room(self):
        callers = {}
        while not self.over:
            self.room.sent += 1
            receipt = await self.send(self.room, callers, {
                "to": {"app": "1", "groups": ["presence-room"]}, "event": "e", "text": str(self.room.sent)})
            epoch, offset = receipt["position"]["epoch"], receipt["position"]["offset"]
            former, self.history = self.history, (epoch, offset)
            assert former in (None, (epoch, offset - 1)), f"the history went from {former} to {self.history}"

    async def send(self, topic, callers, body):
        gateway = self.up()
        # A gateway that was replaced has other connections.
        caller = callers.setdefault((gateway, gateway.starts), Caller(gateway))
        gateway.busy += 1
        try:
            before, began = self.replacing(), time.monotonic()
            receipt = await caller.answer("Send", body)
            self.slowest = max(self.slowest, time.monotonic() - began)
            # A gateway repeats a command at the topic's next home by itself; it has no place of its own then.
            in_order = receipt.get("ordered") or receipt.get("repeated")
            assert in_order, f"{topic.name}: message {topic.sent} has no place in the order: {receipt}"
            if not is_complete(receipt) and self.may_miss(gateway, before):
                receipt = await self.repeat(caller, body, receipt)
        finally:
            gateway.busy -= 1
        assert is_complete(receipt), f"{topic.name}: message {topic.sent} by {gateway.name} is incomplete: {receipt}"
        topic.claimed[topic.sent] = int(receipt.get("clients", 0))
        await asyncio.sleep(PAUSE_SECONDS)
        return receipt

    def replacing(self):
        """How often each gateway was started, and whether it is up."""
        return {gateway: (gateway.starts, gateway.up) for gateway in self.gateways}

    def may_miss(self, asked, before):
        """A gateway has left since then, and it or the one that was asked is of the version before."""
        leavers = [gateway for gateway, (_, up) in before.items() if not up or before[gateway] != self.replacing()[gateway]]
        return leavers and "old" in [asked.running, *(gateway.leaver for gateway in leavers)]

    async def repeat(self, caller, body, receipt):
        """What the one gateway has missed that leaves."""
        assert len(receipt["coverage"]["missing"]) == 1, receipt
        self.repeats += 1
        for _ in range(5):
            receipt = await caller.answer("Send", {**body, "command_id": receipt["command_id"]})
            if is_complete(receipt):
                break
            await asyncio.sleep(0.2)
        return receipt

    async def publish_news(self):
        """By Pusher's HTTP API, which names no clients."""
        while not self.over:
            gateway = self.up()
            api = Api(gateway.web)
            self.news.sent += 1
            body = {"name": "e", "channel": "news", "data": str(self.news.sent)}
            key = f"X-Idempotency-Key: {self.news.sent}"
            request = api_request("POST", "/apps/1/events", json.dumps(body).encode(), headers=[key])
            gateway.busy += 1
            try:
                before = self.replacing()
                status, text = await asyncio.wait_for(api._call(request), 30)
                if status == 503 and self.may_miss(gateway, before):
                    self.repeats += 1
                    await asyncio.sleep(0.2)
                    status, text = await asyncio.wait_for(api._call(request), 30)
            finally:
                gateway.busy -= 1
            api.close()
            assert status == 200, f"publish {self.news.sent} at {gateway.name} was answered {status}: {text}"
            await asyncio.sleep(PAUSE_SECONDS)

    async def raw_client(self, index):
        """Says something all the time, which the worker returns, and hears what is sent to all."""
        while True:
            gateway = self.up(index)
            starts = gateway.starts
            client = await WebSocket.connect(gateway.web, "/ws")
            connection = self.all.connection()
            said, saying = 1, None
            client.send("echo 1")
            while (text := await asyncio.wait_for(client.receive(), 30)) is not None:
                kind, number = text.split()
                if kind == "all":
                    connection.take(int(number))
                    continue
                assert int(number) == said, f"echo {number} in the place of {said}"
                if connection.due is None:
                    # It was in before it could say anything.
                    connection.enter()
                self.echoes += 1
                said += 1
                saying = asyncio.get_running_loop().call_later(0.05, client.send, f"echo {said}")
            if saying:
                saying.cancel()
            connection.open = False
            self.closed(gateway, starts, client)

    async def pusher_client(self, index, user):
        """In a public and in a presence channel."""
        self.users.add(user)
        while True:
            gateway = self.up(index)
            starts = gateway.starts
            client = await Pusher.join(gateway.web)
            client.subscribe("news")
            client.subscribe("presence-room", {"user_id": user, "user_info": {"name": user}})
            connections = {}
            while (text := await asyncio.wait_for(client.receive(), 30)) is not None:
                event = json.loads(text)
                channel = event.get("channel")
                if event["event"] == "pusher_internal:subscription_succeeded":
                    topic = self.room if channel == "presence-room" else self.news
                    connections[channel] = topic.connection().enter()
                elif event["event"] == "e":
                    connections[channel].take(int(event["data"]))
                else:
                    assert event["event"] in ("pusher_internal:member_added", "pusher_internal:member_removed"), event
            for connection in connections.values():
                connection.open = False
            self.closed(gateway, starts, client)

    def closed(self, gateway, starts, client):
        is_being_replaced = not gateway.up or gateway.starts != starts
        assert is_being_replaced and client.closed in CLOSES, f"{gateway.name} closed a client with {client.closed}"
        self.reconnects += 1
