"""The honest user beside an attack: a subscriber and a publisher that go on all the time."""

import asyncio
import time

from clients import Api, Pusher

# Users notice more than this; a loaded machine takes far less.
STALL_SECONDS = 2.0
PAUSE_SECONDS = 0.05


class Honest:
    """Publishes to a channel and waits for its own message, again and again."""

    def __init__(self, port, source="127.0.0.9"):
        self.port, self.source = port, source
        self.rounds, self.worst, self.failures = 0, 0.0, []

    async def __aenter__(self):
        self.client = await Pusher.join(self.port, self.source)
        await self.client.subscribed("honest")
        self.api = Api(self.port, self.source)
        self.task = asyncio.create_task(self._go_on())
        return self

    async def _go_on(self):
        while True:
            began = time.monotonic()
            try:
                status, body = await self.api.publish("honest", str(self.rounds))
                if status != 200:
                    self.failures.append(f"publish answered {status}: {body}")
                else:
                    event = await self.client.expect("e", "honest")
                    if event["data"] != str(self.rounds):
                        self.failures.append(f"message {event['data']} came in the place of {self.rounds}")
            except (AssertionError, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                return
            self.worst = max(self.worst, time.monotonic() - began)
            self.rounds += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def __aexit__(self, *_):
        self.task.cancel()
        self.client.abort()
        self.api.close()

    def check(self):
        """Nothing failed, and nothing took longer than a user bears."""
        assert not self.failures, f"the honest user: {self.failures[:3]}"
        assert self.rounds > 0, "the honest user did not get one message"
        assert self.worst < STALL_SECONDS, f"the honest user waited {self.worst:.1f} s for a message"
        return f"honest user: {self.rounds} messages, worst {self.worst * 1000:.0f} ms"
