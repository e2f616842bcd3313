/**
 * @file What a terminal has received: the greatest number of each stream and the last message ids. A message is new when
 * its number is greater and its id unknown; the id is for what the platform lost and sends again under a greater number.
 */

/** Ids that are kept: more than can be under way twice. */
const IDS_MAX = 1_000;

/** `i<number>` stands in the inbox, `t<number>` in the timeline; numbers stay below 2^53 until 2039. */
const SEQ = /^([it])(0|[1-9]\d{0,15})$/;

/** What a terminal has received. It outlives the process if its storage does. */
export class Seen {
  #storage;
  #key;
  #greatest = { i: 0, t: 0 };
  #ids = new Set();

  /**
   * @param {Pick<Storage, "getItem" | "setItem">} storage
   * @param {string} key
   */
  constructor(storage, key) {
    this.#storage = storage;
    this.#key = key;
    try {
      const { greatest, ids } = JSON.parse(storage.getItem(key) ?? "{}");
      Object.assign(this.#greatest, greatest);
      this.#ids = new Set(ids);
    } catch {
      // What cannot be read is as good as nothing: the platform keeps a cursor of its own.
    }
  }

  /** The last number received in each stream, as the platform reads it. */
  get position() {
    return `i${this.#greatest.i}.t${this.#greatest.t}`;
  }

  /**
   * @param {{ id: string, seq: string }} message
   * @returns {boolean} whether it was not received before
   */
  isNew({ id, seq }) {
    const { stream, number } = parse(seq);
    return number > this.#greatest[stream] && !this.#ids.has(id);
  }

  /**
   * Notes a message as received, for good once this returns.
   * @param {{ id: string, seq: string }} message
   */
  note({ id, seq }) {
    const { stream, number } = parse(seq);
    this.#greatest[stream] = Math.max(this.#greatest[stream], number);
    this.#ids.delete(id);
    this.#ids.add(id);
    if (this.#ids.size > IDS_MAX) this.#ids.delete(this.#ids.values().next().value);
    this.#storage.setItem(this.#key, JSON.stringify({ greatest: this.#greatest, ids: [...this.#ids] }));
  }
}

function parse(seq) {
  const [, stream, digits] = SEQ.exec(seq) ?? [];
  if (!stream) throw new TypeError(`not a number of a stream: ${seq}`);
  return { stream, number: Number(digits) };
}
