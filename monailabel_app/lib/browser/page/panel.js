// The panel: the list of studies, the pictures of one, and the conversation about it.

import { Calls } from "./calls.js";
import { Conversation } from "./conversation.js";
import { h, plural, takesText } from "./dom.js";
import { Viewer } from "./viewer.js";

const query = new URLSearchParams(location.search);
// OHIF shows the pictures itself, and names the study.
const embedded = query.has("embedded");
const REASON = "radfound.reason";
const MOST_ROWS = 200; // thousands of rows keep a browser busy for seconds at each step

class Panel {
  constructor(screen) {
    this.calls = new Calls();
    this.list = h("ul", { "aria-label": "Studies" });
    this.find = h("input", { type: "search", "aria-label": "Find a study", placeholder: "Find a study", hidden: true });
    this.find.addEventListener("input", () => this.#drawList());
    this.more = h("p", { class: "kicker more", role: "status" });
    this.pictures = h("section", { class: "pictures", "aria-label": "Pictures" });
    this.questions = h("section", { class: "questions", "aria-label": "Questions" });
    this.nextButton = h("button", { type: "button", class: "primary", title: "Next study (N)", onclick: () => this.next() }, "Next study");
    const studies = h("nav", { class: "studies", "aria-label": "Studies" }, h("div", { class: "tasks" }, this.nextButton, this.find), this.list, this.more);
    screen.replaceChildren(h("div", { class: "workplace" }, studies, this.pictures, this.questions));
    document.documentElement.toggleAttribute("data-embedded", embedded);
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  async start() {
    const [health, found] = await Promise.all([
      this.calls.get("health"), embedded ? { studies: [] } : this.calls.get("studies"),
    ]);
    const { name, adapter } = health.model;
    document.getElementById("server").textContent = `${name}${adapter ? ` with ${adapter}` : ""}`;
    this.write = health.pacs?.write;
    this.studies = found.studies;
    this.#drawList();
    const named = query.get("image");
    if (named) await this.open(named, takeReason(named));
    else if (this.studies.length) await this.open(this.studies[0].id);
    else this.questions.replaceChildren(h("p", { class: "alone" }, "This server holds no studies yet."));
  }

  // Open a study; `reason`: why it was chosen.
  async open(image, reason = "", choice = {}) {
    this.conversation?.dispose();
    this.opening?.abort();
    this.opening = new AbortController();
    const { signal } = this.opening;
    this.image = image;
    this.#drawList();
    this.conversation = new Conversation(this.calls, image, choice, reason, {
      changed: () => this.#refreshList(),
      next: () => this.next(),
      buttons: embedded ? [this.nextButton] : [],
      write: this.write,
      show: embedded ? null : (overlays) => this.viewer?.setOverlays(overlays),
    });
    this.questions.replaceChildren(this.conversation.element);
    if (embedded) return;
    this.viewer?.dispose();
    this.viewer = null;
    this.pictures.replaceChildren(h("p", { class: "alone" }, "Loading the pictures …"));
    const about = new URLSearchParams({ image, ...choice });
    try {
      const { pictures } = await this.calls.get(`pictures?${about}`, signal);
      this.viewer = new Viewer(this.calls, pictures, (index) => `pictures/${index}?${about}`);
      this.pictures.replaceChildren(this.viewer.element);
    } catch (error) {
      if (!signal.aborted) this.#refuse(error, image, reason);
    }
  }

  async next() {
    this.nextButton.disabled = true;
    try {
      const found = await this.calls.post("../activelearning/hybrid", { client_id: clientId() });
      const isElsewhere = embedded && parent !== window && found?.id !== this.image;
      if (found?.id && isElsewhere) this.#openInViewer(found.id, found.reason ?? "");
      else if (found?.id) await this.open(found.id, found.reason ?? "");
      else this.conversation?.say("Every study has been read.");
    } catch (error) {
      this.conversation?.say(error.message);
    }
    this.nextButton.disabled = false;
  }

  // The viewer opens the study, and this page anew with it.
  #openInViewer(study, reason) {
    if (!/^[\d.]+$/.test(study)) {
      this.conversation?.say(`The next study, ${study}, was uploaded and is not in the archive; open it at /radfound/panel.`);
      return;
    }
    sessionStorage.setItem(REASON, JSON.stringify({ study, reason }));
    parent.postMessage({ radfoundStudy: study }, location.origin);
  }

  // Show why a study cannot be shown; where it has several series, offer them.
  #refuse(error, image, reason) {
    const offered = (error.detail?.choices ?? []).map(({ is, ...choice }) =>
      h("button", { type: "button", onclick: () => this.open(image, reason, choice) }, is || Object.values(choice)[0]));
    this.pictures.replaceChildren(h("div", { class: "alone" }, h("p", {}, error.message), h("div", { class: "tasks" }, offered)));
  }

  async #refreshList() {
    if (embedded) return;
    const found = await this.calls.get("studies").catch(() => null);
    if (found) this.studies = found.studies;
    this.#drawList();
  }

  // Draw the studies whose names hold the words that are looked for, the open one always among them.
  #drawList() {
    const all = this.studies ?? [];
    this.find.hidden = all.length <= MOST_ROWS;
    const words = this.find.value.toLowerCase().split(/\s+/);
    const found = all.filter(({ name }) => words.every((word) => name.toLowerCase().includes(word)));
    const drawn = found.slice(0, MOST_ROWS);
    const open = all.find(({ id }) => id === this.image);
    if (open && !drawn.includes(open)) drawn.unshift(open);
    const hidden = Math.max(0, found.length - MOST_ROWS);
    const none = all.length && !found.length ? "No study has such a name." : "";
    this.more.textContent = hidden ? `${hidden} more; find them by name` : none;
    const rows = drawn.map((study) =>
      h("li", {}, h("button", { type: "button", "aria-current": String(study.id === this.image), onclick: () => this.open(study.id) },
        study.name, h("small", {}, study.state + (study.drafts ? `, ${plural(study.drafts, "draft")}` : "")))));
    this.list.replaceChildren(...rows);
    this.list.querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
  }

  #key(event) {
    if (takesText(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const isOurs = event.key.toLowerCase() === "n";
    if (isOurs) this.next();
    else if (!this.conversation?.key(event) && !this.viewer?.key(event)) return;
    event.preventDefault();
  }
}

// The reason for which this study was chosen before the page was opened anew.
function takeReason(study) {
  const kept = JSON.parse(sessionStorage.getItem(REASON) ?? "null");
  sessionStorage.removeItem(REASON);
  return kept?.study === study ? kept.reason : "";
}

// One id for each browser, so that two readers are not given the same study.
function clientId() {
  const known = localStorage.getItem("radfound.client");
  if (known) return known;
  const made = crypto.randomUUID?.() ?? String(Math.random()).slice(2);
  localStorage.setItem("radfound.client", made);
  return made;
}

const screen = document.getElementById("screen");
new Panel(screen).start().catch((error) => {
  screen.replaceChildren(h("p", { class: "alone", role: "alert" }, error.message));
});
