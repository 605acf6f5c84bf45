// A connector's rebuild: how far it is, and what can be done about it.

import { confirm } from './dialog.js';
import { h, say, show } from './dom.js';
import { figure } from './figures.js';
import { order } from './order.js';
import { count, duration, percent, rate } from './words.js';

const PHASES = {
  loading: 'It is filled from the beginning of the log.',
  following: 'It is complete, and follows the log until it can take over.',
  holding: 'It takes over now.',
};

const WAYS = [
  ['in_place=false', 'Beside the live rows', 'Readers notice nothing until the new generation takes over.'],
  ['in_place=false&from=earliest', 'Beside, from what the log still has', 'For a log that has lost its beginning: rows may lack what it no longer has.'],
  ['in_place=true', 'In place', 'The target is emptied first, and readers see it fill.'],
];

async function begin(view, generation) {
  const how = await confirm({ title: `Rebuild ${view.name}?`, text: 'All events are folded again.', yes: 'Rebuild', choices: WAYS });
  if (!how) return;
  await order(view, { method: 'POST', path: `/rebuild?${how}${how === 'in_place=true' ? `&generation=${generation}` : ''}`, done: ({ generation }) => `Generation ${generation} is being built.` });
}

async function cancel(view, generation) {
  const text = 'What it made so far is dropped. The live rows are not touched.';
  if (!await confirm({ title: `Cancel the rebuild of generation ${generation}?`, text, yes: 'Cancel the rebuild', danger: true })) return;
  await order(view, { method: 'DELETE', path: `/rebuild?generation=${generation}`, done: `The rebuild of generation ${generation} is cancelled.` });
}

async function rollBack(view, generation, to) {
  const text = `Generation ${to} becomes live again, and catches up from its own positions. Where it is of another projection, deploy the config of then with it.`;
  if (!await confirm({ title: `Roll back to generation ${to}?`, text, yes: 'Roll back', danger: true })) return;
  await order(view, { method: 'POST', path: `/rollback?generation=${generation}`, done: (answer) => `Generation ${answer.generation} is live again.` });
}

/** The panel. */
export function rebuildPanel(view) {
  let seen = { generation: 0, kept: null, building: null };
  const sentence = h('p', {});
  const bar = h('progress', { max: '1', value: '0', 'aria-label': 'Progress of the rebuild' });
  const [share, left, pace, eta, bad] = ['Done', 'Events to go', 'Rate', 'Time left', 'Bad records'].map((name) => figure(name));
  const figures = h('dl', { class: 'figures' }, [share, left, pace, eta, bad].map(({ element }) => element));
  const waits = h('p', { class: 'next' });
  const trouble = h('p', { class: 'cause' });
  const progress = h('div', {}, bar, figures, waits, trouble);
  const start = h('button', { type: 'button', click: () => begin(view, seen.generation) }, 'Rebuild…');
  const back = h('button', { type: 'button', click: () => rollBack(view, seen.generation, seen.kept) }, 'Roll back…');
  const end = h('button', { type: 'button', click: () => cancel(view, seen.building) }, 'Cancel the rebuild…');
  const element = h('section', { class: 'panel', 'aria-labelledby': 'rebuild' },
    h('div', { class: 'head' }, h('h2', { id: 'rebuild' }, 'Rebuild'), h('div', { class: 'buttons' }, start, back, end)), sentence, progress);

  const update = ({ status }) => {
    const { rebuild, generation, kept_generations: kept } = status;
    seen = { generation, kept: kept.length > 0 ? Math.max(...kept) : null, building: rebuild?.generation };
    show(progress, rebuild);
    show(start, !rebuild && generation > 0);
    show(back, !rebuild && seen.kept !== null);
    show(end, rebuild);
    if (!rebuild) {
      const past = seen.kept === null ? '' : ` Generation ${seen.kept} is kept for a way back.`;
      say(sentence, generation > 0 ? `Generation ${generation} is live.${past}` : 'It has no live generation yet.');
      return;
    }
    say(sentence, `Generation ${rebuild.generation} is being built. ${PHASES[rebuild.phase] ?? ''} Generation ${generation} serves its readers meanwhile.`);
    bar.value = rebuild.progress;
    share.update(percent(rebuild.progress));
    left.update(count(rebuild.remaining));
    pace.update(rate(rebuild.rate));
    eta.update(duration(rebuild.eta_seconds));
    bad.update(count(rebuild.bad_records));
    say(waits, rebuild.waiting ? `It waits: ${rebuild.waiting}` : '');
    say(trouble, rebuild.trouble);
    show(waits, rebuild.waiting);
    show(trouble, rebuild.trouble);
  };
  return { element, update };
}
