/** @file What a terminal needs; `fanfare/node` has what only Node.js can do besides. */

export { Refused } from "./endpoints.js";
export { NotTaken } from "./outbox.js";
export { Seen } from "./seen.js";
export { Session } from "./session.js";
export { Terminal } from "./terminal.js";
