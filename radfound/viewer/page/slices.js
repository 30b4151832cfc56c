// The slices of one stack: fetched nearest first, cached up to a memory limit.

import { Refused } from "./calls.js";

const MAX_BYTES = 192 << 20; // of one stack
const AT_ONCE = 4;
const PAUSE_MS = 2000;

export class Slices {
  #loaded = new Map(); // position -> levels
  #loading = new Set();
  #wanted = 0;
  #aborting = new AbortController();

  // `path`: address of the slices, with its query; `onchange` is called when a slice has arrived, `onproblem` with a message or "".
  constructor(calls, path, stack, dtype, onchange, onproblem) {
    Object.assign(this, { calls, path, stack, dtype, onchange, onproblem });
    const bytes = stack.rows * stack.columns * (dtype === "uint8" ? 1 : 2);
    this.reach = Math.max(1, Math.floor(MAX_BYTES / bytes / 2)); // slices kept on either side
  }

  // Return the levels at a position if loaded; request them and their neighbours.
  at(position) {
    this.#wanted = position;
    for (const other of this.#loaded.keys()) {
      if (Math.abs(other - position) > this.reach) this.#loaded.delete(other);
    }
    this.#fill();
    return this.#loaded.get(position);
  }

  dispose() {
    this.#aborting.abort();
    this.#loaded.clear();
  }

  #address(position) {
    const [path, query] = this.path.split("?");
    return `${path}/${this.stack.axis}/${position}${query ? `?${query}` : ""}`;
  }

  #fill() {
    for (let step = 0; step <= this.reach && this.#loading.size < AT_ONCE; step += 1) {
      for (const position of [this.#wanted + step, this.#wanted - step]) {
        const exists = position >= 0 && position < this.stack.depth;
        if (exists && !this.#loaded.has(position) && !this.#loading.has(position)) this.#load(position);
      }
    }
  }

  async #load(position) {
    const { signal } = this.#aborting;
    this.#loading.add(position);
    try {
      const levels = await this.calls.levels(this.#address(position), this.dtype, signal);
      this.#loaded.set(position, levels);
      this.onproblem("");
      this.onchange();
    } catch (error) {
      if (signal.aborted) return;
      this.onproblem(error.message);
      if (error instanceof Refused) return; // stays in `loading`, so that it is not requested again
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    this.#loading.delete(position);
    if (!signal.aborted) this.#fill();
  }
}
