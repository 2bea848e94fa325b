"""Every unary command, from every gateway about a client at every other one."""

import json

from clients import WebSocket
from cluster import until
from traffic import Caller

# An app beside those of the traffic, so that nothing here reaches its clients.
APP = "quiet"


async def every_command(gateways, users):
    """Returns how many calls were made; each is complete, or fails."""
    callers = [Counting(gateway) for gateway in gateways]
    sockets = [await WebSocket.connect(gateway.web, f"/ws/{APP}") for gateway in gateways]
    for number, caller in enumerate(callers):
        for target in sockets:
            await about_one_client(caller, target, f"{number}-{sockets.index(target)}")
        await about_all(caller, len(gateways), users)
    for socket in sockets:
        socket.abort()
    # The next time counts its own.
    await until("the clients are gone", lambda: is_empty(callers[0]))
    for caller in callers:
        caller.api.close()
    return sum(caller.count for caller in callers)


class Counting(Caller):
    count = 0

    async def ask(self, call, **body):
        self.count += 1
        return await self.command(call, body)


async def is_empty(caller):
    return "0" == str((await caller.ask("Count", app=APP))["app"].get("clients", 0))


async def about_one_client(caller, socket, mark):
    address = "{}:{}".format(*socket.writer.get_extra_info("sockname"))
    uid, group, at = f"uid-{mark}", f"group-{mark}", f"{mark}, asked at {caller.gateway.name}"

    async def find():
        listed = await caller.ask("ListClients", of={"app": APP, "all": True}, fields=["CLIENT_FIELD_CONNECTION"])
        return next((one["client_id"] for one in listed["clients"] if one["address"] == address), None)

    async def ask(call, **body):
        return await caller.ask(call, app=APP, **body)

    client = await until(f"client {at} is listed", find)
    assert (await ask("Bind", client_id=client, uid=uid))["clients"] == 1, at
    # By its uid, which only the uid's home knows how to find.
    assert (await ask("Join", uids=[uid], groups=[group], member={"user_id": uid}))["clients"] == 1, at
    assert (await ask("SetSession", client_id=client, json='{"a":1}'))["session"]["version"] >= 1, at
    await ask("MergeSession", client_id=client, json='{"b":2}')
    session = (await ask("GetSession", client_id=client))["session"]
    assert "a" in str(session) and "b" in str(session), f"{at}: {session}"
    known = (await ask("GetClient", client_id=client))["client"]
    assert (known["uid"], known["groups"]) == (uid, [group]), f"{at}: {known}"
    online = await ask("Online", clients=[client], uids=[uid])
    assert online["clients"][client] is True and online["uids"][uid] == 1, f"{at}: {online}"
    assert (await ask("Count", groups=[group], uids=True))["groups"][group]["clients"] == 1, at
    assert [one["user_id"] for one in (await ask("Roster", group=group))["members"]] == [uid], at
    assert uid in [one["name"] for one in (await ask("ListUids"))["names"]], at
    assert group in [one["name"] for one in (await ask("ListGroups", prefix="group-"))["names"]], at
    await dry_run(caller, {"app": APP, "clients": [client]}, at)
    if mark.startswith("0-"):
        # A home waits for a gateway that ignores it, so not from everywhere.
        await dry_run(caller, {"app": APP, "groups": [group]}, at)
    for to in ({"clients": [client]}, {"uids": [uid]}, {"groups": [group]}, {"groups": [group, "none"], "uids": [uid]}):
        text = f"{mark} {sorted(to)}"
        receipt = await caller.ask("Send", to={"app": APP, **to}, text=text)
        assert receipt["clients"] == 1, f"{at}: {receipt}"
        assert await socket.receive() == text, at
    await ask("Leave", clients=[client], groups=[group])
    await ask("Unbind", client_id=client)
    assert not (await ask("Online", uids=[uid]))["uids"][uid], at


async def dry_run(caller, to, at):
    """A version that does not know it refuses its part, and sends nothing: what is sent next is what comes first."""
    body = {"to": to, "text": "never", "dry": True, "requires": ["dry"]}
    status, text = await caller.attempt("Send", body)
    # The gateway itself does not know the field, or the client's does not; or a gateway of several is missing.
    if status != 200:
        assert status in (400, 501), f"{at}: {status} {text}"
        return
    receipt = json.loads(text)
    complete = receipt["coverage"]["complete"]
    assert receipt["clients"] == (1 if complete else 0), f"{at}: {receipt}"


async def about_all(caller, gateways, users):
    status = await caller.ask("Status")
    assert len(status["gateways"]) == gateways, status
    receipt = await caller.ask("Send", to={"app": APP, "groups": ["nobody"]}, text="x")
    assert not receipt.get("clients"), receipt
    # Clients of a gateway that was replaced come back within a moment.
    async def roster_is_whole():
        members = (await caller.ask("Roster", app="1", group="presence-room"))["members"]
        return {member["user_id"] for member in members} == users
    await until(f"{caller.gateway.name} has the roster", roster_is_whole, 15)
    history = await caller.ask("History", app="1", group="presence-room", limit=1000)
    offsets = [int(message["offset"]) for message in history["messages"]]
    assert offsets and offsets == list(range(offsets[0], offsets[-1] + 1)), offsets
    last = await caller.ask("LastValue", app="1", group="presence-room")
    assert int(last["text"]) >= int(history["messages"][-1]["text"]), last
