/** @file Another app on a terminal's link: asked for whenever there is a link, and again when the platform ends it. */

import { Inlet } from "./inlet.js";
import { Outbox } from "./outbox.js";
import { Comeback, pause } from "./pause.js";
import { Session } from "./session.js";

/** Why an app is not on the link that asking again does not change, unless with another token. */
const REFUSALS = new Set(["token", "unknown_app", "revoked", "rejected", "too_many", "receive_maximum"]);
/** The same device is connected elsewhere. */
const TAKEN_OVER = "taken_over";

/** An app that shares a link. */
export class Binding {
  #options;
  #inlet;
  #outbox;
  #publish = null;
  #link = new AbortController();
  #comeback;

  /** What the application does with it. */
  session;

  /** @param {import("./terminal.js").Shared & { device: string, host: string }} options `host` is the link's own app */
  constructor(options) {
    this.#options = options;
    const { app, device, storage } = options;
    this.#comeback = new Comeback(options.token);
    this.#inlet = new Inlet(options);
    this.#outbox = new Outbox(storage, `fanfare/${app}/${device}/outbox`);
    this.session = new Session(app, this.#inlet, this.#outbox);
  }

  /**
   * There is a link.
   * @param {(message: object) => Promise<number>} publish
   */
  open(publish) {
    this.#publish = publish;
    this.#link = new AbortController();
    this.#comeback.succeeded();
    this.#ask();
  }

  /** The link is gone. */
  close() {
    this.#end();
    this.#options.onState("waiting", "the link is gone");
  }

  /** The app leaves the link, if there is one. */
  leave() {
    const { app, onState } = this.#options;
    this.#publish?.(this.#request({ app })).catch(() => {});
    this.#end();
    onState("stopped", "as asked");
  }

  /** What was published to a topic of the app. */
  take(levels, payload, properties) {
    return this.#inlet.take(levels, payload, properties);
  }

  /**
   * What the platform says of the app on the link.
   * @param {{ op: "bind" | "unbind", reason?: string }} order
   */
  async told({ op, reason }) {
    if (op === "bind") {
      this.#comeback.accepted();
      this.#inlet.open(this.#publish);
      this.#outbox.open(this.#publish);
      this.#options.onState("online", this.#options.host);
    } else {
      this.#shut();
      await this.#again(reason);
    }
  }

  #end() {
    this.#link.abort();
    this.#publish = null;
    this.#shut();
  }

  #shut() {
    this.#inlet.close();
    this.#outbox.close();
  }

  async #ask() {
    const { app, token, onState, onError } = this.#options;
    const publish = this.#publish;
    onState("connecting", this.#options.host);
    try {
      const password = typeof token === "function" ? await token() : token;
      if (publish !== this.#publish) return;
      const reason = await publish(this.#request({ app, token: password, after: this.#inlet.position }));
      // Whatever else comes of it is told.
      if (reason === 0x99) onState("stopped", `no app is called ${app}`);
    } catch (error) {
      if (publish !== this.#publish) return;
      onError(error);
      await this.#again("no token");
    }
  }

  async #again(reason) {
    const { onState } = this.#options;
    const wait = this.#comeback.after({ isRefusal: REFUSALS.has(reason), isTakenOver: reason === TAKEN_OVER });
    if (wait === undefined) return onState("stopped", reason);
    onState("waiting", reason);
    const { signal } = this.#link;
    await pause(wait, signal);
    if (!signal.aborted) this.#ask();
  }

  #request(bind) {
    const topic = `push/${this.#options.host}/bind`;
    return { topic, payload: JSON.stringify(bind), contentType: "application/json" };
  }
}
