/**
 * @file A terminal that stays connected: it finds an access point, receives each message once and in order, sends up what
 * it is given, and comes back when the link breaks.
 */

import { Endpoints, Refused } from "./endpoints.js";
import { Link } from "./link.js";
import { Outbox } from "./outbox.js";
import { backoff, pause } from "./pause.js";
import { Seen } from "./seen.js";
import { MemoryStorage } from "./storage.js";

/** A link that lasted this long was a good one: what follows is not a failure in a row. */
const GOOD_MS = 30_000;

/** The most that MQTT can say: the platform then tells the keep alive that suits it. */
const KEEP_ALIVE_OF_PLATFORM_S = 65_535;

/** Answers about who the terminal is: version, client id, password, not authorised, banned, method, kicked. */
const REFUSALS = new Set([0x84, 0x85, 0x86, 0x87, 0x8a, 0x8c, 0x98]);
/** The same device is connected elsewhere. */
const TAKEN_OVER = 0x8e;
/** Failures that this counts for: two terminals with one device id must not throw each other out all the time. */
const TAKEN_OVER_FAILURES = 4;

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
 * @typedef {object} Outcome
 * @property {"succeeded" | "failed" | "rejected"} status
 * @property {string} [reason] for people
 * @property {any} [result] what JSON can write
 */

/**
 * @typedef {object} Options
 * @property {string} app
 * @property {string} device
 * @property {string | (() => string | Promise<string>)} token a device token, or how to get one before each connection
 * @property {string | string[]} endpoints the platform's HTTP address, or addresses of access points: `mqtt://`,
 *   `mqtts://`, `ws://` or `wss://`, of which browsers have the last two
 * @property {(message: Message) => unknown} onMessage gets each message once and in order. The platform counts it as
 *   received when this returns, or when the promise that it returns settles; what it throws goes to `onError`
 * @property {(order: { op: string }) => void} [onOrder] what the platform tells besides: `resync`, `recall`, `notify`, …
 * @property {(state: "connecting" | "online" | "waiting" | "stopped", detail: string) => void} [onState]
 * @property {(error: unknown) => void} [onError]
 * @property {Pick<Storage, "getItem" | "setItem">} [storage] what is known lives as long as this: `localStorage` in a
 *   browser, `FileStorage` of `fanfare/node`; by default only as long as the object
 * @property {number} [keepAliveS] seconds; by default the platform decides
 * @property {object} [tls] in Node.js, for `mqtts://` and `wss://`: options of `tls.connect`, such as `ca`
 */

/** A device of an app. */
export class Terminal {
  #options;
  #endpoints;
  #seen;
  #outbox;
  #stop = new AbortController();
  #running = null;
  #link = null;

  /** @param {Options} options */
  constructor(options) {
    const silent = () => {};
    this.#options = { onOrder: silent, onState: silent, onError: console.error, storage: new MemoryStorage(), ...options };
    const { app, device, storage, endpoints } = this.#options;
    this.#endpoints = new Endpoints(endpoints);
    this.#seen = new Seen(storage, `fanfare/${app}/${device}/seen`);
    this.#outbox = new Outbox(storage, `fanfare/${app}/${device}/outbox`);
  }

  /** Connects, and goes on doing so until `stop` or until the platform refuses the terminal for good. */
  start() {
    this.#running ??= this.#stay();
  }

  /** Disconnects for good. */
  async stop() {
    this.#stop.abort();
    this.#link?.close();
    await this.#running;
  }

  /**
   * Sends something up to the products that read this type.
   * @param {string} type
   * @param {any} payload text, or a value that JSON can write
   * @param {{ request?: string }} [options] a name for what it asks: the answer is a message with the same `request`
   * @returns {Promise<void>} resolves when the platform has it on disk; rejects with `NotTaken` when it never will
   */
  send(type, payload, { request } = {}) {
    return this.#up(request ? `up/${type}/${request}` : `up/${type}`, payload);
  }

