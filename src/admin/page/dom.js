// Elements. Text becomes text nodes only, so no name, key or payload is ever read as markup.

const SVG = 'http://www.w3.org/2000/svg';

// Controls, and what turns the reading direction: a key must not hide or forge what stands beside it.
const STEERING = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** A text in which characters that steer are shown as escapes. */
export function printable(text) {
  const escape = (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return String(text).replace(STEERING, escape);
}

const isShown = (child) => child !== null && child !== undefined && child !== false;
const asNode = (child) => (child instanceof Node ? child : document.createTextNode(printable(child)));

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, '');
    else if (isShown(value)) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter(isShown).map(asNode));
  return element;
}

/** An element; an attribute that is a function listens to the event of its name. */
export function h(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

/** Sets a text where it is another one, so that nothing is announced or repainted for nothing. */
export function say(element, text) {
  const shown = printable(text ?? '');
  if (element.textContent !== shown) element.textContent = shown;
}

/** Shows or hides. */
export function show(element, isVisible) {
  if (element.hidden === Boolean(isVisible)) element.hidden = !isVisible;
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter(isShown).map(asNode));
}

/** Replaces what an element holds only where `mark` is another one than before: focus and selection stay. */
export function fillOnChange(element, mark, make) {
  const text = JSON.stringify(mark);
  if (element.foldlineMark === text) return;
  element.foldlineMark = text;
  fill(element, make());
}

/** One part per item, kept by key: `make(key)` gives `{ element, update(item) }`. */
export function keyedList(parent, make) {
  const parts = new Map();
  return (items) => {
    for (const [key, part] of parts) {
      if (items.has(key)) continue;
      part.element.remove();
      parts.delete(key);
    }
    let place = parent.firstElementChild;
    for (const [key, item] of items) {
      if (!parts.has(key)) parts.set(key, make(key));
      const { element, update } = parts.get(key);
      update(item);
      if (element === place) place = place.nextElementSibling;
      else parent.insertBefore(element, place);
    }
  };
}

/** Told to a screen reader, and shown for a while. */
export function announce(text) {
  const said = document.getElementById('said');
  said.textContent = printable(text);
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => { said.textContent = ''; }, 8000);
}
