// A connector's state and figures, as both views show them.

import { h, say } from './dom.js';
import { sparkline } from './sparkline.js';
import { count, duration, latency, rate } from './words.js';

/** A connector's state as a word with its colour. */
export function stateBadge() {
  const element = h('span', { class: 'state' });
  return { element, update: (state, tone) => { say(element, state); element.dataset.tone = tone; } };
}

/** A figure with its name, and a sparkline where it has one. */
export function figure(name, hasLine = false) {
  const value = h('dd', {});
  const line = hasLine ? sparkline() : null;
  const element = h('div', { class: 'figure' }, h('dt', {}, name), value, line && h('dd', { class: 'drawn', 'aria-hidden': 'true' }, line.element));
  const update = (text, figures) => {
    say(value, text);
    line?.update(figures);
  };
  return { element, update };
}

/** Lag, age, rate and latency. */
export function mainFigures() {
  const [lag, age, pace, wait] = [figure('Lag', true), figure('Age', true), figure('Rate', true), figure('Latency')];
  const slow = h('small', {});
  wait.element.append(h('dd', { class: 'drawn' }, slow));
  const element = h('dl', { class: 'figures' }, lag.element, age.element, pace.element, wait.element);
  const update = ({ status, figures, history }) => {
    lag.update(count(status.lag), history.map((sample) => sample.lag));
    age.update(duration(figures.age), history.map((sample) => sample.age));
    pace.update(rate(status.rate), history.map((sample) => sample.rate));
    wait.update(latency(figures.median));
    say(slow, figures.slow === null ? 'nothing came' : `99 %: ${latency(figures.slow)}`);
  };
  return { element, update };
}
