"""A WebSocket client and signed requests, through TLS that is not checked: standard library only."""
import base64, hashlib, hmac, json, os, socket, ssl, struct, time, urllib.parse

# The proxies connect from 127.0.0.1, which the gateways trust; clients from here.
CLIENT = "127.0.0.9"


def connect(port, tls=True, timeout=5):
    sock = socket.create_connection(("127.0.0.1", port), timeout, source_address=(CLIENT, 0))
    if not tls:
        return sock
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname="localhost")


class WebSocket:
    """Raises OSError when the connection ends, or nothing comes in time."""

    def __init__(self, port, path, sock=None):
        self.sock, self.bytes = sock or connect(port), b""
        key = base64.b64encode(os.urandom(16)).decode()
        # Clients may write these headers; a proxy must not pass them on as its own.
        self.sock.sendall((
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nForwarded: for=9.9.9.9\r\n"
            "X-Real-IP: 9.9.9.9\r\n\r\n").encode())
        while b"\r\n\r\n" not in self.bytes:
            self._read()
        head, _, self.bytes = self.bytes.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise OSError(f"{path}: {head.splitlines()[0]} {self.bytes[:300]}")

    def _read(self):
        some = self.sock.recv(65536)
        if not some:
            raise OSError("the connection ended")
        self.bytes += some

    def hear(self, timeout=10):
        """The next text."""
        self.sock.settimeout(timeout)
        while True:
            while len(self.bytes) < 2 or len(self.bytes) < sum(self._sizes()):
                self._read()
            at, size = self._sizes()
            opcode, body = self.bytes[0] & 15, self.bytes[at:at + size]
            self.bytes = self.bytes[at + size:]
            if opcode == 8:
                raise OSError(f"closed: {struct.unpack('>H', body[:2])[0]} {body[2:].decode()}")
            if opcode == 9:
                self._send(10, body)
            if opcode == 1:
                return body.decode()

    def _sizes(self):
        size = self.bytes[1] & 127
        if size < 126:
            return 2, size
        if len(self.bytes) < 4:
            return 4, 1 << 30
        return 4, struct.unpack(">H", self.bytes[2:4])[0]

    def say(self, text):
        self._send(1, text.encode())

    def _send(self, opcode, body):
        assert len(body) < 126
        mask = os.urandom(4)
        self.sock.sendall(bytes([0x80 | opcode, 0x80 | len(body)]) + mask
                          + bytes(byte ^ mask[at % 4] for at, byte in enumerate(body)))

    def close(self):
        self.sock.close()


def pusher(port, key, channel="news"):
    """A Pusher client that has subscribed."""
    client = WebSocket(port, f"/app/{key}?protocol=7&client=test")
    hello = json.loads(client.hear())
    if hello["event"] != "pusher:connection_established":
        raise OSError(f"{key}: {hello}")
    client.say(json.dumps({"event": "pusher:subscribe", "data": {"channel": channel}}))
    while json.loads(client.hear())["event"] != "pusher_internal:subscription_succeeded":
        pass
    return client


def request(port, method, target, body="", tls=True):
    """(status, text) of a request."""
    sock = connect(port, tls)
    with sock:
        sock.sendall((f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                      f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}").encode())
        answer = b""
        while some := sock.recv(65536):
            answer += some
    head, _, text = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        text = text.partition(b"\r\n")[2].rpartition(b"\r\n0")[0]
    return int(head.split(b" ")[1]) if b" " in head else 0, text.decode()


def publish(port, app, key, secret, event, data="{}", channel="news"):
    """What an app's backend does."""
    body = json.dumps({"name": event, "channel": channel, "data": data})
    query = {"auth_key": key, "auth_timestamp": str(int(time.time())), "auth_version": "1.0",
             "body_md5": hashlib.md5(body.encode()).hexdigest()}
    path, text = f"/apps/{app}/events", "&".join(f"{name}={query[name]}" for name in sorted(query))
    signature = hmac.new(secret.encode(), f"POST\n{path}\n{text}".encode(), hashlib.sha256).hexdigest()
    return request(port, "POST", f"{path}?{urllib.parse.urlencode(query)}&auth_signature={signature}", body)
