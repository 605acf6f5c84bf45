// JSON without loss: a number that JavaScript cannot hold keeps its digits.

/** A number as it was written. */
export class Digits {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
  toJSON() { return JSON.rawJSON ? JSON.rawJSON(this.text) : this.text; }
}

const exact = (_key, value, context) => {
  const source = context?.source;
  if (typeof value !== 'number' || source === undefined || String(value) === source) return value;
  return new Digits(source);
};

/** Parses JSON. */
export const parse = (text) => JSON.parse(text, exact);

/** A value on one line, a text without its quotes. */
export function short(value) {
  if (value === undefined) return 'absent';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** A value on several lines. */
export const long = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2));