  /**
   * Sends something to another device, where the app lets devices do so.
   * @param {string} device
   * @param {string} type
   * @param {any} payload as of `send`
   * @returns {Promise<void>} as of `send`
   */
  sendTo(device, type, payload) {
    return this.#up(`peer/${device}/${type}`, payload);
  }

  /**
   * Says what came of a command. The first word on it counts.
   * @param {string} id of the command
   * @param {Outcome} outcome
   * @returns {Promise<void>} as of `send`
   */
  conclude(id, outcome) {
    return this.#up(`result/${id}`, outcome);
  }

  /**
   * Changes what the platform knows about the device, for filters to find it by.
   * @param {object} patch a JSON merge patch of its tags and attributes
   * @returns {Promise<void>} as of `send`
   */
  report(patch) {
    return this.#up("attr", patch);
  }

  #up(topic, payload) {
    const isText = typeof payload === "string";
    return this.#outbox.put({
      topic: `push/${this.#options.app}/${topic}`,
      contentType: isText ? "text/plain" : "application/json",
      payload: isText ? payload : JSON.stringify(payload),
    });
  }

  async #stay() {
    const canRenew = typeof this.#options.token === "function";
    let failures = 0;
    let refusals = 0;
    while (!this.#stop.signal.aborted) {
      const since = Date.now();
      const { opened, reason, elsewhere = [], cause } = await this.#once();
      if (this.#stop.signal.aborted) break;
      refusals = REFUSALS.has(reason) ? refusals + 1 : 0;
      // A new token gets one chance.
      if (refusals > (canRenew ? 1 : 0)) return this.#options.onState("stopped", cause);
      if (elsewhere.length > 0) this.#endpoints.moved(elsewhere);
      else if (!opened || reason !== undefined) this.#endpoints.failed();
      if (opened && Date.now() - since > GOOD_MS) failures = 0;
      if (reason === TAKEN_OVER) failures = Math.max(failures, TAKEN_OVER_FAILURES);
      this.#options.onState("waiting", cause);
      await pause(backoff(failures++), this.#stop.signal);
    }
    this.#options.onState("stopped", "as asked");
  }

  /** One connection, or the attempt at one. */
  async #once() {
    const { app, device, token, keepAliveS = KEEP_ALIVE_OF_PLATFORM_S, tls, onState } = this.#options;
    try {
      const password = typeof token === "function" ? await token() : token;
      const url = await this.#endpoints.next(password);
      onState("connecting", url);
      const login = { app, device, token: password, after: this.#seen.position, keepAliveS, tls };
      this.#link = new Link(url, login, {
        open: () => {
          this.#outbox.open((message) => this.#link.publish(message));
          onState("online", url);
        },
        message: (topic, payload, properties) => this.#take(topic, payload, properties),
        order: (topic, payload) => this.#order(topic, payload),
      });
      if (this.#stop.signal.aborted) this.#link.close();
      return await this.#link.ended;
    } catch (error) {
      return { opened: false, reason: error instanceof Refused ? 0x87 : undefined, cause: error.message };
    } finally {
      this.#outbox.close();
      this.#link = null;
    }
  }

  async #take(topic, payload, { contentType, userProperties = {} }) {
    const [, , kind, last] = topic.split("/");
    if (kind !== "msg" && kind !== "res") return this.#order(topic, payload);
    const { id, seq } = userProperties;
    if (!this.#seen.isNew({ id, seq })) return this.#seen.note({ id, seq });
    try {
      const body = contentType === "application/json" ? json(payload) : payload;
      await this.#options.onMessage({ ...userProperties, ...(kind === "res" && { request: last }), payload: body });
    } catch (error) {
      this.#options.onError(error);
    }
    this.#seen.note({ id, seq });
  }

  #order(topic, payload) {
    try {
      this.#options.onOrder({ op: topic.split("/")[2], ...json(payload) });
    } catch (error) {
      this.#options.onError(error);
    }
  }
}

function json(payload) {
  return JSON.parse(new TextDecoder().decode(payload));
}
