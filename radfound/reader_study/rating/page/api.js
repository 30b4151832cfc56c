// Calls of the server, each with the reader's token in its header.

const PATIENCE_MS = 15_000;
const READING_MS = 180_000; // large volumes load slowly

// The server is unreachable or temporarily unable: retry.
export class Away extends Error {}

// The server has rejected the request: do not retry.
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export class Api {
  constructor(token) {
    this.token = token;
  }

  study() {
    return this.#json("/study");
  }

  item(id, signal) {
    return this.#json(`/items/${id}`, { signal });
  }

  rate(rating) {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify(rating);
    return this.#json("/ratings", { method: "POST", headers, body, keepalive: true });
  }

  async levels(path, dtype, signal) {
    const response = await this.#call(path, { signal });
    const buffer = await response.arrayBuffer().catch(() => {
      throw new Away("the connection broke off");
    });
    return dtype === "uint8" ? new Uint8Array(buffer) : new Uint16Array(buffer);
  }

  async #json(path, options = {}) {
    const response = await this.#call(path, options);
    return response.json().catch(() => {
      throw new Away("the connection broke off");
    });
  }

  async #call(path, { signal, headers = {}, ...options }) {
    const limit = AbortSignal.timeout(options.method ? PATIENCE_MS : READING_MS);
    let response;
    try {
      response = await fetch(path, {
        ...options,
        headers: { ...headers, Authorization: `Bearer ${this.token}` },
        signal: signal ? AbortSignal.any([signal, limit]) : limit,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Away("the server does not answer");
    }
    if (response.ok) return response;
    const said = await response.json().catch(() => null);
    const message = said?.detail?.message ?? `the server answered ${response.status}`;
    throw response.status >= 500 ? new Away(message) : new Refused(message, response.status);
  }
}
