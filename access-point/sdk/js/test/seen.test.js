import assert from "node:assert/strict";
import { test } from "node:test";

import { Seen } from "../src/seen.js";
import { MemoryStorage } from "../src/storage.js";

const seen = (storage = new MemoryStorage()) => new Seen(storage, "seen");

test("the position is the greatest number of each stream, the inbox first", () => {
  const it = seen();
  assert.equal(it.position, "i0.t0");
  for (const [id, seq] of [["a", "t7"], ["b", "i3"], ["c", "t5"]]) it.note({ id, seq });
  assert.equal(it.position, "i3.t7");
});

test("a message is new once, and streams do not know each other", () => {
  const it = seen();
  it.note({ id: "a", seq: "i7" });
  assert.equal(it.isNew({ id: "a", seq: "i7" }), false);
  assert.equal(it.isNew({ id: "b", seq: "i6" }), false);
  assert.equal(it.isNew({ id: "b", seq: "i8" }), true);
  assert.equal(it.isNew({ id: "b", seq: "t1" }), true);
});

test("what comes back under a greater number is known by its id, and the number counts", () => {
  const it = seen();
  it.note({ id: "a", seq: "i7" });
  assert.equal(it.isNew({ id: "a", seq: "i9" }), false);
  it.note({ id: "a", seq: "i9" });
  assert.equal(it.position, "i9.t0");
});

test("the last 1,000 ids are known, the one before them is not", () => {
  const it = seen();
  for (let n = 0; n <= 1_000; n += 1) it.note({ id: `m${n}`, seq: `i${n}` });
  assert.equal(it.isNew({ id: "m0", seq: "i5000" }), true);
  assert.equal(it.isNew({ id: "m1", seq: "i5000" }), false);
});

test("it outlives its object, and what cannot be read is as good as nothing", () => {
  const storage = new MemoryStorage();
  seen(storage).note({ id: "a", seq: "t7353343181303808" });
  assert.equal(seen(storage).position, "i0.t7353343181303808");
  assert.equal(seen(storage).isNew({ id: "a", seq: "t9000000000000000" }), false);
  storage.setItem("seen", "{");
  assert.equal(seen(storage).position, "i0.t0");
});

test("what is no number of a stream is an error", () => {
  for (const seq of ["", "7", "x7", "i07", "i-1", undefined]) {
    assert.throws(() => seen().isNew({ id: "a", seq }), TypeError);
  }
});
