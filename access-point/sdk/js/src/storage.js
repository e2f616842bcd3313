/** @file Storage for terminals that need not know, after a restart, what they knew. */

/** As much of the Web Storage interface as a terminal uses. */
export class MemoryStorage {
  #items = new Map();

  getItem(key) {
    return this.#items.get(key) ?? null;
  }

  setItem(key, value) {
    this.#items.set(key, value);
  }
}
