"""A device in a shell: prints what it receives, one JSON object a line, and sends up each line of its input.

usage: device.py PLATFORM APP DEVICE TOKEN [FOLDER] [notify] [APP=TOKEN]...
  PLATFORM   http://host:8080, which names the access points, or mqtt://…, mqtts://…, ws://…, wss://… of one
  FOLDER     what it has received is remembered there from one run to the next
  notify     it is told of messages, and fetches them
  APP=TOKEN  another app on the same link, with its token
Input: `TYPE JSON`, for example `gps {"lat":22.5}`, or `TYPE/REQUEST JSON` to be answered; `APP:TYPE JSON` for another app.
Ends with its input. It carries out whatever it is commanded.
"""

import json
import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from fanfare import Folder, Terminal  # noqa: E402: as it lies in the repository, without installing it


# What is said stays whole lines, whichever thread of the terminal says it.
saying = threading.Lock()


def say(**line):
    with saying:
        print(json.dumps(line), flush=True)


def on_state(state, detail):
    say(event=state, detail=detail)
    if state == "stopped" and detail != "as asked":
        os._exit(1)


def sent(kind, future):
    error = future.exception()
    say(event="not_taken", type=kind, why=str(error)) if error else say(event="taken", type=kind)


def on_message(terminal, message):
    told = {"id": message.id, "seq": message.seq, "type": message.type, "request": message.request}
    say(event="message", **told, payload=message.payload)
    if message.is_command:
        terminal.conclude(message.id, "succeeded", result=message.payload)


def bind(terminal, app, token):
    return terminal.bind(
        app=app,
        token=token,
        on_message=lambda it: say(event="message", app=app, id=it.id, seq=it.seq, type=it.type, payload=it.payload),
        on_state=lambda state, detail: say(event="bound", app=app, state=state, detail=detail),
    )


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    platform, app, device, token = sys.argv[1:5]
    more = sys.argv[6:]
    terminal = Terminal(
        app=app,
        device=device,
        token=token,
        endpoints=platform if platform.startswith("http") else [platform],
        storage=Folder(sys.argv[5]) if len(sys.argv) > 5 else None,
        on_message=lambda message: on_message(terminal, message),
        on_order=lambda order: say(event="order", order=order),
        on_state=on_state,
        mode="notify" if "notify" in more else "push",
    )
    sessions = {app: terminal}
    for other, _, token in (word.partition("=") for word in more if "=" in word):
        sessions[other] = bind(terminal, other, token)
    terminal.start()
    for line in sys.stdin:
        kind, _, value = line.strip().partition(" ")
        if value:
            to, _, last = kind.rpartition(":")
            name, _, request = last.partition("/")
            future = sessions[to or app].send(name, json.loads(value), request or None)
            future.add_done_callback(lambda future, kind=kind: sent(kind, future))
    terminal.stop()


main()
