/** @file What an application does as a device of one app, whichever link that goes over. */

/**
 * @typedef {object} Outcome
 * @property {"succeeded" | "failed" | "rejected"} status
 * @property {string} [reason] for people
 * @property {any} [result] what JSON can write
 */

/** A device of one app. */
export class Session {
  #app;
  #inlet;
  #outbox;

  /**
   * @param {string} app
   * @param {import("./inlet.js").Inlet} inlet
   * @param {import("./outbox.js").Outbox} outbox
   */
  constructor(app, inlet, outbox) {
    this.#app = app;
    this.#inlet = inlet;
    this.#outbox = outbox;
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

  /**
   * With `mode: "notify"`, gives `onMessage` what waits on the platform.
   * @returns {Promise<void>} resolves when it has all of it; rejects when the link ends before
   */
  fetch() {
    return this.#inlet.fetch();
  }

  #up(topic, payload) {
    const isText = typeof payload === "string";
    return this.#outbox.put({
      topic: `push/${this.#app}/${topic}`,
      contentType: isText ? "text/plain" : "application/json",
      payload: isText ? payload : JSON.stringify(payload),
    });
  }
}
