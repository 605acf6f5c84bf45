// A row looked up and explained: as it is stored, as it was at a moment, and the events that made it.

import { fill, h, say, show } from './dom.js';
import { long, parse, short } from './json.js';
import { ask, lines, of } from './rest.js';
import { many } from './words.js';

/** Of a key with very many events, the last so many are shown. */
const EVENTS_SHOWN = 200;

const OUTCOMES = { applied: 'good', filtered: 'idle', dead_lettered: 'bad', skipped: 'watch', stopped: 'bad' };

// What a path cannot hold is only explained.
const fitsPath = (key) => !['', '.', '..'].includes(key);

const fields = (row) => h('dl', { class: 'facts row-fields' },
  Object.entries(row).map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', { class: value === null ? 'none' : '' }, short(value)))));

const rowOrNone = (row, none) => (row === null ? h('p', {}, none) : fields(row));

function eventItem(event) {
  const { row, changed } = event;
  const change = (name) => h('span', { class: 'change' }, `${name} `, h('code', {}, short(row?.[name] ?? null)), ' ');
  return h('li', {},
    h('p', {}, h('code', {}, `${event.topic}:${event.partition}:${event.offset}`), event.timestamp && ` ${event.timestamp}`,
      event.event && h('strong', {}, ` ${event.event}`), ' ', h('span', { class: 'state', 'data-tone': OUTCOMES[event.outcome] ?? 'watch' }, event.outcome.replace('_', '-'))),
    event.reason && h('p', { class: 'cause' }, event.reason),
    changed.length > 0 && h('p', {}, row === null ? 'The row is gone.' : changed.map(change)),
    row !== null && h('details', {}, h('summary', {}, 'The row then'), h('pre', { tabindex: '0' }, long(row))));
}

function difference({ field, stored, folded }) {
  return h('tr', {}, h('th', { scope: 'row' }, field), h('td', {}, short(stored)), h('td', {}, short(folded)));
}

function conclusion(summary) {
  const isNow = 'stored' in summary;
  const parts = [h('h3', {}, isNow ? 'What the store holds' : 'What these events give'), rowOrNone(isNow ? summary.stored : summary.row, 'No row.')];
  if (summary.unnamed) parts.push(h('p', { class: 'cause' }, summary.unnamed));
  if (summary.unsettled) parts.push(h('p', { class: 'next' }, 'The row changed all the while, so it was compared with none.'));
  else if (isNow && summary.differences.length === 0) parts.push(h('p', { class: 'next' }, `${many(summary.events, 'event')} give exactly this.`));
  if (summary.differences.length > 0) {
    const heads = ['Field', 'Stored', 'What the log gives'].map((name) => h('th', { scope: 'col' }, name));
    parts.push(h('p', { class: 'cause' }, 'The store differs from what the log gives: foldline verify --repair mends it.'),
      h('table', {}, h('thead', {}, h('tr', {}, heads)), h('tbody', {}, summary.differences.map(difference))));
  }
  return parts;
}

/** The panel of a connector. */
export function rowPanel(name) {
  let running = null;
  const key = h('input', { id: 'row-key', autocomplete: 'off', spellcheck: 'false', 'aria-describedby': 'row-hint' });
  const at = h('input', { id: 'row-at', autocomplete: 'off', spellcheck: 'false', placeholder: 'now', 'aria-describedby': 'row-hint' });
  const stop = h('button', { type: 'button', hidden: true, click: () => running?.abort() }, 'Stop reading');
  const progress = h('p', { class: 'hint', role: 'status' });
  const failure = h('p', { class: 'refusal', role: 'alert', hidden: true });
  const found = h('div', { class: 'found' });
  const events = h('ol', { class: 'events' });

  const run = async (work) => {
    running?.abort();
    const mine = new AbortController();
    running = mine;
    [failure, found, events].forEach((element) => fill(element));
    show(failure, false);
    show(stop, true);
    say(progress, 'Reading…');
    try {
      say(progress, await work(mine.signal));
    } catch (error) {
      const isStopped = error.name === 'AbortError';
      say(progress, isStopped ? 'Stopped.' : '');
      if (!isStopped) fill(failure, error.message);
      show(failure, !isStopped);
    } finally {
      if (running === mine) { running = null; show(stop, false); }
    }
  };

  const query = () => (at.value.trim() ? { at: at.value.trim() } : {});

  const lookUp = async (signal) => {
    const asked = new URLSearchParams(query());
    const { row } = await ask(of(name, `/rows/${encodeURIComponent(key.value)}?${asked}`), 'GET', { signal, read: parse });
    fill(found, h('h3', {}, asked.has('at') ? `The row at ${asked.get('at')}` : 'What the store holds'), fields(row));
    return '';
  };

  const explain = async (signal) => {
    let seen = 0;
    const take = {
      reading: ({ partitions, of: all, why, left_out: leftOut = [] }) => {
        fill(found, h('p', { class: 'hint' }, `Read: ${partitions.join(', ')} (${partitions.length} of ${many(all, 'partition')}: ${why}).`,
          leftOut.length > 0 && ` Left out: ${leftOut.join(', ')}.`));
      },
      event: (event) => {
        seen += 1;
        events.append(eventItem(event));
        if (events.childElementCount > EVENTS_SHOWN) events.firstElementChild.remove();
        say(progress, `${many(seen, 'event')} so far…`);
      },
      summary: (summary) => found.append(...conclusion(summary)),
      error: ({ message }) => { throw new Error(message); },
    };
    const asked = new URLSearchParams({ key: key.value, ...query() });
    for await (const line of lines(of(name, `/explain?${asked}`), signal)) {
      const [kind, told] = Object.entries(line)[0];
      take[kind]?.(told);
    }
    return seen > EVENTS_SHOWN ? `The last ${EVENTS_SHOWN} of ${many(seen, 'event')}.` : `${many(seen, 'event')}, oldest first.`;
  };

  const submit = (event) => {
    event.preventDefault();
    const isExplained = event.submitter?.value === 'explain' || !fitsPath(key.value);
    run(isExplained ? explain : lookUp);
  };
  const element = h('section', { class: 'panel', 'aria-labelledby': 'row' },
    h('h2', { id: 'row' }, 'Look a row up'),
    h('form', { class: 'lookup', submit },
      h('div', {}, h('label', { for: 'row-key' }, 'Key'), key),
      h('div', {}, h('label', { for: 'row-at' }, 'At'), at),
      h('div', { class: 'buttons' }, h('button', { type: 'submit', value: 'row' }, 'Show the row'), h('button', { type: 'submit', value: 'explain' }, 'Explain it'), stop)),
    h('p', { class: 'hint', id: 'row-hint' }, 'A composite key is its parts joined by “:”. A moment is 2026-01-31T12:00:00Z, or topic:partition=offset. A moment, and an explanation, read the log again.'),
    progress, failure, found, events);
  return { element, update: () => {}, leave: () => running?.abort() };
}
