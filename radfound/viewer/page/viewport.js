// One image: draws its slices with window, zoom and pan, and handles mouse, wheel, touch and keys.

import { h } from "./dom.js";
import { Slices } from "./slices.js";

const MOST_ZOOM = 24;
const LEAST_ZOOM = 0.5;
const WHEEL_STEP = 40; // trackpad pixels per slice

export const PLANES = { axial: "Axial", coronal: "Coronal", sagittal: "Sagittal", oblique: "Oblique" };
const BAR_MM = [200, 100, 50, 20, 10, 5, 2, 1];

export class Viewport {
  // `picture`: one image; `path`: address of its slices; `onchange` is called when the toolbar must be updated.
  constructor(calls, path, picture, onchange) {
    Object.assign(this, { calls, path, picture, onchange });
    this.tool = picture.stacks[0].depth > 1 ? "slices" : "move";
    this.inverted = false;
    this.positions = picture.stacks.map((stack) => Math.floor((stack.depth - 1) / 2));
    this.bitmap = document.createElement("canvas");
    this.#build();
    this.setWindow(picture.windows[0].center, picture.windows[0].width);
    this.fit();
    this.overlay = null;
    this.setStack(0);
    this.resizing = new ResizeObserver(() => this.#draw());
    this.resizing.observe(this.stage);
  }

  get stack() {
    return this.picture.stacks[this.stackIndex];
  }

  get position() {
    return this.positions[this.stackIndex];
  }

  dispose() {
    this.resizing.disconnect();
    this.slices.dispose();
    this.overlaySlices?.dispose();
  }

  // Lay a map of the same size over the slices and go to where it is highest; null takes it away.
  // `overlay`: { path, levels, highest }, as the server describes it.
  setOverlay(overlay) {
    this.overlay = overlay;
    this.#followOverlay();
    this.legend.hidden = !overlay;
    if (overlay) this.positions = this.picture.stacks.map((stack) => overlay.highest[stack.axis]);
    this.setPosition(this.position);
  }

  #followOverlay() {
    this.overlaySlices?.dispose();
    this.overlaySlices = null;
    this.painted = null;
    if (!this.overlay) return;
    const { path, levels } = this.overlay;
    this.overlaySlices = new Slices(this.calls, path, this.stack, levels.dtype, () => this.#changed(), () => {});
  }

  setStack(index) {
    this.slices?.dispose();
    this.stackIndex = index;
    const { dtype } = this.picture.levels;
    const changed = () => this.#draw();
    this.slices = new Slices(this.calls, this.path, this.stack, dtype, changed, (message) => {
      this.problem.textContent = message && `Image not loaded: ${message}`;
    });
    this.#followOverlay();
    this.slider.max = this.stack.depth;
    this.leafing.hidden = this.stack.depth < 2;
    for (const [edge, note] of Object.entries(this.sides)) note.textContent = this.stack.sides?.[edge] ?? "";
    this.fit();
    this.setPosition(this.position);
  }

  setPosition(position) {
    this.positions[this.stackIndex] = Math.max(0, Math.min(this.stack.depth - 1, position));
    this.slider.value = this.position + 1;
    this.#changed();
  }

  setWindow(center, width) {
    const smallest = this.picture.levels.slope;
    this.window = { center, width: Math.max(smallest, width) };
    this.#changed();
  }

  invert() {
    this.inverted = !this.inverted;
    this.#changed();
  }

  fit() {
    Object.assign(this, { zoom: 1, panX: 0, panY: 0 });
    this.#changed();
  }

  // Zoom by a factor; the point (x, y) of the stage, its middle if not given, stays where it is.
  zoomBy(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const zoom = Math.max(LEAST_ZOOM, Math.min(MOST_ZOOM, this.zoom * factor));
    const dx = x - this.stage.clientWidth / 2;
    const dy = y - this.stage.clientHeight / 2;
    const ratio = zoom / this.zoom;
    this.panX = dx - (dx - this.panX) * ratio;
    this.panY = dy - (dy - this.panY) * ratio;
    this.zoom = zoom;
    this.#changed();
  }

  // Elements -----------------------------------------------------------------------------------

  #build() {
    const label = this.picture.label || "Image";
    const note = (place) => h("span", { class: `note ${place}` });
    this.canvas = h("canvas", { role: "img" });
    this.sides = { left: note("left"), right: note("right"), top: note("top"), bottom: note("bottom") };
    this.name = note("upper-left");
    this.windowNote = note("upper-right");
    this.bar = h("span", { class: "note scale", hidden: true });
    this.legend = h("span", { class: "note legend", hidden: true }, "evidence: low", h("span", { class: "ramp" }), "high");
    this.problem = h("p", { class: "problem", role: "status" });
    this.stage = h(
      "div",
      { class: "stage" },
      this.canvas,
      this.name,
      this.windowNote,
      ...Object.values(this.sides),
      this.bar,
      this.legend,
      this.problem,
    );
    this.slider = h("input", {
      type: "range", min: 1, "aria-label": `Slice of ${label}`, oninput: () => this.setPosition(this.slider.value - 1),
    });
    this.counter = h("span", { class: "counter" });
    const step = (sign, name) =>
      h("button", { type: "button", class: "small", "aria-label": name, onclick: () => this.setPosition(this.position + sign) }, sign < 0 ? "−" : "+");
    this.leafing = h("div", { class: "leafing" }, step(-1, "Previous slice"), this.slider, step(1, "Next slice"), this.counter);
    this.element = h("section", { class: "viewport", tabindex: 0, "aria-label": label }, this.stage, this.leafing);
    this.#follow();
  }

