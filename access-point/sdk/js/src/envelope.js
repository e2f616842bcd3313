/** @file Messages as JSON, where there is no packet around each. */

/**
 * @param {object} envelope its body stands in `payload`, or in `payload_base64` when it is not JSON
 * @returns {import("./inlet.js").Message}
 */
export function opened({ payload_base64, ...message }) {
  if (payload_base64 === undefined) return message;
  return { ...message, payload: Uint8Array.from(atob(payload_base64), (character) => character.charCodeAt(0)) };
}
