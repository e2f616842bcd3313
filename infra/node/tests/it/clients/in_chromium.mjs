// The demo page in a headless Chromium: prints what the page tells on its console, one JSON object a line.
//
// usage: in_chromium.mjs SDK_FOLDER ACCESS_POINT MQTT_TOKEN SSE_TOKEN
// Input: `reload` loads the page anew; the end of the input is the end, and what the page then shows is printed before.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.FANFARE_TEST_CLIENTS}/`);
const { chromium } = require("playwright-core");

const [sdk, at, mqtt, sse] = process.argv.slice(2);
const say = (line) => console.log(JSON.stringify(line));

const server = spawn("node", [join(sdk, "example/serve.mjs")], { stdio: ["ignore", "pipe", "inherit"] });
const [address] = await once(createInterface({ input: server.stdout }), "line");
const profile = mkdtempSync(join(tmpdir(), "fanfare-chromium-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: "/usr/bin/chromium",
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
const page = await browser.newPage();
page.on("pageerror", (error) => say({ event: "broken", why: String(error) }));
page.on("console", (message) => {
  const text = message.text();
  say(text.startsWith("{") ? JSON.parse(text) : { event: "console", text });
});
await page.goto(`${address}#${new URLSearchParams({ at, mqtt, sse })}`);

for await (const line of createInterface({ input: process.stdin })) {
  if (line === "reload") await page.reload();
}
const items = (id) => page.locator(`#${id} li`).count();
say({ event: "shown", mqtt: await items("mqtt"), sse: await items("sse") });
await browser.close();
server.kill();
rmSync(profile, { recursive: true, force: true });
say({ event: "stopped", detail: "as asked" });
