// A device in a shell: prints what it receives, one JSON object a line, and sends up each line of its input.
//
// usage: device.mjs PLATFORM APP DEVICE TOKEN [FOLDER] [notify] [APP=TOKEN]...
//   PLATFORM   http://host:8080, which names the access points, or mqtt://…, mqtts://…, ws://…, wss://… of one
//   FOLDER     what it has received is remembered there from one run to the next
//   notify     it is told of messages, and fetches them
//   APP=TOKEN  another app on the same link, with its token
// Input: `TYPE JSON`, for example `gps {"lat":22.5}`, or `TYPE/REQUEST JSON` to be answered; `APP:TYPE JSON` for another app.
// Ends with its input. It carries out whatever it is commanded.
import { createInterface } from "node:readline";

import { Terminal } from "../src/index.js";
import { FileStorage } from "../src/node.js";

const [platform, app, device, token, folder, ...more] = process.argv.slice(2);
if (!token) {
  console.error("usage: device.mjs PLATFORM APP DEVICE TOKEN [FOLDER] [notify] [APP=TOKEN]...");
  process.exit(64);
}
const say = (line) => console.log(JSON.stringify(line));

const terminal = new Terminal({
  app,
  device,
  token,
  endpoints: platform.startsWith("http") ? platform : [platform],
  ...(folder && { storage: new FileStorage(folder) }),
  mode: more.includes("notify") ? "notify" : "push",
  onMessage: (message) => {
    const { id, seq, type, payload, request } = message;
    say({ event: "message", id, seq, type, payload, request });
    if (message.class === "command") terminal.conclude(id, { status: "succeeded", result: payload });
  },
  onOrder: (order) => say({ event: "order", order }),
  onState: (state, detail) => {
    say({ event: state, detail });
    if (state === "stopped") process.exit(detail === "as asked" ? 0 : 1);
  },
});
const sessions = { [app]: terminal };
for (const [app, token] of more.filter((word) => word.includes("=")).map((word) => word.split("="))) {
  sessions[app] = terminal.bind({
    app,
    token,
    onMessage: ({ id, seq, type, payload }) => say({ event: "message", app, id, seq, type, payload }),
    onState: (state, detail) => say({ event: "bound", app, state, detail }),
  });
}
terminal.start();

for await (const line of createInterface({ input: process.stdin })) {
  const [, type, value] = /^(\S+) (.+)$/.exec(line) ?? [];
  if (!type) continue;
  const [kind, request] = type.split(":").at(-1).split("/");
  const to = type.includes(":") ? type.split(":")[0] : app;
  sessions[to].send(kind, JSON.parse(value), { request }).then(
    () => say({ event: "taken", type }),
    (error) => say({ event: "not_taken", type, why: error.message }),
  );
}
await terminal.stop();
