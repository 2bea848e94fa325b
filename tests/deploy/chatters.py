"""Clients of the chat through the proxy, and a program that sends to all of them, each checking its own promise."""
import http.client, itertools, json, socket, ssl, threading, time

from client import WebSocket

HOST = "chat.example.com"
ROOM = "lobby"
# A client that was closed is back by then.
BACK_SECONDS_MAX = 10
# A worker answers an event by then, also one that is handed over by a worker that stops.
ANSWER_SECONDS_MAX = 10
BETWEEN_SENDS = 0.05
BETWEEN_SAYS = 0.2


class Chatter(threading.Thread):
    """One user in one room, who comes back whenever it is closed, and reads there what it has missed."""

    def __init__(self, name, proxy, ca=None, port=443):
        super().__init__(daemon=True)
        self.name, self.proxy, self.port = name, proxy, port
        # Without a CA, plain.
        self.context = ca and ssl.create_default_context(cafile=str(ca))
        self.problems, self.connects, self.said, self.gateway = [], 0, 0, None
        self.seen, self.live, self.plain = set(), -1, set()
        self.inside, self.over = threading.Event(), threading.Event()

    def run(self):
        try:
            while not self.over.is_set():
                self.visit()
        except Exception as error:
            self.problems.append(repr(error))

    def visit(self):
        """From connecting to the end of the connection."""
        web = self.connected()
        self.connects += 1
        self.live, waits_since, heard, number = -1, None, time.time(), itertools.count()
        self.say(web, type="hello", nick=self.name)
        self.say(web, type="join", room=ROOM)
        joined, next_say = False, 0
        try:
            while not self.over.is_set():
                now = time.time()
                if joined and waits_since is None and now >= next_say:
                    waiting = f"{self.name} {self.connects} {next(number)}"
                    self.say(web, type="say", text=waiting)
                    waits_since, next_say = now, now + BETWEEN_SAYS
                if now - (waits_since or heard) > ANSWER_SECONDS_MAX and not (joined and waits_since is None):
                    what = f"what it said ({waiting})" if waits_since else "its joining"
                    self.problems.append(f"{what} at {self.gateway} is not answered within {ANSWER_SECONDS_MAX} s")
                    self.over.set()
                try:
                    text = web.hear(0.1)
                except TimeoutError:
                    continue
                if not text.startswith("{"):
                    self.hear_plain(text, live=True)
                    continue
                message = json.loads(text)
                if message["type"] == "welcome":
                    self.gateway = message["gateway"]
                if message["type"] == "history":
                    for old in message["messages"]:
                        self.hear_plain(old, live=False)
                    joined = True
                    self.inside.set()
                if message["type"] == "said" and message["from"] == self.name and message["text"] == (waits_since and waiting):
                    self.said, waits_since = self.said + 1, None
                if message["type"] == "error":
                    self.problems.append(message["error"])
        except TimeoutError:
            raise
        except OSError as error:
            if "1012" not in str(error):
                self.problems.append(f"the connection was not ended by a gateway that restarts: {error}")
        finally:
            web.close()

    def connected(self):
        end = time.time() + BACK_SECONDS_MAX
        while True:
            try:
                sock = socket.create_connection((self.proxy, self.port), 5)
                if self.context:
                    sock = self.context.wrap_socket(sock, server_hostname=HOST)
                return WebSocket(self.port, "/ws", sock)
            except OSError:
                if time.time() > end:
                    raise
                time.sleep(0.05)

    @staticmethod
    def say(web, **message):
        web.say(json.dumps(message))

    def hear_plain(self, text, live):
        """A message of the sender's: its number, in order and once for each connection."""
        self.plain.add(text)
        if text.startswith("send "):
            number = int(text.removeprefix("send "))
            if live:
                if number <= self.live:
                    self.problems.append(f"{text} came after send {self.live}")
                self.live = number
            self.seen.add(number)

    def wait_in(self):
        assert self.inside.wait(20), f"{self.name} is not in the room: {self.problems}"

    def wait_for(self, text):
        end = time.time() + 10
        while text not in self.plain:
            assert time.time() < end, f"{self.name} has not got {text!r}, but {self.plain}"
            time.sleep(0.02)

    def end(self, sent):
        deadline = time.time() + 5
        while len(self.seen) < sent and time.time() < deadline:
            time.sleep(0.05)
        self.over.set()
        self.join(10)
        missed = sorted(set(range(sent)) - self.seen)
        if missed:
            self.problems.append(f"it has missed {len(missed)} of {sent} sends: {missed[:10]}")


class Sender(threading.Thread):
    """Sends numbers to the room, over mutual TLS to any gateway; repeats at the next one what was not possible there.
    None may be incomplete."""

    def __init__(self, gateways, cluster):
        super().__init__(daemon=True)
        self.gateways = itertools.cycle(gateways)
        self.secret = (cluster / "secret").read_text().strip()
        self.context = ssl.create_default_context(cafile=str(cluster / "certs" / "ca.pem"))
        self.context.load_cert_chain(cluster / "certs" / "operator.pem", cluster / "certs" / "operator.key")
        self.sent, self.repeated, self.problems, self.over = 0, 0, [], threading.Event()

    def run(self):
        while not self.over.is_set() and not self.problems:
            self.send(self.sent)
            self.sent += 1
            time.sleep(BETWEEN_SENDS)

    def send(self, number):
        """Repeated under its id, it reaches only those who have not got it."""
        body = json.dumps({"commandId": f"send-{number}", "to": {"groups": [ROOM]}, "text": f"send {number}"})
        end, why = time.time() + 10, None
        while time.time() < end:
            try:
                status, answer = self.post(next(self.gateways), body)
            except OSError as error:
                status, answer = 0, repr(error)
            if status == 200:
                receipt = json.loads(answer)
                if receipt.get("drops"):
                    self.problems.append(f"send {number}: {answer}")
                # Gateways leave one by one, and each waits until the others know that nothing concerns it.
                if not receipt["coverage"]["complete"]:
                    self.problems.append(f"send {number} is incomplete: {answer}")
                return
            why, self.repeated = f"{status} {answer}", self.repeated + 1
            time.sleep(0.05)
        self.problems.append(f"send {number} is not possible: {why}")

    def post(self, gateway, body):
        host, port = gateway.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=5)
        connection.sock = self.context.wrap_socket(socket.create_connection((host, int(port)), 5), server_hostname="broadgate")
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.secret}"}
        try:
            connection.request("POST", "/v1/Send", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def end(self):
        self.over.set()
        self.join(15)
