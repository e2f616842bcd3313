/**
 * @file A terminal that stays connected: it finds an access point, receives each message once and in order, sends up what
 * it is given, and comes back when the link breaks.
 */

import { Binding } from "./binding.js";
import { Endpoints, Refused } from "./endpoints.js";
import { Inlet } from "./inlet.js";
import { Link } from "./link.js";
import { Outbox } from "./outbox.js";
import { Comeback, pause } from "./pause.js";
import { Session } from "./session.js";
import { MemoryStorage } from "./storage.js";

/** A link that lasted this long was a good one: what follows is not a failure in a row. */
const GOOD_MS = 30_000;

/** The most that MQTT can say: the platform then tells the keep alive that suits it. */
const KEEP_ALIVE_OF_PLATFORM_S = 65_535;

/** Answers about who the terminal is: version, client id, password, not authorised, banned, method, kicked. */
const REFUSALS = new Set([0x84, 0x85, 0x86, 0x87, 0x8a, 0x8c, 0x98]);
/** The same device is connected elsewhere. */
const TAKEN_OVER = 0x8e;

/**
 * @typedef {import("./inlet.js").Ears & {
 *   app: string,
 *   token: string | (() => string | Promise<string>),
 *   onState?: (state: "connecting" | "online" | "waiting" | "stopped", detail: string) => void,
 *   storage?: Pick<Storage, "getItem" | "setItem">,
 * }} Shared what every app on a link has. `token` is a device token, or how to get one before each connection; what is
 *   known lives as long as `storage`: `localStorage` in a browser, `FileStorage` of `fanfare/node`; by default only as long
 *   as the object
 */

/**
 * @typedef {Shared & {
 *   device: string,
 *   endpoints: string | string[],
 *   mode?: "push" | "notify",
 *   keepAliveS?: number,
 *   tls?: object,
 * }} Options `endpoints` is the platform's HTTP address, or addresses of access points: `mqtt://`, `mqtts://`, `ws://` or
 *   `wss://`, of which browsers have the last two. With `mode: "notify"` messages wait until they are fetched. The platform
 *   decides about the keep alive, in seconds, unless it is given. `tls`, in Node.js, are options of `tls.connect`, such as
 *   `ca`, for `mqtts://` and `wss://`
 */

const silent = () => {};

/** A device of an app, and the link that it holds. */
export class Terminal extends Session {
  #options;
  #endpoints;
  #inlet;
  #outbox;
  /** Other apps on the link, by name. */
  #bindings = new Map();
  #stop = new AbortController();
  #running = null;
  #link = null;
  #isOnline = false;

  /** @param {Options} options */
  constructor(options) {
    const usual = { onOrder: silent, onState: silent, onError: console.error, storage: new MemoryStorage() };
    const all = { ...usual, ...options };
    const { app, device, storage, endpoints } = all;
    const inlet = new Inlet({ ...all, onOrder: (order) => this.#order(order) });
    const outbox = new Outbox(storage, `fanfare/${app}/${device}/outbox`);
    super(app, inlet, outbox);
    this.#options = all;
    this.#endpoints = new Endpoints(endpoints);
    this.#inlet = inlet;
    this.#outbox = outbox;
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
    for (const app of this.#bindings.keys()) this.unbind(app);
  }

  /**
   * Puts another app on the same link: one keep alive, one way through the network, whatever the number of apps. It has its
   * own token, position and outbox.
   * @param {Shared} options by default, what is known lives as long as what the terminal knows
   * @returns {Session} the device of that app
   */
  bind(options) {
    const { app: host, device, storage, onError } = this.#options;
    this.unbind(options.app);
    const usual = { onOrder: silent, onState: silent, onError, storage };
    const binding = new Binding({ ...usual, ...options, device, host });
    this.#bindings.set(options.app, binding);
    if (this.#isOnline) binding.open(this.#publish);
    return binding.session;
  }

  /**
   * Takes an app off the link.
   * @param {string} app
   */
  unbind(app) {
    this.#bindings.get(app)?.leave();
    this.#bindings.delete(app);
  }

  async #stay() {
    const comeback = new Comeback(this.#options.token);
    while (!this.#stop.signal.aborted) {
      const since = Date.now();
      const { opened, reason, elsewhere = [], cause } = await this.#once();
      if (this.#stop.signal.aborted) break;
      if (opened && Date.now() - since > GOOD_MS) comeback.succeeded();
      const wait = comeback.after({ isRefusal: REFUSALS.has(reason), isTakenOver: reason === TAKEN_OVER });
      if (wait === undefined) return this.#options.onState("stopped", cause);
      if (elsewhere.length > 0) this.#endpoints.moved(elsewhere);
      else if (!opened || reason !== undefined) this.#endpoints.failed();
      this.#options.onState("waiting", cause);
      await pause(wait, this.#stop.signal);
    }
    this.#options.onState("stopped", "as asked");
  }

  /** One connection, or the attempt at one. */
  async #once() {
    const { app, device, token, mode, keepAliveS = KEEP_ALIVE_OF_PLATFORM_S, tls, onState } = this.#options;
    try {
      const password = typeof token === "function" ? await token() : token;
      const url = await this.#endpoints.next(password);
      onState("connecting", url);
      const login = { app, device, token: password, after: this.#inlet.position, mode, keepAliveS, tls };
      this.#link = new Link(url, login, {
        open: () => this.#opened(url),
        take: (topic, payload, properties) => this.#take(topic, payload, properties),
      });
      if (this.#stop.signal.aborted) this.#link.close();
      return await this.#link.ended;
    } catch (error) {
      return { opened: false, reason: error instanceof Refused ? 0x87 : undefined, cause: error.message };
    } finally {
      this.#closed();
    }
  }

  #publish = (message) => this.#link?.publish(message) ?? Promise.reject(new Error("there is no link"));

  #opened(url) {
    this.#isOnline = true;
    this.#inlet.open(this.#publish);
    this.#outbox.open(this.#publish);
    this.#options.onState("online", url);
    for (const binding of this.#bindings.values()) binding.open(this.#publish);
  }

  #closed() {
    this.#inlet.close();
    this.#outbox.close();
    if (this.#isOnline) for (const binding of this.#bindings.values()) binding.close();
    this.#isOnline = false;
    this.#link = null;
  }

  async #take(topic, payload, properties) {
    const [, app, ...levels] = topic.split("/");
    const to = app === this.#options.app ? this.#inlet : this.#bindings.get(app);
    await to?.take(levels, payload, properties);
  }

  #order(order) {
    if (order.op === "bind" || order.op === "unbind") this.#bindings.get(order.app)?.told(order);
    else this.#options.onOrder(order);
  }
}
