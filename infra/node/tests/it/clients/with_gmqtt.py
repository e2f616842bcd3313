"""A device made of gmqtt as it comes: prints one JSON line for the connection and one for each message.

usage: with_gmqtt.py URL 3|5 USERNAME CLIENT_ID TOKEN COUNT
URL is mqtt or mqtts; under TLS FANFARE_TEST_CA names the certificate to trust.
Ends when COUNT messages are there and none came for a second; exit code 1 after 20 s without them.
"""

import asyncio
import json
import os
import ssl
import sys
import time
from urllib.parse import urlsplit

import gmqtt

url, version, username, client_id, token, count = sys.argv[1:7]
url = urlsplit(url)
v5 = version == "5"
received = []
quiet_since = [time.monotonic()]


def say(**line):
    print(json.dumps(line), flush=True)


def on_connect(_client, _flags, reason, _properties):
    say(event="connected", reason=str(reason))


def on_message(_client, topic, payload, qos, properties):
    line = {"event": "message", "topic": topic, "qos": qos, "dup": bool(properties.get("dup"))}
    if v5:
        line["user"] = dict(properties["user_property"])
        line["payload"] = payload.decode()
    else:
        envelope = json.loads(payload)
        line["user"] = {key: envelope[key] for key in ("id", "seq", "type", "ts", "traceparent")}
        line["payload"] = json.dumps(envelope["payload"])
    received.append(line)
    quiet_since[0] = time.monotonic()
    say(**line)
    return 0


async def main():
    client = gmqtt.Client(client_id)
    client.set_auth_credentials(username, token)
    client.on_connect, client.on_message = on_connect, on_message
    tls = ssl.create_default_context(cafile=os.environ["FANFARE_TEST_CA"]) if url.scheme == "mqtts" else False
    protocol = gmqtt.constants.MQTTv50 if v5 else gmqtt.constants.MQTTv311
    await client.connect(url.hostname, url.port, ssl=tls, keepalive=30, version=protocol)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if len(received) >= int(count) and time.monotonic() - quiet_since[0] > 1:
            break
        await asyncio.sleep(0.02)
    await client.disconnect()


asyncio.run(main())
sys.exit(0 if len(received) >= int(count) else 1)
