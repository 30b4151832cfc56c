// Ratings to be sent to the server. Unsaved ratings are kept in the browser's storage and sent again until the
// server has acknowledged them.

import { Away } from "./calls.js";

const PAUSES_MS = [1000, 2000, 4000, 8000];

export const subjectOf = (rating) => [rating.kind, rating.item, rating.candidate, rating.name].join(" ");

export class Outbox extends EventTarget {
  #api;
  #key;
  #waiting = []; // oldest first
  #inFlight = null;
  #failures = 0;
  #timer = null;
  #problem = "";

  constructor(api, key) {
    super();
    this.#api = api;
    this.#key = `reader-study ${key}`;
    this.#waiting = this.#stored();
    window.addEventListener("online", () => this.#send());
    window.addEventListener("beforeunload", (event) => {
      if (this.#waiting.length) event.preventDefault();
    });
    this.#send();
  }

  // "saved", "saving", "away" or "refused"
  get state() {
    if (this.#problem) return "refused";
    if (!this.#waiting.length) return "saved";
    return this.#failures ? "away" : "saving";
  }

  get count() {
    return this.#waiting.length;
  }

  get problem() {
    return this.#problem;
  }

  add(rating) {
    const subject = subjectOf(rating);
    const old = this.#waiting.findIndex((each) => each !== this.#inFlight && subjectOf(each) === subject);
    if (old >= 0) rating.seconds += this.#waiting.splice(old, 1)[0].seconds;
    this.#waiting.push(rating);
    this.#store();
    this.#send();
  }

  // The unsaved ratings of an item, oldest first.
  of(itemId) {
    return this.#waiting.filter((rating) => rating.item === itemId);
  }

  async #send() {
    clearTimeout(this.#timer);
    if (this.#inFlight) return;
    while (this.#waiting.length) {
      this.#inFlight = this.#waiting[0];
      this.#tell();
      const error = await this.#api.rate(this.#inFlight).then(() => null, (reason) => reason);
      const sent = this.#inFlight;
      this.#inFlight = null;
      // 401: another study is served here for now
      if (error instanceof Away || error?.status === 401) return this.#pause();
      this.#failures = 0;
      if (error) this.#problem = error.message;
      this.#waiting = this.#waiting.filter((each) => each !== sent);
      this.#store();
    }
    this.#tell();
  }

  #pause() {
    const pause = PAUSES_MS[Math.min(this.#failures, PAUSES_MS.length - 1)];
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#send(), pause);
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }

  #stored() {
    try {
      return JSON.parse(localStorage.getItem(this.#key)) ?? [];
    } catch {
      return []; // no storage, or foreign content
    }
  }

  #store() {
    try {
      if (this.#waiting.length) localStorage.setItem(this.#key, JSON.stringify(this.#waiting));
      else localStorage.removeItem(this.#key);
    } catch {
      // Without storage the page holds the ratings, and warns before it is closed.
    }
  }
}

// The time for which the page was visible since the last call.
export class Clock {
  #since = performance.now();
  #seconds = 0;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#count(!document.hidden));
  }

  restart() {
    this.#seconds = 0;
    this.#since = performance.now();
  }

  take() {
    this.#count(document.hidden);
    const seconds = Math.min(this.#seconds, 86_400);
    this.#seconds = 0;
    return Math.round(seconds * 10) / 10;
  }

  #count(wasHidden) {
    const now = performance.now();
    if (!wasHidden) this.#seconds += (now - this.#since) / 1000;
    this.#since = now;
  }
}
