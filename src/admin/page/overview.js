// All connectors, those that need a person first.

import { fill, h, keyedList, say, show } from './dom.js';
import { mainFigures, stateBadge } from './figures.js';
import { byUrgency, headline, judge } from './verdict.js';

function row(name) {
  const badge = stateBadge();
  const way = h('p', { class: 'way' });
  const figures = mainFigures();
  const sentence = h('strong', {});
  const cause = h('span', { class: 'cause' });
  const next = h('span', { class: 'next' });
  const trouble = h('p', { class: 'trouble' }, sentence, cause, next);
  const link = h('a', { href: `#/connectors/${encodeURIComponent(name)}` }, name);
  const element = h('li', { class: 'row panel' },
    h('div', { class: 'who' }, h('h2', {}, link), badge.element, way), figures.element, trouble);

  const update = (connector) => {
    const { verdict, status, config } = connector;
    badge.update(status.connector.state, verdict.tone);
    element.dataset.tone = verdict.tone;
    say(way, `${config.source} → ${config.target} in ${config.sink}`);
    figures.update(connector);
    show(trouble, verdict.tone !== 'good');
    say(sentence, verdict.title);
    say(cause, verdict.cause);
    say(next, verdict.next);
  };
  return { element, update };
}

/** The overview; `update` takes what the page knows. */
export function overview(main) {
  const title = h('h1', { tabindex: '-1' });
  const list = h('ul', { class: 'rows' });
  const empty = h('div', { class: 'panel empty' },
    h('p', {}, 'Its config has no connector, so nothing is folded.'),
    h('p', {}, 'Write a [connectors.NAME] table with a projection and a sink, check it with ', h('code', {}, 'foldline validate'), ', and send the worker SIGHUP.'));
  fill(main, title, list, empty);
  const updateList = keyedList(list, row);

  const update = ({ connectors }) => {
    const judged = Array.from(connectors.values(), (connector) => ({ ...connector, verdict: judge(connector) })).sort(byUrgency);
    show(empty, judged.length === 0);
    show(list, judged.length > 0);
    const sentence = judged.length === 0 ? 'This worker has no connectors' : headline(judged);
    say(title, sentence);
    document.title = `${sentence} – Foldline`;
    updateList(new Map(judged.map((connector) => [connector.name, connector])));
  };
  return { update };
}
