// Figures in words.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const large = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const UNKNOWN = 'unknown';

/** A count. */
export function count(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return UNKNOWN;
  return number < 1e6 ? whole.format(number) : large.format(number);
}

/** An offset: all of its digits. */
export const offset = (number) => (number === null ? UNKNOWN : whole.format(number));

/** So many of something. */
export const many = (number, one, several = `${one}s`) => `${count(number)} ${number === 1 ? one : several}`;

/** A rate. */
export function rate(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return UNKNOWN;
  const text = number > 0 && number < 10 ? number.toFixed(1) : count(number);
  return `${text}/s`;
}

const UNITS = [['d', 86_400], ['h', 3_600], ['min', 60], ['s', 1]];

/** A duration in its two largest units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return UNKNOWN;
  if (seconds < 1) return seconds > 0 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : '0 s';
  const at = UNITS.findIndex(([, size]) => seconds >= size);
  const [unit, size] = UNITS[at];
  const [nextUnit, nextSize] = UNITS[at + 1] ?? [];
  const rest = nextSize ? Math.floor((seconds % size) / nextSize) : 0;
  const first = `${Math.floor(seconds / size)} ${unit}`;
  return rest > 0 ? `${first} ${rest} ${nextUnit}` : first;
}

/** A latency is known as a bucket's upper bound. */
export function latency(seconds) {
  if (seconds === null) return '–';
  return seconds === Infinity ? 'beyond 1 min' : `≤ ${duration(seconds)}`;
}

/** A share. */
export const percent = (share) => `${(Math.floor(share * 1000) / 10).toFixed(1)} %`;

/** The time of day. */
export const clock = (date) => date.toLocaleTimeString('en-GB');

/** A moment in milliseconds since the epoch. */
export const moment = (millis) => new Date(millis).toISOString().replace('T', ' ').replace('.000Z', 'Z');
