// Calls of a server that answers with JSON, and with the levels of slices.

const PATIENCE_MS = 15_000;
const READING_MS = 180_000; // large volumes load slowly

// The server is unreachable or temporarily unable: retry.
export class Away extends Error {}

// The server has rejected the request: do not retry.
export class Refused extends Error {
  constructor(message, status, detail = {}) {
    super(message);
    Object.assign(this, { status, detail });
  }
}

export class Calls {
  // `headers`: sent with every call, such as a token; a log-in cookie is sent by itself.
  constructor(headers = {}) {
    this.headers = headers;
  }

  get(path, signal) {
    return this.#json(path, { signal });
  }

  post(path, value, options = {}) {
    return this.#json(path, { method: "POST", body: JSON.stringify(value), ...options });
  }

  // Levels of a slice, row by row.
  async levels(path, dtype, signal) {
    const response = await this.call(path, { signal });
    const buffer = await response.arrayBuffer().catch(() => {
      throw new Away("the connection broke off");
    });
    return dtype === "uint8" ? new Uint8Array(buffer) : new Uint16Array(buffer);
  }

  async #json(path, options) {
    const response = await this.call(path, options);
    return response.json().catch(() => {
      throw new Away("the connection broke off");
    });
  }

  async call(path, { signal, patience, ...options } = {}) {
    const limit = AbortSignal.timeout(patience ?? (options.method ? PATIENCE_MS : READING_MS));
    const headers = { ...this.headers, ...(options.body && { "Content-Type": "application/json" }) };
    let response;
    try {
      response = await fetch(path, { ...options, headers, signal: signal ? AbortSignal.any([signal, limit]) : limit });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Away("the server does not answer");
    }
    if (response.ok) return response;
    const detail = (await response.json().catch(() => null))?.detail;
    const message = detail?.message ?? `the server answered ${response.status}`;
    throw response.status >= 500 ? new Away(message) : new Refused(message, response.status, detail);
  }
}
