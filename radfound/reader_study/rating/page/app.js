// The flow of a study: instructions, the cases, the end.

import { Api } from "./api.js";
import { Away, Refused } from "./calls.js";
import { h, takesText } from "./dom.js";
import { Form, missingText } from "./form.js";
import { Clock, Outbox } from "./outbox.js";
import { alone, finished, instructions, keys } from "./screens.js";
import { Viewer } from "./viewer.js";

const PAUSE_MS = 2000;
const SINGLE_KEYS = "reader-study single keys";

class App {
  constructor(token) {
    this.api = new Api(token);
    this.bar = document.getElementById("bar");
    this.screen = document.getElementById("screen");
    this.clock = new Clock();
  }

  async start() {
    this.study = await this.#patiently(() => this.api.study());
    document.title = this.study.title;
    this.outbox = new Outbox(this.api, this.study.items[0].id); // an id unique to this reader and study
    this.outbox.addEventListener("change", () => this.#showSaving());
    this.#buildBar();
    document.addEventListener("keydown", (event) => this.#key(event));
    if (this.study.started) this.goOn();
    else this.showInstructions();
  }

  // Screens ------------------------------------------------------------------------------------

  // Show the first unfinished case from a given one on, or the end.
  goOn(from = 0) {
    const { items } = this.study;
    const open = (item) => !item.complete;
    const later = items.findIndex((item, index) => index >= from && open(item));
    const index = later >= 0 ? later : items.findIndex(open);
    if (index >= 0) return this.showCase(index);
    this.#show("finished", finished(this.study, this.saved, () => this.showCase(0), (value) => this.#agree(value)));
  }

  showInstructions() {
    const back = this.index ?? null;
    const start = () => (back === null ? this.goOn() : this.showCase(back));
    this.#show("instructions", instructions(this.study, start, (value) => this.#agree(value)));
  }

  async showCase(index) {
    const { id } = this.study.items[index];
    this.#show("case", alone("Loading the images …"), index);
    const item = await this.#patiently(() => this.api.item(id), () => this.index !== index);
    if (this.index !== index) return; // another case was chosen meanwhile
    const said = [...item.ratings, ...this.outbox.of(id)];
    this.form = new Form(this.study, item, said, (rating) => this.#rate(rating), () => this.#reflect());
    this.form.ondone = () => this.next.focus();
    this.viewer = new Viewer(this.api, item.images, (index) => `/items/${item.id}/images/${index}`);
    this.form.element.append(this.#footer(index));
    const heading = h("h1", { class: "sr" }, `Case ${index + 1} of ${this.study.items.length}`);
    this.screen.replaceChildren(heading, this.viewer.element, this.form.element);
    this.clock.restart();
    this.#reflect();
    this.form.goTo(this.form.missing()[0] ?? this.form.rows[0]);
    // Let the server load the next case in advance.
    if (index + 1 < this.study.items.length) this.api.item(this.study.items[index + 1].id).catch(() => {});
  }

  #show(name, content, index = null) {
    this.form?.flush();
    this.viewer?.dispose();
    Object.assign(this, { form: null, viewer: null, index });
    document.body.dataset.screen = name;
    this.screen.replaceChildren(content);
    this.screen.scrollTop = 0;
    this.screen.focus({ preventScroll: true });
    this.#reflect();
  }

  // Retry until the server replies; a rejection ends the loop.
  async #patiently(ask, isGivenUp = () => false) {
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        if (!(error instanceof Away)) throw error;
        if (isGivenUp()) return null;
        const others = this.study && this.index !== null ? this.#otherCases() : null;
        this.screen.replaceChildren(alone(`Not loaded: ${error.message}. Trying again …`, others));
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        if (isGivenUp()) return null;
      }
    }
  }

