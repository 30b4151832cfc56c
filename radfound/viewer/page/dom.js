// Build DOM elements; text is inserted as text, never as markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function paragraphs(text) {
  return text.split(/\n\s*\n/).filter((part) => part.trim()).map((part) => h("p", {}, part.trim()));
}

// Whether the element takes text input.
export function takesText(target) {
  return target.matches("textarea, select, input:not([type=radio], [type=checkbox], [type=range])");
}

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
