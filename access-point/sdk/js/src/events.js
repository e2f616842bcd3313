/**
 * @file A terminal for plain browsers: messages come as server-sent events, acks are posted. It needs no mqtt.js, and only
 * HTTP; a `Terminal` is lighter for both sides, and sends more. `EventSource` reconnects by itself and says what came last.
 */

import { opened } from "./envelope.js";
import { backoff, pause } from "./pause.js";
import { Seen } from "./seen.js";
import { MemoryStorage } from "./storage.js";

/** What an access point tells besides messages. */
const ORDERS = ["control", "recall", "resync"];

/**
 * @typedef {object} Options as of a `Terminal`
 * @property {string} app
 * @property {string} device
 * @property {string | (() => string | Promise<string>)} token stands in the address of the stream: let it be short-lived
 * @property {string} accessPoint its HTTP address
 * @property {(message: import("./inlet.js").Message) => unknown} onMessage
 * @property {(order: { op: string }) => void} [onOrder]
 * @property {(state: "connecting" | "online" | "waiting" | "stopped", detail: string) => void} [onState]
 * @property {(error: unknown) => void} [onError]
 * @property {Pick<Storage, "getItem" | "setItem">} [storage]
 */

/** A device of an app, over server-sent events. */
export class EventTerminal {
  #options;
  #seen;
  #token = "";
  #source = null;
  #failures = 0;
  #stop = new AbortController();
  /** Messages are handled one after the other, in the order of arrival. */
  #handled = Promise.resolve();
  #received = "";
  #acking = false;

  /** @param {Options} options */
  constructor(options) {
    const silent = () => {};
    this.#options = { onOrder: silent, onState: silent, onError: console.error, storage: new MemoryStorage(), ...options };
    const { storage, app, device } = this.#options;
    this.#seen = new Seen(storage, `fanfare/${app}/${device}/seen`);
  }

  /** Connects, and goes on doing so until `stop` or until the platform refuses the terminal for good. */
  async start() {
    const { token, accessPoint, onState, onOrder, onError } = this.#options;
    try {
      this.#token = typeof token === "function" ? await token() : token;
    } catch (error) {
      onError(error);
      return this.#again("no token");
    }
    if (this.#stop.signal.aborted) return;
    const url = new URL("/v1/stream", accessPoint);
    url.search = new URLSearchParams({ token: this.#token, after: this.#seen.position });
    onState("connecting", accessPoint);
    this.#source = new EventSource(url);
    this.#source.onopen = () => {
      this.#failures = 0;
      onState("online", accessPoint);
    };
    this.#source.onmessage = (event) => {
      this.#handled = this.#handled.then(() => this.#take(event)).catch(onError);
    };
    for (const name of ORDERS) {
      this.#source.addEventListener(name, ({ data }) => onOrder({ op: name, ...JSON.parse(data) }));
    }
    this.#source.onerror = () => {
      if (this.#source.readyState === EventSource.CLOSED) this.#again("the platform refuses the stream");
      else onState("waiting", "the stream ended");
    };
  }

  /** Disconnects for good. */
  stop() {
    this.#stop.abort();
    this.#source?.close();
    this.#options.onState("stopped", "as asked");
  }

  /**
   * Sends something up to the products that read this type, while the stream is open.
   * @param {string} type
   * @param {any} payload a value that JSON can write
   * @returns {Promise<void>} resolves when the platform has it on disk
   */
  async send(type, payload) {
    const answer = await this.#post(`/v1/stream/up/${type}`, payload);
    if (!answer.ok) throw new Error(`the platform answers HTTP ${answer.status}`);
  }

  /** `EventSource` has given up, as it does at any answer but 200: with a new token it may be another. */
  async #again(cause) {
    if (typeof this.#options.token !== "function" || this.#failures > 1) {
      return this.#options.onState("stopped", cause);
    }
    this.#options.onState("waiting", cause);
    await pause(backoff(this.#failures++), this.#stop.signal);
    if (!this.#stop.signal.aborted) await this.start();
  }

  async #take({ data, lastEventId }) {
    const message = opened(JSON.parse(data));
    if (this.#seen.isNew(message)) {
      try {
        await this.#options.onMessage(message);
      } catch (error) {
        this.#options.onError(error);
      }
    }
    this.#seen.note(message);
    this.#received = lastEventId;
    this.#acknowledge();
  }

  /** One post at a time, each for all that was received meanwhile. One that fails is made good by the next, or by the return. */
  async #acknowledge() {
    if (this.#acking) return;
    this.#acking = true;
    for (let told = ""; told !== this.#received; ) {
      told = this.#received;
      await this.#post("/v1/stream/ack", { up_to: told }).catch(() => {});
    }
    this.#acking = false;
  }

  #post(path, body) {
    return fetch(new URL(path, this.#options.accessPoint), {
      method: "POST",
      headers: { authorization: `Bearer ${this.#token}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  }
}
