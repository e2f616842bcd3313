/** @file Waiting before the next try, so that a crowd that was cut off together does not come back together. */

const FIRST_MS = 2_000;
const LONGEST_MS = 60_000;
/** 2 s · 2^5 is past the longest: counting further changes nothing. */
const DOUBLED_MAX = 5;

/**
 * How long to wait after so many failures in a row: anywhere between nothing and a bound that doubles ("full jitter").
 * @param {number} failures in a row, from 0
 * @returns {number} milliseconds
 */
export function backoff(failures) {
  return Math.random() * Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures, DOUBLED_MAX));
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal] ends the pause early
 */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}
