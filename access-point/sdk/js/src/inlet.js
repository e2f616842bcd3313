/**
 * @file What comes for one app: each message is given to the application once and in order, pages of them are fetched. It
 * knows no link, only how to publish while there is one.
 */

import { unpack } from "./coding.js";
import { opened } from "./envelope.js";
import { Seen } from "./seen.js";

/** Messages of a page at most: the application is through with them before the platform doubts that they arrived. */
const PAGE_MAX = 50;

/**
 * @typedef {object} Message
 * @property {string} id the same whenever it is sent again
 * @property {string} seq where it stands in its stream
 * @property {string} type
 * @property {string} ts when it was accepted, RFC 3339
 * @property {string} traceparent
 * @property {any} payload a value if it was sent as JSON, else a Uint8Array
 * @property {string} [class] `command` for an order, which `conclude` answers
 * @property {string} [deadline] a command is not to be begun later, RFC 3339
 * @property {string} [from] the device that sent it, if it was one
 * @property {string} [request] the request that it answers
 */

/**
 * @typedef {object} Ears what an application hears of one app
 * @property {(message: Message) => unknown} onMessage gets each message once and in order. The platform counts it as
 *   received when this returns, or when the promise that it returns settles; what it throws goes to `onError`
 * @property {(order: { op: string }) => void} [onOrder] what the platform tells besides: `resync`, `recall`, …
 * @property {(latest: string) => unknown} [onNotice] with `mode: "notify"`, that there is something up to this number; by
 *   default it is fetched at once
 * @property {(error: unknown) => void} [onError]
 */

/** What comes for one app. */
export class Inlet {
  #app;
  #seen;
  #ears;
  #publish = null;
  /** The end of what is being fetched, for those who wait for it. */
  #fetching = null;

  /** @param {{ app: string, device: string, storage: Pick<Storage, "getItem" | "setItem"> } & Ears} options */
  constructor({ app, device, storage, onMessage, onOrder, onNotice, onError }) {
    this.#app = app;
    this.#seen = new Seen(storage, `fanfare/${app}/${device}/seen`);
    // A link that ends tells the next one of what is left.
    const fetchAll = () => this.fetch().catch(() => {});
    this.#ears = { onMessage, onOrder, onNotice: onNotice ?? fetchAll, onError };
  }

  /** The last number received in each stream, as the platform reads it. */
  get position() {
    return this.#seen.position;
  }

  /** @param {(message: object) => Promise<number>} publish resolves to the reason of the answer */
  open(publish) {
    this.#publish = publish;
  }

  /** The link is gone. */
  close() {
    this.#publish = null;
    this.#fetched(new Error("the link is gone, and not everything is fetched"));
  }

  /**
   * Fetches what there is, page by page.
   * @returns {Promise<void>} settles when the application has all of it, rejects when the link ends before
   */
  fetch() {
    if (!this.#publish) return Promise.reject(new Error("there is no link to fetch over"));
    if (!this.#fetching) {
      const done = new Promise((resolve, reject) => (this.#fetching = { resolve, reject }));
      this.#fetching.done = done;
      this.#ask();
    }
    return this.#fetching.done;
  }

  /**
   * Takes what was published to a topic of the app.
   * @param {string[]} levels of the topic behind the app
   * @param {Uint8Array} payload
   * @param {object} properties
   * @returns {Promise<void>} settles when it may be acked
   */
  async take([kind, request], payload, { contentType, userProperties = {} }) {
    const { "content-encoding": coding, ...told } = userProperties;
    const body = () => unpack(coding, payload);
    if (kind === "page") return this.#takePage(body);
    if (kind === "msg" || kind === "res") {
      const read = async () => (contentType === "application/json" ? json(await body()) : body());
      return this.#give({ ...told, ...(kind === "res" && { request }) }, read);
    }
    try {
      if (kind === "notify") await this.#ears.onNotice(json(payload).latest);
      else this.#ears.onOrder({ op: kind, ...json(payload) });
    } catch (error) {
      this.#ears.onError(error);
    }
  }

  /** An application that fails at a message would fail at it again: it counts as received. */
  async #give(message, read) {
    if (this.#seen.isNew(message)) {
      try {
        await this.#ears.onMessage({ ...message, payload: await read() });
      } catch (error) {
        this.#ears.onError(error);
      }
    }
    this.#seen.note(message);
  }

  async #takePage(body) {
    try {
      const { messages, more } = json(await body());
      for (const message of messages.map(opened)) await this.#give(message, async () => message.payload);
      // The next page when this one is acked.
      if (more) setTimeout(() => this.#ask());
      else this.#fetched();
    } catch (error) {
      this.#fetched(error);
      throw error;
    }
  }

  async #ask() {
    const payload = JSON.stringify({ after: this.position, limit: PAGE_MAX });
    const topic = `push/${this.#app}/sync`;
    const asked = { topic, payload, contentType: "application/json", responseTopic: `push/${this.#app}/page` };
    // Without an answer the link is gone, which ends it too.
    const reason = await this.#publish?.(asked).catch(() => undefined);
    if (reason >= 0x80) this.#fetched(new Error(`the platform answers 0x${reason.toString(16)}`));
  }

  #fetched(error) {
    const fetching = this.#fetching;
    this.#fetching = null;
    if (error) fetching?.reject(error);
    else fetching?.resolve();
  }
}

function json(payload) {
  return JSON.parse(new TextDecoder().decode(payload));
}