  #follow() {
    const pointers = new Map();
    this.stage.addEventListener("contextmenu", (event) => event.preventDefault());
    this.stage.addEventListener("pointerdown", (event) => {
      this.element.focus({ preventScroll: true });
      this.stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, rest: 0 });
    });
    this.stage.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const [dx, dy] = [event.clientX - last.x, event.clientY - last.y];
      if (pointers.size === 2) this.#pinch(pointers, event, last);
      else this.#drag(event.buttons === 2 ? "window" : event.buttons === 4 ? "move" : this.tool, dx, dy, last);
      Object.assign(last, { x: event.clientX, y: event.clientY });
    });
    for (const type of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(type, (event) => pointers.delete(event.pointerId));
    }
    let rest = 0;
    this.stage.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        if (event.ctrlKey || this.stack.depth < 2) {
          const box = this.stage.getBoundingClientRect();
          this.zoomBy(Math.exp(-event.deltaY / 400), event.clientX - box.x, event.clientY - box.y);
          return;
        }
        rest += event.deltaMode ? Math.sign(event.deltaY) * WHEEL_STEP : event.deltaY;
        const steps = Math.abs(event.deltaY) >= 100 ? Math.sign(rest) : Math.trunc(rest / WHEEL_STEP);
        if (steps) {
          rest = 0;
          this.setPosition(this.position + steps);
        }
      },
      { passive: false },
    );
  }

  #drag(tool, dx, dy, pointer) {
    if (tool === "move") {
      this.panX += dx;
      this.panY += dy;
      this.#changed();
    } else if (tool === "window") {
      const perPixel = Math.max(this.window.width, 10 * this.picture.levels.slope) / 300;
      this.setWindow(this.window.center + dy * perPixel, this.window.width + dx * perPixel);
    } else {
      pointer.rest += dy;
      const pixels = Math.max(3, this.stage.clientHeight / this.stack.depth / 1.5);
      const steps = Math.trunc(pointer.rest / pixels);
      pointer.rest -= steps * pixels;
      if (steps) this.setPosition(this.position + steps);
    }
  }

  #pinch(pointers, event, moved) {
    const [other] = [...pointers.values()].filter((each) => each !== moved);
    const before = Math.hypot(moved.x - other.x, moved.y - other.y);
    const after = Math.hypot(event.clientX - other.x, event.clientY - other.y);
    const box = this.stage.getBoundingClientRect();
    this.panX += (event.clientX - moved.x) / 2;
    this.panY += (event.clientY - moved.y) / 2;
    const [x, y] = [(event.clientX + other.x) / 2 - box.x, (event.clientY + other.y) / 2 - box.y];
    this.zoomBy(before > 0 ? after / before : 1, x, y);
  }

  // Drawing ------------------------------------------------------------------------------------

  #changed() {
    if (!this.slices) return; // not built yet
    this.onchange();
    this.scheduled ??= requestAnimationFrame(() => {
      this.scheduled = null;
      this.#draw();
    });
  }

  #draw() {
    const levels = this.slices.at(this.position);
    if (levels) this.#paint(levels);
    this.#place();
    this.#note(Boolean(levels));
  }

  // Map levels to brightness in a bitmap of the slice's own size.
  #paint(levels) {
    const { center, width } = this.window;
    const map = this.overlaySlices?.at(this.position);
    const wanted = [this.stackIndex, this.position, center, width, this.inverted, Boolean(map)].join(" ");
    if (this.painted === wanted) return;
    this.painted = wanted;
    const { rows, columns } = this.stack;
    const { slope, intercept, dtype } = this.picture.levels;
    const shades = new Uint32Array(dtype === "uint8" ? 256 : 65536);
    const bottom = center - width / 2;
    for (let level = 0; level < shades.length; level += 1) {
      const share = Math.max(0, Math.min(1, (intercept + slope * level - bottom) / width));
      const grey = Math.round(255 * (this.inverted ? 1 - share : share));
      shades[level] = 0xff000000 | (grey * 0x010101);
    }
    Object.assign(this.bitmap, { width: columns, height: rows });
    const context = this.bitmap.getContext("2d");
    const image = context.createImageData(columns, rows);
    const pixels = new Uint32Array(image.data.buffer);
    for (let index = 0; index < pixels.length; index += 1) pixels[index] = shades[levels[index]];
    if (map) colour(image.data, map, this.overlay.levels.intercept);
    context.putImageData(image, 0, 0);
    this.shown = this.position;
  }

  // Draw the bitmap with zoom and pan.
  #place() {
    const [width, height] = [this.stage.clientWidth, this.stage.clientHeight];
    const density = window.devicePixelRatio || 1;
    Object.assign(this.canvas, { width: Math.round(width * density), height: Math.round(height * density) });
    if (this.painted === null || !width || !height) return;
    const { rows, columns, pixel_aspect: aspect } = this.stack;
    const scale = Math.min(width / columns, height / (rows * aspect)) * this.zoom;
    const context = this.canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.setTransform(density, 0, 0, density, 0, 0);
    context.translate(width / 2 + this.panX, height / 2 + this.panY);
    context.scale(scale, scale * aspect);
    context.drawImage(this.bitmap, -columns / 2, -rows / 2);
    this.#drawBar(scale);
  }

  #drawBar(scale) {
    const { column_mm: pixel, sides } = this.stack;
    const perMm = pixel ? scale / pixel : 0;
    const length = BAR_MM.find((mm) => mm * perMm <= 110);
    this.bar.hidden = !sides || !length;
    if (this.bar.hidden) return;
    this.bar.style.width = `${length * perMm}px`;
    this.bar.textContent = length >= 10 ? `${length / 10} cm` : `${length} mm`;
  }

  #note(isHere) {
    const { center, width } = this.window;
    const { label, unit, windows } = this.picture;
    const { depth, plane } = this.stack;
    const named = windows.find((each) => each.center === center && each.width === width);
    const isAsUsual = named === windows[0] && !unit; // the numbers carry no information
    this.windowNote.textContent = isAsUsual ? "" : `${named ? `${named.name} · ` : ""}C ${rounded(center)}  W ${rounded(width)}${unit && ` ${unit}`}`;
    const place = depth > 1 ? `${this.position + 1} / ${depth}` : "";
    this.counter.textContent = place;
    this.element.classList.toggle("loading", !isHere);
    this.element.dataset.shown = isHere ? this.position : "";
    this.name.textContent = [label, PLANES[plane]].filter(Boolean).join(" · ");
    const slice = depth > 1 ? `, ${plane} slice ${this.position + 1} of ${depth}` : "";
    this.canvas.setAttribute("aria-label", `${label || "Image"}${slice}`);
    this.slider.setAttribute("aria-valuetext", `${this.position + 1} of ${depth}`);
  }
}

// Blend a map of 0 to 255 into grey pixels: transparent where it is low, through red to yellow where it is high.
function colour(data, map, intercept) {
  for (let index = 0; index < map.length; index += 1) {
    const share = (intercept + map[index]) / 255;
    const opacity = 0.65 * share;
    const at = 4 * index;
    data[at] += (255 - data[at]) * opacity;
    data[at + 1] += (255 * Math.max(0, 2 * share - 1) - data[at + 1]) * opacity;
    data[at + 2] -= data[at + 2] * opacity;
  }
}

export function rounded(value) {
  return Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3));
}
