// The questions about one study, their streamed answers, and the reader's corrections.

import { send, sendable } from "./archive.js";
import { Refused } from "./calls.js";
import { h } from "./dom.js";
import { events } from "./events.js";

const PATIENCE_MS = 600_000;
const TURNS_AS_CONTEXT = 8;
const UNSURE_BELOW = 0.5;
const CANNOT_TELL = "Cannot tell from this picture with this model."; // tests compare it with the server's
const IN_THE_FILE = "stated in the file";
const TITLES = { caption: "Caption", report: "Report" };
const VERDICTS = { accepted: "Accepted", edited: "Corrected", rejected: "Rejected" };

export class Conversation {
  // `choice`: series or volume of the image; `tell.changed` is called after a correction,
  // `tell.next` opens the next study, `tell.show` lays maps over the pictures, null inside a viewer.
  // `tell.write`: which reports may be sent to the archive; undefined without an archive.
  constructor(calls, image, choice, reason, tell) {
    Object.assign(this, { calls, image, choice, tell });
    this.turns = [];
    this.closing = new AbortController();
    this.log = h("div", { class: "turns", "aria-live": "polite" });
    if (reason) this.log.append(h("p", { class: "reason" }, `Why this study: ${reason}`));
    this.message = h("p", { class: "reason", role: "status" });
    this.question = h("input", { type: "text", "aria-label": "Question", placeholder: "Ask about this study", maxlength: 4000, autocomplete: "off" });
    this.author = h("input", { type: "text", "aria-label": "Your name", maxlength: 200, value: localStorage.getItem("radfound.author") ?? "" });
    this.author.addEventListener("change", () => localStorage.setItem("radfound.author", this.author.value));
    const task = (name, text, key) =>
      h("button", { type: "button", title: `${text} (${key})`, onclick: () => this.ask(name) }, text);
    const form = h("form", {}, this.question, h("button", { class: "primary" }, "Ask"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.question.value.trim();
      if (text) this.ask("vqa", text);
      this.question.value = "";
    });
    this.element = h("div", { class: "conversation" }, this.log, h("div", { class: "ask" },
      h("div", { class: "tasks" }, task("caption", "Caption", "C"), task("report", "Report", "R"), tell.buttons),
      form, h("label", { class: "author" }, "Your name", this.author), this.message));
    this.#showEarlier();
    if (tell.write) this.#showDrafts();
  }

  dispose() {
    this.closing.abort();
  }

  say(text) {
    this.message.textContent = text;
  }

  // Handle a key; false if it has no function here.
  key(event) {
    const last = this.turns.at(-1);
    const action = {
      c: () => this.ask("caption"),
      r: () => this.ask("report"),
      a: last?.answer && !last.verdict && !last.isSilent && (() => this.correct(last, "accepted")),
      e: last?.answer && !last.verdict && (() => last.edit()),
    }[event.key.toLowerCase()];
    action?.();
    return Boolean(action);
  }

  async ask(task, question = null) {
    const turn = new Turn(this, task, question);
    const history = this.turns
      .filter((each) => each.answer && each.question && !each.isSilent && each.verdict !== "rejected")
      .slice(-TURNS_AS_CONTEXT)
      .map((each) => ({ question: each.question, answer: each.finalText }));
    this.turns.push(turn);
    this.log.append(turn.element);
    turn.element.scrollIntoView({ block: "end" });
    const body = { task, image: this.image, ...this.choice, ...(question && { question }), ...(question && history.length && { history }) };
    turn.history = body.history ?? [];
    const signal = AbortSignal.any([this.closing.signal, turn.stopping.signal]);
    try {
      const response = await this.calls.call("ask", { method: "POST", body: JSON.stringify(body), patience: PATIENCE_MS, signal });
      for await (const { name, data } of events(response.body)) {
        if (name === "token") turn.add(data.text);
        else if (name === "answer") turn.finish(data);
        else if (name === "error") throw new Refused(data.message, 0);
      }
      if (!turn.answer) turn.fail("The connection broke off; ask again.");
    } catch (error) {
      turn.fail(turn.stopping.signal.aborted ? "Stopped." : error.message);
    }
  }

  // Record the reader's verdict; the same id is sent again if the first attempt is not answered.
  async correct(turn, verdict, text = "") {
    const author = this.author.value.trim();
    if (!author) {
      this.say("Enter your name first: a correction is kept with who made it.");
      this.author.focus();
      return;
    }
    const { answer } = turn;
    turn.correctionId ??= crypto.randomUUID?.() ?? `web-${Date.now()}-${String(Math.random()).slice(2)}`;
    // What a reader edits or rejects may stand in place of the model's text; both are on record.
    const own = verdict === "accepted" ? answer.text : answer.model_text || answer.text;
    const correction = {
      schema: "radfound.correction/1", id: turn.correctionId, answer_id: answer.id, images: answer.images, task: answer.task,
      question: answer.question, model_text: own, verdict, text, author, model: answer.model,
    };
    try {
      await this.calls.post("corrections", correction);
    } catch (error) {
      this.say(error.message);
      return;
    }
    this.say("");
    turn.judge(verdict, text);
    this.tell.changed();
  }

