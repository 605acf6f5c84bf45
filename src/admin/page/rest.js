// REST: what is asked of the worker, with the token that the user entered.

import { parse } from './json.js';

const PATIENCE_MS = 15_000;
const TOKEN = 'foldline.token';

/** An answer that is none. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const token = () => sessionStorage.getItem(TOKEN);
export const keepToken = (text) => sessionStorage.setItem(TOKEN, text);
export const forgetToken = () => sessionStorage.removeItem(TOKEN);

function messageOf(text, status) {
  try {
    return JSON.parse(text).message ?? text;
  } catch {
    return text || `the worker answered ${status}`;
  }
}

async function send(method, path, signal) {
  const headers = { accept: 'application/json' };
  if (token()) headers.authorization = `Bearer ${token()}`;
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, cache: 'no-store' });
  } catch (error) {
    if (signal.aborted && signal.reason?.name === 'AbortError') throw error;
    throw new Refused(0, 'The worker does not answer.');
  }
  if (answer.ok) return answer;
  throw new Refused(answer.status, messageOf(await answer.text(), answer.status));
}

/** What a path answers as text. */
export async function askText(path) {
  return (await send('GET', path, AbortSignal.timeout(PATIENCE_MS))).text();
}

/** What a path answers as JSON; null where it answers nothing. What is only shown is read by `parse`, which keeps each digit. */
export async function ask(path, method = 'GET', { signal = AbortSignal.timeout(PATIENCE_MS), read = JSON.parse } = {}) {
  const text = await (await send(method, path, signal)).text();
  return text ? read(text) : null;
}

/** A path below a connector. */
export const of = (name, path = '') => `/connectors/${encodeURIComponent(name)}${path}`;

/** The lines of an answer, one after another, as they come. */
export async function* lines(path, signal) {
  const answer = await send('GET', path, signal);
  let rest = '';
  for await (const part of chunks(answer.body)) {
    const found = (rest + part).split('\n');
    rest = found.pop();
    for (const line of found) if (line) yield parse(line);
  }
  if (rest) yield parse(rest);
}

async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}
