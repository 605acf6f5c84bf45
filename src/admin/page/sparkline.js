// A line of the last figures. It adorns a number that stands beside it, so a screen reader passes it by.

import { svg } from './dom.js';

const WIDTH = 120;
const HEIGHT = 28;
const MARGIN = 2;
/** Few figures fill a part only, from the right. */
const SLOTS_MIN = 30;

/** The stretches of points whose figures are known. */
function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (Number.isFinite(point.figure)) found.at(-1).push(point);
    else if (found.at(-1).length > 0) found.push([]);
  }
  return found.filter((run) => run.length > 1);
}

/** A sparkline; `update` takes the figures, oldest first. */
export function sparkline() {
  const area = svg('path', { class: 'area' });
  const line = svg('path', { class: 'line' });
  const box = `0 0 ${WIDTH} ${HEIGHT}`;
  const base = svg('path', { class: 'base', d: `M0 ${HEIGHT}H${WIDTH}` });
  const options = { class: 'sparkline', viewBox: box, preserveAspectRatio: 'none', 'aria-hidden': 'true' };
  const element = svg('svg', options, base, area, line);

  const update = (figures) => {
    const slots = Math.max(figures.length, SLOTS_MIN);
    const top = Math.max(...figures.filter(Number.isFinite), Number.MIN_VALUE);
    const place = (figure, at) => ({
      figure,
      x: ((WIDTH * (slots - figures.length + at)) / (slots - 1)).toFixed(1),
      y: (HEIGHT - MARGIN - (figure / top) * (HEIGHT - 2 * MARGIN)).toFixed(1),
    });
    const through = (run) => run.map(({ x, y }) => `${x} ${y}`).join('L');
    const drawn = runs(figures.map(place));
    line.setAttribute('d', drawn.map((run) => `M${through(run)}`).join(''));
    const shade = (run) => `M${run[0].x} ${HEIGHT}L${through(run)}L${run.at(-1).x} ${HEIGHT}Z`;
    area.setAttribute('d', drawn.map(shade).join(''));
  };
  return { element, update };
}