  // Put the draft, or the reader's report, into the server's outbox for the archive.
  async send(turn, button) {
    button.disabled = true;
    const source = turn.verdict ? { correction_id: turn.correctionId } : { answer_id: turn.answer.id };
    try {
      await send(this.calls, source, (state) => { button.textContent = state; });
      this.say("");
    } catch (error) {
      button.disabled = false;
      this.say(error.message);
    }
  }

  // Lay the evidence of an answer over the pictures, or take it away.
  async showEvidence(turn) {
    const isShown = this.evidenceOf === turn;
    this.evidenceOf = isShown ? null : turn;
    for (const each of this.turns) each.evidenceButton?.setAttribute("aria-pressed", each === this.evidenceOf);
    if (isShown) {
      this.tell.show(null);
      return;
    }
    try {
      const body = { answer: turn.answer, history: turn.history, ...this.choice };
      const { id, maps } = await this.calls.post("evidence", body, { patience: PATIENCE_MS, signal: this.closing.signal });
      if (this.evidenceOf !== turn) return;
      this.tell.show(maps.map((map, index) => ({ ...map, path: `evidence/${index}?answer=${id}` })));
      this.say(turn.answer.evidence_note ?? "");
    } catch (error) {
      this.evidenceOf = null;
      turn.evidenceButton.setAttribute("aria-pressed", false);
      this.say(error.message);
    }
  }

  // Show the drafts that the server made when the study arrived, to be accepted, edited or rejected.
  async #showDrafts() {
    const about = new URLSearchParams({ study: this.image });
    const found = await this.calls.get(`pacs/drafts?${about}`, this.closing.signal).catch(() => null);
    for (const { answer, created, is_read } of found?.drafts.toReversed() ?? []) {
      if (!answer || is_read) continue;
      const turn = new Turn(this, answer.task, answer.question);
      turn.history = [];
      this.turns.push(turn);
      this.log.append(turn.element);
      turn.finish(answer);
      turn.note.prepend(`Draft of ${created.slice(0, 10)} · `);
    }
  }

  async #showEarlier() {
    const about = new URLSearchParams({ image: this.image, latest: true });
    const found = await this.calls.get(`corrections?${about}`, this.closing.signal).catch(() => null);
    if (!found?.corrections.length) return;
    const rows = found.corrections.map((each) =>
      h("div", { class: "turn" },
        h("h3", {}, each.question ?? TITLES[each.task]),
        h("p", { class: "corrected" }, each.verdict === "rejected" ? `Rejected: ${each.model_text}` : each.text),
        h("p", { class: "kicker" }, `${VERDICTS[each.verdict]} by ${each.author} on ${each.created.slice(0, 10)}`)));
    this.log.prepend(h("details", {}, h("summary", { class: "reason" }, `Earlier corrections (${rows.length})`), rows));
  }
}

class Turn {
  constructor(conversation, task, question) {
    Object.assign(this, { conversation, task, question });
    this.stopping = new AbortController();
    this.text = h("p", { class: "answer" });
    this.note = h("p", { class: "kicker" }, "…");
    this.buttons = h("div", { class: "tasks" },
      h("button", { type: "button", class: "small", onclick: () => this.stopping.abort() }, "Stop"));
    this.folded = h("div", {});
    this.element = h("article", { class: "turn" }, h("h3", {}, question ?? TITLES[task]), this.text, this.note, this.folded, this.buttons);
  }

  // Whether neither the server nor a reader has answered.
  get isSilent() {
    return !this.verdict && isSilent(this.answer);
  }

  get finalText() {
    return this.verdict === "edited" ? this.corrected : this.answer.text;
  }

  add(text) {
    this.text.textContent += text;
    this.element.scrollIntoView({ block: "nearest" });
  }

