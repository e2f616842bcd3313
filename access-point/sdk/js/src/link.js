/** @file One connection of mqtt.js, from CONNECT to its end. It never connects again by itself: the terminal does. */

import mqtt from "mqtt";

import { OFFERED } from "./coding.js";

/** In a storm a platform answers up to 24 s late; more than that is a network that does not carry. */
const CONNACK_MAX_MS = 30_000;
/** How long a goodbye waits for what is under way. */
const GOODBYE_MAX_MS = 2_000;

/**
 * @typedef {object} End
 * @property {boolean} opened whether the platform had let the terminal in
 * @property {number | undefined} reason of MQTT 5, when the platform gave one
 * @property {string[]} elsewhere access points to go to instead
 * @property {string} cause for people
 */

/**
 * @typedef {object} Hear
 * @property {() => void} open the platform has let the terminal in
 * @property {(topic: string, payload: Uint8Array, properties: object) => Promise<void>} take what comes; it is acked, if it
 *   needs that, when this settles
 */

/** One connection. */
export class Link {
  #client;
  #end = { opened: false, reason: undefined, elsewhere: [], cause: "the connection was lost" };

  /** @type {Promise<End>} never rejects */
  ended;

  /**
   * @param {string} url
   * @param {{ app: string, device: string, token: string, after: string, mode?: string,
   *   keepAliveS: number, tls?: object }} login
   * @param {Hear} hear
   */
  constructor(url, login, hear) {
    this.#client = mqtt.connect(url, {
      ...login.tls,
      protocolVersion: 5,
      clientId: login.device,
      username: login.app,
      password: login.token,
      properties: { userProperties: said({ after: login.after, enc: OFFERED, mode: login.mode }) },
      keepalive: login.keepAliveS,
      connectTimeout: CONNACK_MAX_MS,
      reconnectPeriod: 0,
      customHandleAcks: (topic, payload, packet, done) =>
        hear.take(topic, payload, packet.properties ?? {}).then(() => done(null, 0), done),
    });
    this.#client.on("message", (topic, payload, { qos, properties }) => {
      // What needs no ack is not sent again either.
      if (qos === 0) hear.take(topic, payload, properties ?? {}).catch(() => {});
    });
    this.#client.on("connect", () => {
      this.#end.opened = true;
      hear.open();
    });
    this.#client.on("disconnect", ({ reasonCode, properties }) => {
      this.#end.elsewhere = properties?.serverReference?.split(" ") ?? [];
      this.#because(reasonCode, `DISCONNECT 0x${reasonCode.toString(16)}`);
    });
    this.#client.on("error", ({ code, message }) => this.#because(code, message));
    this.ended = new Promise((resolve) => {
      this.#client.once("close", () => {
        // Tells the senders of what is under way that no answer comes.
        this.#client.end(true);
        resolve(this.#end);
      });
    });
  }

  /**
   * @param {{ topic: string, contentType: string, payload: string, responseTopic?: string, id?: string }} message
   * @returns {Promise<number>} the reason of the answer; rejects when there is none
   */
  publish({ topic, contentType, payload, responseTopic, id }) {
    const properties = { contentType, ...said({ responseTopic }), ...(id && { userProperties: { id } }) };
    return new Promise((resolve, reject) => {
      this.#client.publish(topic, payload, { qos: 1, properties }, (error) => {
        if (!error) resolve(0);
        else if (typeof error.code === "number") resolve(error.code);
        else reject(error);
      });
    });
  }

  /** Says goodbye: the platform then knows at once that the terminal is away. */
  close() {
    this.#client.end(!this.#client.connected);
    const late = setTimeout(() => this.#client.stream.destroy(), GOODBYE_MAX_MS);
    this.ended.then(() => clearTimeout(late));
  }

  /** The first cause counts; those after it are its consequences. Codes of systems are text. */
  #because(code, cause) {
    if (typeof code === "number") this.#end.reason ??= code;
    this.#end.cause = cause || this.#end.cause;
  }
}

/** What there is to say. */
function said(pairs) {
  return Object.fromEntries(Object.entries(pairs).filter(([, value]) => value));
}
