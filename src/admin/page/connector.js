// One connector: its verdict, its figures, and what can be done about it.

import { confirm } from './dialog.js';
import { fill, fillOnChange, h, say, show } from './dom.js';
import { mainFigures, stateBadge } from './figures.js';
import { order } from './order.js';
import { parkedKeys } from './parked.js';
import { rebuildPanel } from './rebuild.js';
import { rowPanel } from './row.js';
import { judge } from './verdict.js';
import { count, offset, rate } from './words.js';

const ORDERS = {
  resume: { method: 'PUT', path: '/resume', done: 'Asked to resume.' },
  pause: { method: 'PUT', path: '/pause', done: 'Asked to pause.' },
  restart: { method: 'POST', path: '/restart', done: 'Asked to restart.' },
  stop: { method: 'PUT', path: '/stop', done: 'Asked to stop.' },
};

const LABELS = { resume: 'Resume', pause: 'Pause', restart: 'Restart', stop: 'Stop…' };

/** What makes sense in which state. */
const OFFERED = { PAUSED: ['resume', 'stop'], STOPPED: ['resume'], FAILED: ['restart', 'stop'] };
const OTHERWISE = ['pause', 'restart', 'stop'];

function actions(view) {
  const act = async (what) => {
    const question = { title: `Stop ${view.name}?`, text: 'It leaves its group and folds nothing until someone resumes it, on every worker.', yes: 'Stop', danger: true };
    if (what !== 'stop' || await confirm(question)) await order(view, ORDERS[what]);
  };
  const buttons = Object.entries(LABELS).map(([what, label]) => [what, h('button', { type: 'button', click: () => act(what) }, label)]);
  const element = h('div', { class: 'buttons', role: 'group', 'aria-label': 'Actions' }, buttons.map(([, button]) => button));
  const update = (state, advised) => {
    const offered = OFFERED[state] ?? OTHERWISE;
    for (const [what, button] of buttons) {
      show(button, offered.includes(what));
      button.className = what === advised ? 'primary' : '';
    }
  };
  return { element, update };
}

function verdictPanel() {
  const title = h('h2', {});
  const cause = h('p', { class: 'cause' });
  const next = h('p', { class: 'next' });
  const from = h('p', { class: 'past' });
  const past = h('p', { class: 'past' });
  const element = h('section', { class: 'panel verdict', 'aria-label': 'How it is' }, title, cause, next, from, past);
  const update = ({ status }, verdict) => {
    element.dataset.tone = verdict.tone;
    say(title, verdict.title);
    say(cause, verdict.cause);
    show(cause, verdict.cause);
    say(next, verdict.next);
    show(next, verdict.next);
    const { last_error_since: since, past_error: over } = status;
    say(from, `Since ${since}.`);
    show(from, verdict.cause && since);
    say(past, over ? `Past error, ${over.since} to ${over.until}: ${over.message}` : '');
    show(past, over);
  };
  return { element, update };
}

const here = ({ connector, tasks }) => tasks.filter((task) => task.worker_id === connector.worker_id);

function partitions() {
  const body = h('tbody', {});
  const heads = ['Partition', 'Position', 'End', 'Lag'].map((name) => h('th', { scope: 'col' }, name));
  const empty = h('p', { class: 'hint' }, 'This worker holds none.');
  const table = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Partitions' }, h('table', {}, h('thead', {}, h('tr', {}, heads)), body));
  const element = h('section', { class: 'panel', 'aria-labelledby': 'partitions' }, h('h2', { id: 'partitions' }, 'Partitions of this worker'), table, empty);
  const line = (part) => h('tr', {},
    h('th', { scope: 'row' }, `${part.topic}:${part.partition}`),
    h('td', {}, offset(part.position)), h('td', {}, offset(part.end)), h('td', {}, offset(part.lag)));
  const update = ({ status }) => {
    const all = here(status).flatMap((task) => task.partitions);
    show(empty, all.length === 0);
    show(table, all.length > 0);
    fillOnChange(body, all, () => all.map(line));
  };
  return { element, update };
}

function facts() {
  const element = h('dl', { class: 'facts' });
  const update = ({ status, config, figures }) => {
    const { bad_records: bad } = status;
    const last = bad?.last;
    const all = [
      ['Way', `${config.source} → ${config.projection} → ${config.sink}`],
      ['Target', config.target],
      ['Group', config.group],
      ['Generation', count(status.generation)],
      ['Tasks here', count(here(status).length)],
      ['In flight', count(figures.inFlight)],
      bad && ['Bad records', `${count(bad.count)} since this worker started${bad.rate > 0 ? `, ${rate(bad.rate)} now` : ''}`],
      last && ['The last one', `${last.topic}:${last.partition}:${last.offset} at ${last.at}: ${last.reason}`],
      figures.deadLetters > 0 && ['Dead letters', `${count(figures.deadLetters)} since this worker started, in ${config['errors.dead_letter_topic']}`],
      figures.skipped > 0 && ['Skipped', `${count(figures.skipped)} since this worker started`],
      ...status.holes.map((hole) => ['Left out', `${hole.topic}:${hole.partition}, ${offset(hole.from)} up to ${offset(hole.to)}${hole.repeated ? '' : ', until the next rebuild'}`]),
    ].filter(Boolean);
    fillOnChange(element, all, () => all.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
  };
  return { element, update };
}

function configPanel() {
  const list = h('dl', { class: 'facts' });
  const element = h('details', { class: 'panel' }, h('summary', {}, 'Config'), list);
  const update = ({ config }) => {
    fillOnChange(list, config, () => Object.entries(config).map(([key, value]) => h('div', {}, h('dt', {}, key), h('dd', {}, value))));
  };
  return { element, update };
}

/** The view of one connector; `update` takes what the page knows. */
export function connectorView(main, name, refresh) {
  const view = { name, refresh, refusal: h('p', { class: 'refusal panel', role: 'alert', hidden: true }) };
  const title = h('h1', { tabindex: '-1' }, name);
  const badge = stateBadge();
  const buttons = actions(view);
  const parts = {
    verdict: verdictPanel(), figures: mainFigures(), facts: facts(), rebuild: rebuildPanel(view), parked: parkedKeys(view),
    row: rowPanel(name), partitions: partitions(), config: configPanel(),
  };
  const whole = h('div', { class: 'connector' },
    h('nav', { 'aria-label': 'Breadcrumb' }, h('a', { href: '#/' }, 'All connectors')),
    h('div', { class: 'head' }, title, badge.element, buttons.element),
    view.refusal, parts.verdict.element,
    h('section', { class: 'panel', 'aria-label': 'Figures' }, parts.figures.element, parts.facts.element),
    parts.parked.element, parts.rebuild.element, parts.row.element, parts.partitions.element, parts.config.element);
  const gone = h('p', { class: 'panel', hidden: true }, `This worker has no connector ${name}.`);
  fill(main, whole, gone);
  document.title = `${name} – Foldline`;

  const update = ({ connectors }) => {
    const connector = connectors.get(name);
    show(gone, !connector);
    show(whole, connector);
    if (!connector) return;
    const verdict = judge(connector);
    badge.update(connector.status.connector.state, verdict.tone);
    buttons.update(connector.status.connector.state, verdict.action);
    for (const part of Object.values(parts)) part.update(connector, verdict);
  };
  return { update, leave: parts.row.leave };
}
