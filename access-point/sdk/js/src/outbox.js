/**
 * @file What a terminal sends up: kept until the platform has it on disk, sent one after the other in the order of sending.
 * What was under way when a link broke goes out again, under the id that it had: products read it once.
 */

import { backoff, pause } from "./pause.js";

/** Messages that wait at a time: a terminal that is away for long sends what counts, not everything. */
const WAITING_MAX = 100;
/** The largest payload: what a terminal reports is small, and every one of these may lie in storage. */
const PAYLOAD_MAX_BYTES = 32 * 1024;

/** Answers that a repetition would not change: not authorised, topic name, packet too large, payload format. */
const FOR_GOOD = new Set([0x87, 0x90, 0x95, 0x99]);

/** The platform did not take a message, and will not. */
export class NotTaken extends Error {
  name = "NotTaken";
}

/** Messages on their way up. */
export class Outbox {
  #storage;
  #key;
  #waiting = [];
  /** What the senders of messages wait for; those of an earlier process wait no longer. */
  #senders = new WeakMap();
  #publish = null;
  #busy = false;

  /**
   * @param {Pick<Storage, "getItem" | "setItem">} storage
   * @param {string} key
   */
  constructor(storage, key) {
    this.#storage = storage;
    this.#key = key;
    try {
      this.#waiting = JSON.parse(storage.getItem(key) ?? "[]");
    } catch {
      // It cannot be sent if it cannot be read.
    }
  }

  /**
   * Keeps a message for as long as it takes.
   * @param {{ topic: string, contentType: string, payload: string }} message
   * @returns {Promise<void>} settles when the platform has it, or says that it never will
   */
  put(message) {
    const bytes = new TextEncoder().encode(message.payload).length;
    if (bytes > PAYLOAD_MAX_BYTES) return Promise.reject(new NotTaken(`${bytes} bytes, ${PAYLOAD_MAX_BYTES} at most`));
    if (this.#waiting.length >= WAITING_MAX) return Promise.reject(new NotTaken(`${WAITING_MAX} messages wait already`));
    return new Promise((resolve, reject) => {
      const named = { ...message, id: newId() };
      this.#senders.set(named, { resolve, reject });
      this.#waiting.push(named);
      this.#save();
      this.#empty();
    });
  }

  /**
   * A link is there: everything goes out.
   * @param {(message: object) => Promise<number>} publish resolves to the reason of the answer, rejects without one
   */
  open(publish) {
    this.#publish = publish;
    this.#empty();
  }

  /** The link is gone. */
  close() {
    this.#publish = null;
  }

  async #empty() {
    if (this.#busy) return;
    this.#busy = true;
    for (let failures = 0; this.#publish && this.#waiting.length > 0; ) {
      const [message] = this.#waiting;
      const reason = await this.#publish(message).catch(() => undefined);
      const isTaken = reason < 0x80;
      if (isTaken || FOR_GOOD.has(reason)) {
        failures = 0;
        this.#waiting.shift();
        this.#save();
        const sender = this.#senders.get(message);
        if (isTaken) sender?.resolve();
        else sender?.reject(new NotTaken(`the platform answers 0x${reason.toString(16)}`));
      } else if (this.#publish) {
        await pause(backoff(failures++));
      }
    }
    this.#busy = false;
  }

  #save() {
    this.#storage.setItem(this.#key, JSON.stringify(this.#waiting));
  }
}

/** Unlike any other of this device, in any process of it. Where a page is not secure, `crypto` has nothing better. */
function newId() {
  const random = () => Math.random().toString(36).slice(2);
  return `${Date.now().toString(36)}-${random()}${random()}`.slice(0, 64);
}
