"""The backend's library for Python against a cluster: one line of JSON per check.

    python sdk.py '{"port": 8080, "other_port": 8081, "app": …, "key": …, "secret": …, "channel": …}'
"""

import hashlib
import hmac
import json
import sys

import pusher
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus

PLACE = json.loads(sys.argv[1])
CHANNEL = PLACE["channel"]


def client(port=PLACE["port"], **options):
    place = dict(app_id=PLACE["app"], key=PLACE["key"], secret=PLACE["secret"], host="127.0.0.1", port=port, ssl=False)
    return pusher.Pusher(**{**place, **options})


def same(came, expected):
    assert came == expected, f"expected: {expected!r}\n    came:     {came!r}"


def refused(error, call, text):
    try:
        came = call()
    except error as told:
        assert text.lower() in str(told).lower(), f"expected: a sentence with {text!r}\n    came:     {told}"
    else:
        raise AssertionError(f"expected: {error.__name__}\n    came:     {came!r}")


def trigger_to_one_and_to_several():
    same(client().trigger(CHANNEL, "python-one", {"n": 1, "text": "grüße"}), {})
    same(client().trigger([CHANNEL, CHANNEL + "-b"], "python-two", "plain"), {})


def trigger_excludes():
    same(client().trigger(CHANNEL, "python-not-you", {}, PLACE["socket_id"]), {})


def trigger_batch():
    batch = [{"channel": CHANNEL, "name": "python-batch", "data": {"n": n}} for n in (1, 2)]
    same(client().trigger_batch(batch), {})


def channels_channel_and_users():
    for port in (PLACE["port"], PLACE["other_port"]):
        reader = client(port)
        same(reader.channels_info(CHANNEL, ["user_count"]), {"channels": {CHANNEL: {"user_count": 2}}})
        same(reader.channel_info(CHANNEL, ["user_count", "subscription_count"]), {"occupied": True, "user_count": 2, "subscription_count": 2})
        same(sorted(user["id"] for user in reader.users_info(CHANNEL)["users"]), ["ann", "bob"])


def a_wrong_secret_is_refused():
    refused(PusherBadAuth, lambda: client(secret="wrong").trigger(CHANNEL, "e", {}), "signature")


def a_bad_request_is_refused():
    refused(PusherBadRequest, lambda: client().channels_info("no-presence-", ["user_count"]), "presence-")


def too_much_is_refused():
    channels = [f"many-{n}" for n in range(101)]
    refused(ValueError, lambda: client().trigger(channels, "e", {}), "too many")
    refused(PusherBadStatus, lambda: client().trigger(CHANNEL, "e", "x" * 11 * 1024), "413")


def to_a_user():
    same(client().send_to_user(PLACE["user"], "python-user", {"n": 1}), {})


def authorising_and_authenticating():
    said = client().authenticate_user("1234.1234", {"id": "12345"})
    signed = hmac.new(PLACE["secret"].encode(), f"1234.1234::user::{said['user_data']}".encode(), hashlib.sha256)
    same(said["auth"], f"{PLACE['key']}:{signed.hexdigest()}")


def terminate():
    # Version 3.3.4 asks for /users/… without its app in front: the key says whose they are.
    same(client().terminate_user_connections(PLACE["user"]), {})


CHECKS = [
    trigger_to_one_and_to_several,
    trigger_excludes,
    trigger_batch,
    channels_channel_and_users,
    a_wrong_secret_is_refused,
    a_bad_request_is_refused,
    too_much_is_refused,
    to_a_user,
    authorising_and_authenticating,
    terminate,
]

for check in CHECKS:
    try:
        note, error = check(), None
    except Exception as told:  # every kind of failure is reported to the driver
        note, error = None, f"{type(told).__name__}: {told}"
    line = {"name": check.__name__.replace("_", " "), "error": error, "note": note}
    print(json.dumps(line), flush=True)
