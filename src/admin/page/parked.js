// Keys that were set aside with their events: what waits, why, and what becomes of it.

import { confirm } from './dialog.js';
import { announce, fill, h, keyedList, say, show } from './dom.js';
import { long, parse } from './json.js';
import { order } from './order.js';
import { ask, of } from './rest.js';
import { many, moment } from './words.js';

/** While nothing hints at a change, the store is asked so seldom. */
const EVERY_TICKS = 15;
const KEYS_SHOWN = 12;

const DROPS = [
  ['', 'All its events', 'The row stays as it is without any of them.'],
  ['?bad=true', 'Only what is bad', 'The events that wait behind it are folded.'],
];

const path = (id, more = '') => `/parked/${encodeURIComponent(id)}${more}`;

async function drop(view, id, asked) {
  const how = await confirm({ title: 'Leave these events out for good?', text: `${id} and what waits behind it. This cannot be taken back.`, yes: 'Leave out', danger: true, choices: DROPS });
  if (how === null) return;
  asked(id);
  await order(view, { method: 'DELETE', path: path(id, how), done: 'Asked to leave it out.' });
}

async function retry(view, id, asked) {
  asked(id);
  await order(view, { method: 'POST', path: path(id, '/retry'), done: 'Asked to fold it again.' });
}

const event = ({ topic, partition, offset, timestamp, reason, value }) => h('li', {},
  h('p', {}, h('code', {}, `${topic}:${partition}:${offset}`), timestamp !== null && ` at ${moment(timestamp)}`, reason && h('span', { class: 'cause' }, reason)),
  h('pre', { tabindex: '0' }, value === null ? 'a tombstone' : long(value)));

function entry(view, id, asked) {
  const keys = h('p', { class: 'keys' });
  const reason = h('p', { class: 'cause' });
  const meta = h('p', { class: 'hint' });
  const outcome = h('p', { class: 'next' });
  const events = h('ol', { class: 'events' });
  const load = async ({ target }) => {
    if (!target.open) return;
    try {
      fill(events, (await ask(of(view.name, path(id)), 'GET', { read: parse })).parked.map(event));
    } catch (error) {
      fill(events, h('li', { class: 'refusal' }, error.message));
    }
  };
  const [again, out] = [['Retry', retry], ['Drop…', drop]].map(([label, act]) => h('button', { type: 'button', 'aria-label': `${label} ${id}`, click: () => act(view, id, asked) }, label));
  const element = h('li', { class: 'entry' },
    h('div', { class: 'head' }, keys, h('div', { class: 'buttons' }, again, out)), reason, meta, outcome,
    h('details', { toggle: load }, h('summary', {}, 'Its events'), events));

  const update = (one) => {
    const shown = one.keys.slice(0, KEYS_SHOWN);
    const others = one.keys.length - shown.length;
    fill(keys, one.keys.length === 1 ? 'Key ' : 'Keys ', shown.flatMap((key) => [h('code', {}, key), ' ']), others > 0 && `and ${others} more`);
    say(reason, one.reason);
    const wish = one.request ? ` · asked to ${one.request}, which its owner carries out` : '';
    say(meta, `${many(one.events, 'event')} since ${one.id}${wish}`);
    say(outcome, one.outcome);
    for (const button of [again, out]) button.disabled = Boolean(one.request);
  };
  return { element, update };
}

/** The panel; it is shown where something is set aside. */
export function parkedKeys(view) {
  const list = h('ul', { class: 'entries' });
  const failure = h('p', { class: 'refusal', hidden: true });
  const element = h('section', { class: 'panel', 'aria-labelledby': 'parked', hidden: true },
    h('h2', { id: 'parked' }, 'Parked keys'),
    h('p', { class: 'hint' }, 'Their rows take no later event until someone has decided. All other keys go on.'), failure, list);
  const pending = new Set();
  const outcomes = new Map();
  const updateList = keyedList(list, (id) => entry(view, id, (asked) => pending.add(asked)));
  let ticks = 0;
  let before = null;

  const tellOutcomes = (entries) => {
    for (const id of pending) {
      const left = entries.get(id);
      if (left?.request) continue;
      pending.delete(id);
      const outcome = left ? 'It was tried, and stays parked: the reason is as above.' : 'It is freed.';
      outcomes.set(id, outcome);
      announce(`${id}: ${outcome}`);
    }
  };

  const read = async () => {
    try {
      const { parked } = await ask(of(view.name, '/parked'));
      const entries = new Map(parked.map((one) => [one.id, one]));
      tellOutcomes(entries);
      for (const [id, one] of entries) one.outcome = pending.has(id) ? null : outcomes.get(id);
      updateList(entries);
      show(element, entries.size > 0);
      show(failure, false);
    } catch (error) {
      fill(failure, `What is parked cannot be read: ${error.message}`);
      show(failure, true);
    }
  };

  const update = ({ status }) => {
    const isDue = ticks++ % EVERY_TICKS === 0 || status.parked_keys !== before || pending.size > 0;
    before = status.parked_keys;
    // A connector that was refused at the start has no store to ask.
    if (isDue && status.generation > 0) read();
  };
  return { element, update };
}
