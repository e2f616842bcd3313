import assert from "node:assert/strict";
import { test } from "node:test";
import zlib from "node:zlib";

import { OFFERED, unpack } from "../src/coding.js";

const whole = Buffer.from("again ".repeat(1_000));
const text = (bytes) => Buffer.from(bytes).toString();

test("what is not packed stays as it is, what is packed becomes whole", async () => {
  assert.equal(await unpack(undefined, whole), whole);
  assert.equal(text(await unpack("gzip", zlib.gzipSync(whole))), text(whole));
});

test("zstd is offered before gzip where the runtime has it", { skip: !zlib.zstdCompressSync }, async () => {
  assert.equal(OFFERED, "zstd,gzip");
  assert.equal(text(await unpack("zstd", zlib.zstdCompressSync(whole))), text(whole));
});

test("what is no packed body, or a far too large one, or was not offered, is an error", async () => {
  assert.ok(OFFERED.endsWith("gzip"));
  await assert.rejects(unpack("gzip", whole));
  await assert.rejects(unpack("gzip", zlib.gzipSync(Buffer.alloc(300 * 1024))));
  await assert.rejects(unpack("br", zlib.brotliCompressSync(whole)));
});
