// The texts of an item with their scales, preferences and comments.

import { h, paragraphs } from "./dom.js";
import { subjectOf } from "./outbox.js";

const COMMENT_PAUSE_MS = 800;
const MARGIN = 16; // pixels
const letterOf = (index) => String.fromCharCode(65 + index);

export class Form {
  // `said`: the item's ratings; `onrate` receives each new one; `onchange` is called afterwards.
  constructor(study, item, said, onrate, onchange) {
    Object.assign(this, { study, item, onrate, onchange });
    this.values = new Map(said.map((rating) => [subjectOf({ ...rating, item: item.id }), rating.value]));
    this.rows = [];
    this.comments = [];
    this.guide = h("aside", { class: "guide", "aria-label": "What the points mean" });
    const cards = item.candidates.map((candidate, index) => this.#card(candidate, letterOf(index)));
    if (item.pairs.length) cards.push(this.#preferences());
    this.scroll = h("div", { class: "cards" }, this.#task(), cards);
    this.element = h("section", { class: "form", "aria-label": "Texts to rate" }, this.scroll, this.guide);
    this.#makeCurrent(this.missing()[0] ?? this.rows[0]);
  }

  // The rows without an answer.
  missing() {
    return this.rows.filter((row) => !row.value);
  }

  // Scroll a row into view, with its text if both fit, and focus it.
  goTo(row) {
    const { card, element } = row;
    if (card === this.rows[0].card && card.offsetHeight + card.offsetTop < this.scroll.clientHeight) this.scroll.scrollTop = 0;
    else if (card !== this.current.card) this.scroll.scrollTop = card.offsetTop - MARGIN;
    this.#reveal(element);
    (row.inputs.find((input) => input.checked) ?? row.inputs[0]).focus({ preventScroll: true });
    this.#makeCurrent(row);
  }

  // Handle a key; false if the key has no function here.
  key(event) {
    const index = this.rows.indexOf(this.current);
    const point = Number(event.key);
    if (point >= 1 && point <= this.current.inputs.length) {
      this.#answer(this.current, this.current.inputs[point - 1].value);
      this.#goOn(index);
      return true;
    }
    const step = { j: 1, k: -1 }[event.key.toLowerCase()];
    if (step) {
      const row = this.rows[index + step];
      if (row) this.goTo(row);
      return true;
    }
    if (event.key.toLowerCase() === "c" && this.comments.length) {
      this.comments[this.current.candidateIndex ?? this.comments.length - 1].focus();
      return true;
    }
    return false;
  }

  // Send unfinished comments.
  flush() {
    for (const comment of this.comments) comment.dispatchEvent(new Event("change"));
  }

  // Scroll as little as possible. If only the texts scroll, the images must stay.
  #reveal(element) {
    const { scroll } = this;
    if (scroll.scrollHeight <= scroll.clientHeight) return element.scrollIntoView({ block: "nearest" });
    const top = element.offsetTop - MARGIN;
    const bottom = element.offsetTop + element.offsetHeight + MARGIN - scroll.clientHeight;
    scroll.scrollTop = Math.min(Math.max(scroll.scrollTop, bottom), top);
  }

  #goOn(index) {
    const next = this.rows.slice(index + 1).find((row) => !row.value) ?? this.missing()[0];
    if (next) this.goTo(next);
    else this.ondone?.();
  }

  #answer(row, value) {
    row.inputs.find((input) => input.value === value).checked = true;
    row.value = value;
    row.element.classList.add("answered");
    this.onrate({ ...row.rating, value });
    this.#makeCurrent(row);
    this.#count();
    this.onchange();
  }

  // Elements -----------------------------------------------------------------------------------

