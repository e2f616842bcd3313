/** @file Bodies that come packed, made whole again. What this runtime can undo is offered when a terminal connects. */

/** More than any packet of the platform holds when it is whole: what claims to be larger is not from there. */
const WHOLE_MAX_BYTES = 256 * 1024;

/** Node.js has zstd from 22.15 on; no import, for browsers read this file too. */
const zlib = globalThis.process?.getBuiltinModule?.("node:zlib");
const zstdOfNode = zlib?.zstdDecompressSync && ((packed) => zlib.zstdDecompressSync(packed, { maxOutputLength: WHOLE_MAX_BYTES }));

const CODINGS = new Map(
  [
    ["zstd", zstdOfNode ?? streamed("zstd")],
    ["gzip", streamed("gzip")],
  ].filter(([, unpack]) => unpack),
);

/** The names of what can be undone, with commas between them, the best first; empty when there is none. */
export const OFFERED = [...CODINGS.keys()].join(",");

/**
 * @param {string | undefined} coding how a body is packed, if it is
 * @param {Uint8Array} body
 * @returns {Promise<Uint8Array>}
 */
export async function unpack(coding, body) {
  if (coding === undefined) return body;
  const whole = CODINGS.get(coding);
  if (!whole) throw new Error(`a body is packed by ${coding}, which was not offered`);
  return whole(body);
}

/** By the streams that browsers and Node.js have in common; nothing where they do not know this coding. */
function streamed(coding) {
  try {
    new DecompressionStream(coding);
  } catch {
    return undefined;
  }
  return async (packed) => {
    const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream(coding)).getReader();
    const parts = [];
    let bytes = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      bytes += part.value.length;
      if (bytes > WHOLE_MAX_BYTES) {
        await reader.cancel();
        throw new Error(`a body of more than ${WHOLE_MAX_BYTES} bytes`);
      }
      parts.push(part.value);
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  };
}
