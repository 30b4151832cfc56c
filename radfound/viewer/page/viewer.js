// The images of a study side by side, with one toolbar for the selected image.

import { h } from "./dom.js";
import { PLANES, Viewport, rounded } from "./viewport.js";

const TOOLS = [["slices", "Slices"], ["move", "Move"], ["window", "Window"]];

export class Viewer {
  // `pictures`: as the server describes them; `pathOf`: from a picture's index to the address of its slices.
  constructor(calls, pictures, pathOf) {
    this.viewports = pictures.map(
      (picture, index) => new Viewport(calls, pathOf(index), picture, () => this.#reflect()),
    );
    this.tools = h("div", { class: "tools", role: "toolbar", "aria-label": "Image tools" });
    const count = this.viewports.length;
    this.grid = h("div", { class: `grid of-${Math.min(count, 9)}` }, this.viewports.map((each) => each.element));
    this.element = h("section", { class: "viewer", "aria-label": "Images" }, this.tools, this.grid);
    for (const viewport of this.viewports) {
      viewport.element.addEventListener("focusin", () => this.#choose(viewport));
      viewport.stage.addEventListener("dblclick", () => this.enlarge());
    }
    this.#choose(this.viewports[0]);
  }

  dispose() {
    for (const viewport of this.viewports) viewport.dispose();
  }

  // Lay maps over the images, one for each: as for `Viewport.setOverlay`; null takes them away.
  setOverlays(overlays) {
    this.viewports.forEach((viewport, index) => viewport.setOverlay(overlays?.[index] ?? null));
  }

  // Show only the selected image, or all images again.
  enlarge() {
    if (this.viewports.length > 1) this.grid.classList.toggle("enlarged");
    this.#reflect();
  }

  // Handle a key; false if the key has no function here.
  key(event) {
    const { chosen } = this;
    const steps = event.shiftKey ? 5 : 1;
    const isOnImage = document.activeElement === chosen.element;
    const actions = {
      s: () => chosen.setPosition(chosen.position + steps),
      w: () => chosen.setPosition(chosen.position - steps),
      x: () => this.#nextWindow(),
      o: () => this.#nextPlane(),
      v: () => this.#nextViewport(event.shiftKey ? -1 : 1),
      f: () => this.enlarge(),
      i: () => chosen.invert(),
      "+": () => chosen.zoomBy(1.25),
      "=": () => chosen.zoomBy(1.25),
      "-": () => chosen.zoomBy(0.8),
      0: () => chosen.fit(),
      ...(isOnImage && {
        arrowdown: () => chosen.setPosition(chosen.position + steps),
        arrowup: () => chosen.setPosition(chosen.position - steps),
      }),
    };
    const action = actions[event.key.toLowerCase()];
    action?.();
    return Boolean(action);
  }

  #nextWindow() {
    const { windows } = this.chosen.picture;
    const { center, width } = this.chosen.window;
    const now = windows.findIndex((each) => each.center === center && each.width === width);
    const next = windows[(now + 1) % windows.length];
    this.chosen.setWindow(next.center, next.width);
  }

  #nextPlane() {
    this.chosen.setStack((this.chosen.stackIndex + 1) % this.chosen.picture.stacks.length);
  }

  #nextViewport(step) {
    const { viewports } = this;
    const index = (viewports.indexOf(this.chosen) + step + viewports.length) % viewports.length;
    viewports[index].element.focus();
  }

  #choose(viewport) {
    if (this.chosen === viewport) return;
    this.chosen = viewport;
    for (const each of this.viewports) {
      each.element.classList.toggle("chosen", each === viewport && this.viewports.length > 1);
    }
    this.#buildTools();
  }

  #buildTools() {
    const { chosen } = this;
    const { stacks, windows, unit } = chosen.picture;
    const button = (text, name, action) =>
      h("button", { type: "button", class: "small", title: name, "aria-label": name, onclick: action }, text);
    this.toolButtons = TOOLS.filter(([tool]) => tool !== "slices" || stacks[0].depth > 1).map(([tool, text]) =>
      h("button", { type: "button", class: "small", "data-tool": tool, onclick: () => this.#setTool(tool) }, text));
    this.planeButtons = stacks.length < 2 ? [] : stacks.map((stack, index) =>
      h("button", { type: "button", class: "small", onclick: () => chosen.setStack(index) }, PLANES[stack.plane]));
    this.windowChoice = h(
      "select",
      { "aria-label": "Window", onchange: () => this.#setNamedWindow() },
      windows.map((each, index) => h("option", { value: index }, each.name)),
      h("option", { value: "", disabled: true }, "Free window"),
    );
    const number = (name, letter) => {
      const input = h("input", { type: "number", step: "any", "aria-label": `Window ${name}${unit && ` in ${unit}`}`, onchange: () => this.#setFreeWindow() });
      return [input, h("label", { class: "free" }, letter, input)];
    };
    const [center, centerLabel] = number("centre", "C");
    const [width, widthLabel] = number("width", "W");
    Object.assign(this, { center, width });
    this.invertButton = button("Invert", "Invert", () => chosen.invert());
    this.allButton = h("button", { type: "button", class: "small", onclick: () => this.enlarge() });
    this.allButton.hidden = this.viewports.length < 2;
    const group = (name, ...children) => h("div", { class: "group", role: "group", "aria-label": name }, ...children);
    this.tools.replaceChildren(
      group("What dragging does", this.toolButtons),
      ...(this.planeButtons.length ? [group("Plane", this.planeButtons)] : []),
      group("Zoom", button("−", "Zoom out", () => chosen.zoomBy(0.8)), button("+", "Zoom in", () => chosen.zoomBy(1.25)), button("Fit", "Fit", () => chosen.fit()), this.allButton),
      group("Brightness", this.windowChoice, centerLabel, widthLabel, this.invertButton),
    );
    this.#reflect();
  }

  #setTool(tool) {
    for (const each of this.viewports) {
      if (tool !== "slices" || each.picture.stacks[0].depth > 1) each.tool = tool;
    }
    this.#reflect();
  }

  #setNamedWindow() {
    const { center, width } = this.chosen.picture.windows[this.windowChoice.value];
    this.chosen.setWindow(center, width);
  }

  #setFreeWindow() {
    const [center, width] = [this.center.valueAsNumber, this.width.valueAsNumber];
    if (Number.isFinite(center) && width > 0) this.chosen.setWindow(center, width);
    else this.#reflect();
  }

  // Update the toolbar from the selected image.
  #reflect() {
    if (!this.toolButtons) return;
    const { chosen } = this;
    for (const button of this.toolButtons) press(button, button.dataset.tool === chosen.tool);
    this.planeButtons.forEach((button, index) => press(button, index === chosen.stackIndex));
    press(this.invertButton, chosen.inverted);
    const { center, width } = chosen.window;
    const named = chosen.picture.windows.findIndex((each) => each.center === center && each.width === width);
    this.windowChoice.value = named < 0 ? "" : named;
    this.center.value = rounded(center);
    this.width.value = rounded(width);
    this.allButton.textContent = this.grid.classList.contains("enlarged") ? "Show all" : "Enlarge";
  }
}

function press(button, isPressed) {
  button.setAttribute("aria-pressed", isPressed);
}
