/**
 * @file Where to connect: addresses that the platform names, the least loaded first, or those the application gives. One
 * that works is kept; one that does not makes room for the next.
 */

const ANSWER_MAX_MS = 10_000;

/** What a page of a browser can open. */
const OF_BROWSERS = new Set(["ws:", "wss:"]);
const OF_NODE = new Set(["mqtt:", "mqtts:", "ws:", "wss:"]);

/** The token is not, or no longer, good: asking again with the same one is of no use. */
export class Refused extends Error {
  name = "Refused";
}

/** The addresses of access points, in the order in which to try them. */
export class Endpoints {
  #source;
  #urls = [];
  #at = 0;
  #askAgainAt = 0;

  /** @param {string | string[]} source the platform's HTTP address, or addresses of access points */
  constructor(source) {
    this.#source = source;
  }

  /**
   * @param {string} token
   * @returns {Promise<string>} the address to connect to now
   */
  async next(token) {
    if (this.#at >= this.#urls.length || Date.now() >= this.#askAgainAt) await this.#look(token);
    return this.#urls[this.#at];
  }

  /** The address does not work: the next one is for the next time. */
  failed() {
    this.#at += 1;
  }

  /**
   * The access point asks to go elsewhere: there first, but not from a secure address to an open one.
   * @param {string[]} addresses
   */
  moved(addresses) {
    const mustBeSecure = isSecure(this.#urls[this.#at]);
    const first = addresses.map(ofAddress).filter((url) => isSecure(url) || !mustBeSecure);
    if (first.length === 0) return this.failed();
    this.#urls = [...first, ...this.#urls.filter((url) => !first.includes(url))];
    this.#at = 0;
  }

  async #look(token) {
    const kept = this.#urls[this.#at];
    try {
      this.#urls = await this.#ask(token);
    } catch (error) {
      // Addresses that worked once may do so again.
      if (error instanceof Refused || this.#urls.length === 0) throw error;
    }
    this.#at = Math.max(0, this.#urls.indexOf(kept));
  }

  async #ask(token) {
    if (Array.isArray(this.#source)) {
      this.#askAgainAt = Infinity;
      return usable(this.#source);
    }
    const answer = await fetch(new URL("/v1/endpoints", this.#source), {
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(ANSWER_MAX_MS),
    });
    if (answer.status === 401 || answer.status === 403) throw new Refused("the platform refuses the token");
    if (!answer.ok) throw new Error(`the platform names no access points: HTTP ${answer.status}`);
    const { endpoints, ttl_s } = await answer.json();
    this.#askAgainAt = Date.now() + ttl_s * 1_000;
    return usable(endpoints.flatMap(({ urls, address }) => urls ?? [ofAddress(address)]));
  }
}

const isBrowser = !globalThis.process?.versions?.node;

const isSecure = (url) => /^(mqtts|wss):/.test(url);

/** An access point takes MQTT and WebSocket on the same port; a secure page may not open an insecure one. */
function ofAddress(address) {
  if (address.includes("://")) return address;
  if (!isBrowser) return `mqtt://${address}`;
  return `${globalThis.location.protocol === "https:" ? "wss" : "ws"}://${address}/mqtt`;
}

function usable(urls) {
  const schemes = isBrowser ? OF_BROWSERS : OF_NODE;
  const found = urls.filter((url) => schemes.has(new URL(url).protocol));
  if (found.length === 0) throw new Error(`no address with one of ${[...schemes].join(" ")} in ${urls.join(" ")}`);
  return found;
}
