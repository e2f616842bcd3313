import assert from "node:assert/strict";
import { createServer } from "node:http";
import { once } from "node:events";
import { test } from "node:test";

import { Endpoints, Refused } from "../src/endpoints.js";

/** A platform that answers with these, one after the other; the last goes on. */
async function platform(t, ...answers) {
  const asked = [];
  const server = createServer((request, response) => {
    asked.push([request.url, request.headers.authorization]);
    const [status, body] = answers.length > 1 ? answers.shift() : answers[0];
    response.writeHead(status).end(JSON.stringify(body));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  return { asked, url: `http://127.0.0.1:${server.address().port}` };
}

const named = (ttl_s, ...addresses) => [200, { ttl_s, endpoints: addresses.map((address) => ({ address })) }];

test("the first address is kept while it works, and those after it are tried in turn", async (t) => {
  const { asked, url } = await platform(t, named(60, "a:1", "b:2"));
  const endpoints = new Endpoints(url);
  assert.equal(await endpoints.next("token"), "mqtt://a:1");
  assert.equal(await endpoints.next("token"), "mqtt://a:1");
  assert.deepEqual(asked, [["/v1/endpoints", "Bearer token"]]);
  endpoints.failed();
  assert.equal(await endpoints.next("token"), "mqtt://b:2");
  endpoints.failed();
  assert.equal(await endpoints.next("token"), "mqtt://a:1");
  assert.equal(asked.length, 2, "when none is left, the platform is asked again");
});

test("a newer list does not move a terminal from an address that works", async (t) => {
  const { url } = await platform(t, named(0, "a:1", "b:2"), named(0, "b:2", "a:1"));
  const endpoints = new Endpoints(url);
  assert.equal(await endpoints.next("token"), "mqtt://a:1");
  assert.equal(await endpoints.next("token"), "mqtt://a:1");
});

test("addresses that are known are tried while the platform does not answer", async (t) => {
  const { url } = await platform(t, named(0, "a:1"), [503, {}]);
  const endpoints = new Endpoints(url);
  await endpoints.next("token");
  endpoints.failed();
  assert.equal(await endpoints.next("token"), "mqtt://a:1");
});

test("an access point that asks to go elsewhere is followed, and the others stay known", async (t) => {
  const { url } = await platform(t, named(60, "a:1", "b:2"));
  const endpoints = new Endpoints(url);
  await endpoints.next("token");
  endpoints.moved(["c:3", "b:2"]);
  const tried = [];
  for (let n = 0; n < 3; n += 1) {
    tried.push(await endpoints.next("token"));
    endpoints.failed();
  }
  assert.deepEqual(tried, ["mqtt://c:3", "mqtt://b:2", "mqtt://a:1"]);
});

test("a terminal on a secure address does not follow to an open one", async () => {
  const endpoints = new Endpoints(["mqtts://a", "mqtts://b"]);
  await endpoints.next("token");
  endpoints.moved(["c:3"]);
  assert.equal(await endpoints.next("token"), "mqtts://b");
  endpoints.moved(["c:3", "mqtts://d:4"]);
  assert.equal(await endpoints.next("token"), "mqtts://d:4");
});

test("a refused token is told apart from a platform that is away", async (t) => {
  const { url } = await platform(t, [401, {}]);
  await assert.rejects(new Endpoints(url).next("token"), Refused);
  const away = await platform(t, [503, {}]);
  await assert.rejects(new Endpoints(away.url).next("token"), /503/);
});

test("addresses of the application are taken as they are, in turn", async () => {
  const endpoints = new Endpoints(["mqtts://a", "wss://b/mqtt"]);
  assert.equal(await endpoints.next("token"), "mqtts://a");
  endpoints.failed();
  assert.equal(await endpoints.next("token"), "wss://b/mqtt");
  endpoints.failed();
  assert.equal(await endpoints.next("token"), "mqtts://a");
  await assert.rejects(new Endpoints(["http://a"]).next("token"), /no address/);
});
