import assert from "node:assert/strict";
import { test } from "node:test";

import { NotTaken, Outbox } from "../src/outbox.js";
import { MemoryStorage } from "../src/storage.js";

const message = (payload) => ({ topic: "push/demo/up/gps", contentType: "text/plain", payload });

test("messages go out one after the other, in order, once there is a link", async () => {
  const outbox = new Outbox(new MemoryStorage(), "outbox");
  const sent = [outbox.put(message("1")), outbox.put(message("2"))];
  const published = [];
  let underWay = 0;
  outbox.open(async ({ payload }) => {
    assert.equal(++underWay, 1);
    published.push(payload);
    await new Promise(setImmediate);
    underWay -= 1;
    return 0;
  });
  await Promise.all([...sent, outbox.put(message("3"))]);
  assert.deepEqual(published, ["1", "2", "3"]);
});

test("what a broken link leaves open goes out over the next, also in another process", async () => {
  const storage = new MemoryStorage();
  const before = new Outbox(storage, "outbox");
  before.put(message("1"));
  const first = await new Promise((resolve) => {
    before.open((upward) => {
      before.close();
      resolve(upward);
      return Promise.reject(new Error("lost"));
    });
  });
  const after = new Outbox(storage, "outbox");
  const again = await new Promise((resolve) => after.open(async (upward) => (resolve(upward), 0)));
  assert.equal(again.payload, "1");
  assert.match(again.id, /^[A-Za-z0-9_-]{20,64}$/);
  assert.equal(again.id, first.id, "products read it once");
});

test("an answer that a repetition would not change ends a message, and the next goes out", async () => {
  const outbox = new Outbox(new MemoryStorage(), "outbox");
  outbox.open(async ({ payload }) => (payload === "bad" ? 0x99 : 0));
  const bad = outbox.put(message("bad"));
  const good = outbox.put(message("good"));
  await assert.rejects(bad, NotTaken);
  await good;
});

test("a quota that is used up is waited for", async () => {
  const outbox = new Outbox(new MemoryStorage(), "outbox");
  const answers = [0x97, 0];
  outbox.open(async () => answers.shift());
  await outbox.put(message("1"));
  assert.deepEqual(answers, []);
});

test("it is bounded, in messages and in bytes", async () => {
  const outbox = new Outbox(new MemoryStorage(), "outbox");
  for (let n = 0; n < 100; n += 1) outbox.put(message(`${n}`));
  await assert.rejects(outbox.put(message("one too many")), NotTaken);
  await assert.rejects(new Outbox(new MemoryStorage(), "o").put(message("x".repeat(40_000))), NotTaken);
});
