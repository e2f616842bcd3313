// A device made of mqtt.js as it comes: prints one JSON line for the connection and one for each message.
//
// usage: with_mqttjs.mjs URL 3|5 USERNAME CLIENT_ID TOKEN COUNT
// URL is mqtt, mqtts, ws or wss; under TLS FANFARE_TEST_CA names the certificate to trust.
// Ends when COUNT messages are there and none came for a second; exit code 1 after 20 s without them.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.FANFARE_TEST_CLIENTS}/`);
const mqtt = require("mqtt");

const [url, version, username, clientId, password, count] = process.argv.slice(2);
const v5 = version === "5";
const options = { username, password, clientId, protocolVersion: v5 ? 5 : 4, keepalive: 30 };
if (process.env.FANFARE_TEST_CA) options.ca = readFileSync(process.env.FANFARE_TEST_CA);
const client = mqtt.connect(url, options);
const say = (line) => console.log(JSON.stringify(line));
let received = 0;
let quietSince = Date.now();

client.on("connect", () => say({ event: "connected", reason: "Success" }));
client.on("error", (error) => {
  say({ event: "error", reason: String(error) });
  process.exit(1);
});
client.on("message", (topic, payload, packet) => {
  received += 1;
  quietSince = Date.now();
  const line = { event: "message", topic, qos: packet.qos, dup: packet.dup };
  if (v5) {
    line.user = { ...packet.properties?.userProperties };
    line.expiry = packet.properties?.messageExpiryInterval ?? null;
    line.payload = payload.toString();
  } else {
    const { payload: body, ...user } = JSON.parse(payload.toString());
    line.user = user;
    line.payload = JSON.stringify(body);
  }
  say(line);
});

const deadline = Date.now() + 20_000;
const look = setInterval(() => {
  const done = received >= Number(count) && Date.now() - quietSince > 1_000;
  if (!done && Date.now() < deadline) return;
  clearInterval(look);
  client.end(false, {}, () => process.exit(done ? 0 : 1));
}, 20);
