import assert from "node:assert/strict";
import { test } from "node:test";
import zlib from "node:zlib";

import { Inlet } from "../src/inlet.js";
import { MemoryStorage } from "../src/storage.js";

const bytes = (value) => new TextEncoder().encode(JSON.stringify(value));
const envelope = (n) => ({ id: `m${n}`, seq: `i${n}`, type: "order", ts: "", traceparent: "", payload: n });

/** An inlet, what it gives the application and what it publishes. */
function inlet(more = {}) {
  const [given, published, errors] = [[], [], []];
  const it = new Inlet({
    app: "demo",
    device: "dev-1",
    storage: new MemoryStorage(),
    onMessage: ({ payload }) => given.push(payload),
    onOrder: () => {},
    onError: (error) => errors.push(error),
    ...more,
  });
  it.open(async (message) => (published.push({ ...message, payload: JSON.parse(message.payload) }), 0));
  return { it, given, published, errors };
}

test("pages are asked for from the position, one after the other, until there are no more", async () => {
  const { it, given, published } = inlet();
  const fetched = it.fetch();
  assert.equal(it.fetch(), fetched);
  assert.deepEqual(published.map(({ topic, payload }) => [topic, payload.after]), [["push/demo/sync", "i0.t0"]]);
  assert.equal(published[0].responseTopic, "push/demo/page");
  await it.take(["page"], bytes({ messages: [envelope(1), envelope(2)], more: true }), {});
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(published[1].payload.after, "i2.t0");
  const page = zlib.gzipSync(bytes({ messages: [envelope(2), envelope(3)], more: false }));
  await it.take(["page"], page, { userProperties: { "content-encoding": "gzip" } });
  await fetched;
  assert.deepEqual(given, [1, 2, 3]);
});

test("a notice makes it fetch, unless the application wants to decide", async () => {
  const notice = bytes({ latest: "i7" });
  const eager = inlet();
  eager.it.take(["notify"], notice, {});
  assert.equal(eager.published.length, 1);
  const told = [];
  const calm = inlet({ onNotice: (latest) => told.push(latest) });
  await calm.it.take(["notify"], notice, {});
  assert.deepEqual([told, calm.published.length], [["i7"], 0]);
});

test("fetching ends with the link, and with a no of the platform", async () => {
  const lost = inlet();
  const fetched = lost.it.fetch();
  lost.it.close();
  await assert.rejects(fetched, /link/);
  await assert.rejects(lost.it.fetch(), /link/);
  lost.it.open(async () => 0x87);
  await assert.rejects(lost.it.fetch(), /0x87/);
});

test("a body that is not JSON comes as bytes, also in a page", async () => {
  const { it, given } = inlet();
  const { payload, ...binary } = envelope(1);
  await it.take(["page"], bytes({ messages: [{ ...binary, payload_base64: "AP8=" }], more: false }), {});
  assert.deepEqual([...given[0]], [0, 255]);
});

test("what an application throws is told and does not come again", async () => {
  const { it, errors } = inlet({
    onMessage: () => {
      throw new Error("no");
    },
  });
  const properties = { contentType: "application/json", userProperties: { id: "m1", seq: "i1" } };
  await it.take(["msg", "order"], bytes(1), properties);
  await it.take(["msg", "order"], bytes(1), properties);
  assert.equal(errors.length, 1);
  assert.equal(it.position, "i1.t0");
});
