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

/** Failures that it counts for when the same device is connected elsewhere: two must not throw each other out all the time. */
const TAKEN_OVER_FAILURES = 4;

/** Whether and when to try again, for a terminal or an app on its link. */
export class Comeback {
  #chances;
  #failures = 0;
  #refusals = 0;

  /** @param {unknown} token a new one gets one chance, if it says how to get one */
  constructor(token) {
    this.#chances = typeof token === "function" ? 1 : 0;
  }

  /** What came before was good: what follows is not a failure in a row. */
  succeeded() {
    this.#failures = 0;
  }

  /** Nothing is wrong with who it is. */
  accepted() {
    this.#refusals = 0;
  }

  /**
   * @param {{ isRefusal: boolean, isTakenOver: boolean }} end
   * @returns {number | undefined} milliseconds until the next try; nothing when that would change nothing
   */
  after({ isRefusal, isTakenOver }) {
    this.#refusals = isRefusal ? this.#refusals + 1 : 0;
    if (this.#refusals > this.#chances) return undefined;
    if (isTakenOver) this.#failures = Math.max(this.#failures, TAKEN_OVER_FAILURES);
    return backoff(this.#failures++);
  }
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