  #otherCases() {
    const { index } = this;
    const later = () => this.showCase((index + 1) % this.study.items.length);
    return h("p", {}, h("button", { type: "button", class: "quiet", onclick: later }, "Leave this case for later"));
  }

  // Ratings ------------------------------------------------------------------------------------

  #rate(rating) {
    this.study.started = true;
    this.outbox.add({ ...rating, seconds: this.clock.take() });
  }

  #agree(value) {
    this.study.agreed = value === "yes";
    this.outbox.add({ kind: "agreement", item: "", candidate: "", name: "", value, seconds: 0 });
  }

  // The bar and the footer ---------------------------------------------------------------------

  #buildBar() {
    this.progress = h("progress", { max: this.study.items.length, "aria-label": "Finished cases" });
    this.place = h("span", { class: "place" });
    this.saved = h("p"); // on the last page
    this.saving = h("span", { class: "saving", role: "status" });
    const button = (text, action) => h("button", { type: "button", class: "quiet small", onclick: action }, text);
    this.bar.append(
      h("strong", { class: "title" }, this.study.title),
      h("span", { class: "way" }, this.place, this.progress),
      this.saving,
      button("Instructions", () => this.showInstructions()),
      button("Keys", () => this.#showKeys()),
    );
    this.bar.hidden = false;
    this.dialog = this.#keysDialog();
    document.body.append(this.dialog);
    this.#showSaving();
  }

  #footer(index) {
    const button = (text, kind, action) => h("button", { type: "button", class: kind, onclick: action }, text);
    const last = index + 1 === this.study.items.length;
    this.todo = button("", "todo", () => this.form.goTo(this.form.missing()[0] ?? this.form.rows[0]));
    this.next = button(last ? "Finish" : "Next case", "primary", () => this.#nextCase());
    this.later = button("Leave for later", "quiet", () => this.goOn(index + 1));
    const back = button("Previous", "quiet", () => this.#previousCase());
    back.disabled = index === 0;
    return h("nav", { class: "footer", "aria-label": "Cases" }, back, this.todo, this.later, this.next);
  }

  #nextCase() {
    const [missing] = this.form.missing();
    if (missing) this.form.goTo(missing);
    else if (this.index + 1 < this.study.items.length) this.showCase(this.index + 1);
    else this.goOn();
  }

  #previousCase() {
    if (this.index > 0) this.showCase(this.index - 1);
  }

  #reflect() {
    if (this.form) {
      const count = this.form.missing().length;
      this.study.items[this.index].complete = count === 0;
      this.todo.textContent = missingText(count);
      this.todo.classList.toggle("all", count === 0);
      this.later.hidden = count === 0 || this.study.items.filter((item) => !item.complete).length < 2;
      this.next.classList.toggle("ready", count === 0);
    }
    const done = this.study.items.filter((item) => item.complete).length;
    this.progress.value = done;
    this.place.textContent = this.index === null ? `${done} of ${this.study.items.length} cases done` : `Case ${this.index + 1} of ${this.study.items.length}`;
  }

  #showSaving() {
    const { state, count, problem } = this.outbox;
    const texts = {
      saved: "Saved",
      saving: "Saving …",
      away: `Not saved yet (${count}): no connection, trying again`,
      refused: `Not saved: ${problem}`,
    };
    this.saving.dataset.state = state;
    if (this.saving.textContent !== texts[state]) this.saving.textContent = texts[state];
    this.saved.textContent = state === "saved"
      ? "Every rating is saved. You can close this page."
      : "Some ratings are not saved yet. Please leave this page open.";
  }

  // Keys ---------------------------------------------------------------------------------------

  get hasSingleKeys() {
    return localStorage.getItem(SINGLE_KEYS) !== "off";
  }

  #keysDialog() {
    const use = h("input", { type: "checkbox", onchange: () => localStorage.setItem(SINGLE_KEYS, use.checked ? "on" : "off") });
    use.checked = this.hasSingleKeys;
    const dialog = h(
      "dialog",
      { "aria-label": "Keys" },
      h("h2", {}, "Keys"),
      keys(),
      h("form", { method: "dialog", class: "begin" }, h("label", { class: "choice" }, use, "Use these keys"), h("button", { class: "primary" }, "Close")),
    );
    return dialog;
  }

  #showKeys() {
    this.dialog.showModal();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.dialog.open) return;
    if (event.key === "Escape" && takesText(event.target)) {
      event.target.blur();
      this.form?.goTo(this.form.current);
      return;
    }
    if (takesText(event.target)) return;
    if (event.key === "?") return this.#showKeys();
    if (!this.form || !this.hasSingleKeys) return;
    const ways = { n: () => this.#nextCase(), b: () => this.#previousCase() };
    const way = ways[event.key.toLowerCase()];
    if (way) way();
    else if (!this.form.key(event) && !this.viewer.key(event)) return;
    event.preventDefault();
  }
}

async function open() {
  const screen = document.getElementById("screen");
  window.addEventListener("hashchange", () => location.reload());
  const token = location.hash.slice(1);
  try {
    if (!token) throw new Refused("Open the whole link that you received; it ends with a long code.", 401);
    await new App(token).start();
  } catch (error) {
    screen.replaceChildren(alone(error.message));
    if (!(error instanceof Refused)) throw error;
  }
}

open();
