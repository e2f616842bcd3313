/** @file What only Node.js can do. */

import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { join } from "node:path";

/** A folder with one file for each key: what `localStorage` is in browsers. A write is on disk when it returns. */
export class FileStorage {
  #folder;

  /** @param {string} folder is made if it is not there */
  constructor(folder) {
    mkdirSync(folder, { recursive: true });
    this.#folder = folder;
  }

  getItem(key) {
    try {
      return readFileSync(this.#path(key), "utf8");
    } catch (error) {
      if (error.code === "ENOENT") return null;
      throw error;
    }
  }

  setItem(key, value) {
    const path = this.#path(key);
    const file = openSync(`${path}.new`, "w");
    try {
      writeSync(file, value);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(`${path}.new`, path);
  }

  #path(key) {
    return join(this.#folder, encodeURIComponent(key));
  }
}