  #task() {
    const { question, context } = this.item;
    if (!question && !context) return null;
    return h(
      "div",
      { class: "task" },
      question && h("p", { class: "question" }, h("span", { class: "kicker" }, "Question"), question),
      context && h("p", {}, h("span", { class: "kicker" }, "About the study"), context),
    );
  }

  #card(candidate, letter) {
    const count = h("span", { class: "count" });
    const text = candidate.text ? paragraphs(candidate.text) : h("p", { class: "empty" }, "(no text)");
    const card = h(
      "article",
      { class: "card", "aria-label": `Text ${letter}` },
      h("header", {}, h("h2", {}, h("span", { class: "sr" }, "Text "), letter), count),
      h("div", { class: "text" }, text),
    );
    const rows = this.study.criteria.map((criterion) =>
      this.#row(card, {
        rating: { kind: "score", item: this.item.id, candidate: candidate.id, name: criterion.key },
        title: criterion.name,
        of: `Text ${letter}: `,
        description: criterion.description,
        points: criterion.anchors.map((meaning, index) => ({ value: String(index + 1), text: String(index + 1), meaning })),
        candidateIndex: letter.charCodeAt(0) - 65,
      }));
    card.append(...rows.map((row) => row.element));
    if (this.study.comment) card.append(this.#comment(candidate, letter));
    Object.assign(card, { rows, count });
    this.#countCard(card);
    return card;
  }

  #preferences() {
    const count = h("span", { class: "count" });
    const card = h("article", { class: "card", "aria-label": "Which text is better?" }, h("header", {}, h("h2", { class: "wide" }, "Which text is better?"), count));
    const letters = new Map(this.item.candidates.map((each, index) => [each.id, letterOf(index)]));
    const rows = this.item.pairs.map(([one, other]) => {
      const [first, second] = [letters.get(one), letters.get(other)];
      return this.#row(card, {
        rating: { kind: "preference", item: this.item.id, candidate: one, name: other },
        title: `${first} or ${second}`,
        of: "",
        description: "Which of the two would you rather have written about this study?",
        points: [
          { value: "first", text: first, meaning: `Text ${first} is better` },
          { value: "tie", text: "Equal", meaning: "Neither is better" },
          { value: "second", text: second, meaning: `Text ${second} is better` },
        ],
      });
    });
    card.append(...rows.map((row) => row.element));
    Object.assign(card, { rows, count });
    this.#countCard(card);
    return card;
  }

  #row(card, row) {
    const index = this.rows.length;
    const value = this.values.get(subjectOf(row.rating));
    row.inputs = row.points.map((point) =>
      h("input", { type: "radio", name: `row-${index}`, value: point.value, onchange: () => this.#answer(row, point.value) }));
    const labels = row.points.map((point, at) =>
      h("label", { class: "point" }, row.inputs[at], h("span", {}, point.text), h("span", { class: "sr" }, `: ${point.meaning}`)));
    const legend = h("legend", {}, h("span", { class: "sr" }, row.of), row.title);
    row.element = h("fieldset", { class: `row of-${row.points.length}` }, legend, h("div", { class: "points" }, labels));
    row.element.addEventListener("focusin", () => this.#makeCurrent(row));
    legend.addEventListener("click", () => this.goTo(row));
    if (value) {
      row.inputs.find((input) => input.value === value).checked = true;
      row.element.classList.add("answered");
    }
    Object.assign(row, { card, value });
    this.rows.push(row);
    return row;
  }

  #comment(candidate, letter) {
    const rating = { kind: "comment", item: this.item.id, candidate: candidate.id, name: "" };
    let sent = this.values.get(subjectOf(rating)) ?? "";
    let timer = null;
    const area = h("textarea", { rows: 2, maxlength: this.study.max_comment_chars, placeholder: "Optional. “Instead: …” says what the text should be" });
    area.value = sent;
    const send = () => {
      clearTimeout(timer);
      if (area.value.trim() === sent) return;
      sent = area.value.trim();
      this.onrate({ ...rating, value: sent });
    };
    area.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(send, COMMENT_PAUSE_MS);
    });
    area.addEventListener("change", send);
    this.comments.push(area);
    return h("label", { class: "comment" }, h("span", {}, "Comment", h("span", { class: "sr" }, ` on text ${letter}`)), area);
  }

  // State --------------------------------------------------------------------------------------

  #makeCurrent(row) {
    this.current?.element.classList.remove("current");
    this.current = row;
    row.element.classList.add("current");
    this.guide.replaceChildren(
      h("h3", {}, `${row.of}${row.title}`),
      h("p", {}, row.description),
      h("ol", { class: row.points.length === 5 ? "" : "plain" }, row.points.map((point) =>
        h("li", { class: point.value === row.value ? "chosen" : "" }, point.meaning))),
    );
  }

  #count() {
    for (const card of this.scroll.querySelectorAll(".card")) this.#countCard(card);
  }

  #countCard({ rows, count }) {
    const given = rows.filter((row) => row.value).length;
    count.textContent = given === rows.length ? "all rated" : `${given} of ${rows.length}`;
    count.classList.toggle("all", given === rows.length);
  }
}

export const missingText = (count) => (count ? `${count} to go` : "All rated");
