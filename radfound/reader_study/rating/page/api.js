// Calls of the server, each with the reader's token in its header.

import { Calls } from "./calls.js";

export class Api extends Calls {
  constructor(token) {
    super({ Authorization: `Bearer ${token}` });
  }

  study() {
    return this.get("/study");
  }

  item(id, signal) {
    return this.get(`/items/${id}`, signal);
  }

  rate(rating) {
    return this.post("/ratings", rating, { keepalive: true });
  }
}
