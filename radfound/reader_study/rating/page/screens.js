// The other pages: instructions, the end, and a single message.

import { h, paragraphs, plural } from "./dom.js";

const KEYS = [
  ["Rating", [
    ["1 … 5", "Rate the marked row and go to the next one"],
    ["J  K", "Next, previous row"],
    ["C", "Comment on this text; Esc leaves it"],
    ["N  B", "Next, previous case"],
  ]],
  ["Images", [
    ["W  S", "Slice up, down; with Shift, five at once"],
    ["X", "Next window"],
    ["I", "Invert"],
    ["+  −  0", "Zoom in, out, fit"],
    ["V", "Next image"],
    ["F", "Enlarge the image, or show all"],
    ["O", "Next plane"],
  ]],
  ["Mouse and fingers", [
    ["Wheel", "Slices, or zoom where there is one slice; with Ctrl always zoom"],
    ["Drag", "What the toolbar says: slices, move or window"],
    ["Right drag", "Window: across the width, up and down the centre"],
    ["Two fingers", "Zoom and move"],
  ]],
];

export function alone(...children) {
  return h("div", { class: "alone" }, children.map((child) => (typeof child === "string" ? h("p", {}, child) : child)));
}

export function instructions(study, onstart, onagree) {
  const done = study.items.filter((item) => item.complete).length;
  const start = h("button", { type: "button", class: "primary", onclick: onstart }, startText(study, done));
  return h(
    "div",
    { class: "prose" },
    h("p", { class: "kicker" }, `Reader study · ${study.reader}`),
    h("h1", {}, study.title),
    paragraphs(study.instructions),
    h("p", {}, `There are ${plural(study.items.length, "case")}.`),
    h("h2", {}, "What you rate"),
    study.criteria.map(scale),
    study.pairwise ? h("p", { class: "aside" }, h("strong", {}, "Preference. "), "At the end of each case you say, for each pair of texts, which one is better.") : null,
    h("h2", {}, "Keys"),
    keys(),
    h("h2", {}, "May your words teach a model?"),
    agreement(study, onagree),
    h("div", { class: "begin" }, start),
  );
}

function startText(study, done) {
  if (done === study.items.length) return "Back to the cases";
  if (!study.started) return "Start rating";
  return `Go on (${done} of ${study.items.length} done)`;
}

function scale(criterion) {
  const points = criterion.anchors.map((meaning, index) => h("li", {}, h("b", {}, String(index + 1)), h("span", {}, meaning)));
  return h("section", { class: "criterion" }, h("h3", {}, criterion.name), h("p", {}, criterion.description), h("ol", {}, points));
}

export function keys() {
  return h("div", { class: "keys" }, KEYS.map(([title, rows]) =>
    h("section", {}, h("h3", {}, title), h("dl", {}, rows.map(([key, meaning]) =>
      h("div", {}, h("dt", {}, key.split("  ").map((each) => h("kbd", {}, each))), h("dd", {}, meaning)))))));
}

// The reader's agreement to export ratings as corrections.
export function agreement(study, onagree) {
  const option = (value, text) => {
    const input = h("input", { type: "radio", name: "agreement", value, onchange: () => onagree(value) });
    input.checked = study.agreed !== null && (study.agreed ? "yes" : "no") === value;
    return h("label", { class: "choice" }, input, text);
  };
  return h(
    "fieldset",
    { class: "agreement" },
    h("legend", {}, "My ratings and comments may also be kept as corrections, for a model to learn from."),
    option("yes", "Yes"),
    option("no", "No, use them for this study only"),
  );
}

export function finished(study, saved, onlook, onagree) {
  return h(
    "div",
    { class: "prose finished" },
    h("p", { class: "tick", "aria-hidden": "true" }, "✓"),
    h("h1", {}, "Thank you. You are done."),
    h("p", {}, `You have rated all ${plural(study.items.length, "case")} of this study.`),
    saved,
    h("h2", {}, "May your words teach a model?"),
    agreement(study, onagree),
    h("div", { class: "begin" }, h("button", { type: "button", class: "quiet", onclick: onlook }, "Look at my ratings again")),
  );
}