  finish(answer) {
    this.answer = answer;
    this.text.textContent = answer.sections
      ? Object.entries(answer.sections).map(([name, text]) => `${name[0].toUpperCase()}${name.slice(1)}: ${text}`).join("\n\n")
      : answer.text;
    this.note.textContent = noteOf(answer);
    this.note.classList.toggle("unsure", isUnsure(answer));
    this.folded.replaceChildren(...foldedOf(answer));
    this.buttons.replaceChildren(...(this.isSilent ? [this.#button("Write the answer", "Write the answer (E)", () => this.edit())] : this.#judging()));
    this.element.scrollIntoView({ block: "nearest" });
  }

  #button(text, title, action) {
    return h("button", { type: "button", class: "small", title, onclick: action }, text);
  }

  #judging() {
    const buttons = [
      this.#button("Accept", "Accept (A)", () => this.conversation.correct(this, "accepted")),
      this.#button("Edit", "Edit (E)", () => this.edit()),
      this.#button("Reject", "Reject", () => this.conversation.correct(this, "rejected")),
      ...this.#sendButton("Send draft", "Store in the archive, marked as not verified"),
    ];
    if (!this.conversation.tell.show) return buttons;
    this.evidenceButton = this.#button("Evidence", "Where the answer comes from", () => this.conversation.showEvidence(this));
    this.evidenceButton.setAttribute("aria-pressed", this.conversation.evidenceOf === this);
    return [...buttons, this.evidenceButton];
  }

  edit() {
    const given = this.isSilent ? "" : this.answer.text;
    const field = h("textarea", { rows: Math.min(12, 2 + Math.ceil(given.length / 50)), "aria-label": "Your text", placeholder: "Your answer", maxlength: 20000 });
    field.value = given;
    const save = () => this.conversation.correct(this, field.value.trim() === this.answer.text.trim() ? "accepted" : "edited", field.value.trim());
    this.buttons.replaceChildren(field,
      h("button", { type: "button", class: "small primary", onclick: save }, "Save"),
      h("button", { type: "button", class: "small", onclick: () => this.finish(this.answer) }, "Cancel"));
    field.focus();
  }

  judge(verdict, text) {
    Object.assign(this, { verdict, corrected: text });
    this.text.classList.toggle("struck", verdict !== "accepted");
    this.buttons.replaceChildren(
      ...(verdict === "edited" ? [h("p", { class: "corrected" }, text)] : []),
      h("span", { class: "kicker" }, VERDICTS[verdict]),
      ...this.#sendButton("Send to archive", "Store as a verified report under your name"),
      ...(this.conversation.tell.next ? [h("button", { type: "button", class: "small primary", onclick: this.conversation.tell.next }, "Next study")] : []),
    );
  }

  #sendButton(text, title) {
    if (!sendable(this.conversation.tell.write, this.answer, this.verdict)) return [];
    const button = h("button", { type: "button", class: "small", title, onclick: () => this.conversation.send(this, button) }, text);
    return [button];
  }

  fail(message) {
    this.note.replaceChildren(h("span", { class: "problem" }, message));
    const again = () => this.conversation.ask(this.task, this.question);
    this.buttons.replaceChildren(h("button", { type: "button", class: "small", onclick: again }, "Ask again"));
  }
}

const isSilent = (answer) => answer?.source !== "recall" && answer?.text === CANNOT_TELL;

// Whether a reader or the file's header says so: there is no confidence, and no doubt.
const isStated = ({ source, reason }) => source === "recall" || (source === "field" && reason === IN_THE_FILE);

const isUnsure = (answer) => !isStated(answer) && (answer.confidence === null || answer.confidence < UNSURE_BELOW);

// One line about an answer: how sure it is, where it comes from, and which model gave it.
function noteOf(answer) {
  const { confidence, finished, model, reason, shown, source } = answer;
  const unknown = isStated(answer) || isSilent(answer) ? "" : "confidence unknown";
  const percent = Math.min(99, Math.round(100 * confidence)); // no calibration measures certainty
  return [
    confidence === null ? unknown : `confidence ${percent} %`,
    confidence !== null && isUnsure(answer) ? "the model is not sure" : "",
    source === "field" && !isStated(answer) && !isSilent(answer) ? "by a classifier of the picture" : "",
    reason ?? "",
    shown?.note ? `shown to the model: ${shown.note}` : "",
    finished ? "" : "cut off at the limit of its length",
    source === "recall" ? "" : model.adapter ? `${model.name} with ${model.adapter}` : model.name,
  ].filter(Boolean).join(" · ");
}

// What a reader can unfold: the model's own text, and other readers' texts.
function foldedOf(answer) {
  const { model_text: own, contradictions = [] } = answer;
  const title = isSilent(answer) ? "The model's guess" : "The model's own text";
  const others = contradictions.map(({ author, created, text }) =>
    h("p", { class: "kicker" }, `${author} on ${created.slice(0, 10)}: ${text}`));
  const guess = own && h("details", {}, h("summary", { class: "kicker" }, title), h("p", { class: "answer" }, own));
  return [...others, ...(guess ? [guess] : [])];
}
