"""A device made of paho-mqtt as it comes: prints one JSON line for the connection and one for each message.

usage: with_paho.py URL 3|5 USERNAME CLIENT_ID TOKEN COUNT
URL is mqtt, mqtts, ws or wss; under TLS FANFARE_TEST_CA names the certificate to trust.
Ends when COUNT messages are there and none came for a second; exit code 1 after 20 s without them.
"""

import json
import os
import sys
import threading
import time
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

url, version, username, client_id, token, count = sys.argv[1:7]
url = urlsplit(url)
v5 = version == "5"
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=client_id,
    protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
    transport="websockets" if url.scheme in ("ws", "wss") else "tcp",
)
if url.scheme in ("mqtts", "wss"):
    client.tls_set(ca_certs=os.environ["FANFARE_TEST_CA"])
if url.path:
    client.ws_set_options(path=url.path)
client.username_pw_set(username, token)
received = []
quiet_since = [time.monotonic()]
refused = threading.Event()


def say(**line):
    print(json.dumps(line), flush=True)


def on_connect(_client, _userdata, _flags, reason, _properties):
    if reason.is_failure:
        refused.set()
    say(event="connected", reason=str(reason))


def on_message(_client, _userdata, message):
    line = {"event": "message", "topic": message.topic, "qos": message.qos, "dup": bool(message.dup)}
    if v5:
        line["user"] = dict(message.properties.UserProperty)
        line["expiry"] = getattr(message.properties, "MessageExpiryInterval", None)
        line["payload"] = message.payload.decode()
    else:
        envelope = json.loads(message.payload)
        line["user"] = {key: envelope[key] for key in ("id", "seq", "type", "ts", "traceparent")}
        line["payload"] = json.dumps(envelope["payload"])
    received.append(line)
    quiet_since[0] = time.monotonic()
    say(**line)


client.on_connect = on_connect
client.on_message = on_message
client.connect(url.hostname, url.port, keepalive=30)
client.loop_start()
deadline = time.monotonic() + 20
while time.monotonic() < deadline and not refused.is_set():
    if len(received) >= int(count) and time.monotonic() - quiet_since[0] > 1:
        break
    time.sleep(0.02)
client.disconnect()
client.loop_stop()
sys.exit(0 if len(received) >= int(count) and not refused.is_set() else 1)
