// Prometheus' text form, as far as the page needs it.

const SERIES = /^foldline_(\w+)\{(.*)\} (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const NUMBERS = { '+Inf': Infinity, '-Inf': -Infinity, NaN };

const labelsOf = (text) => Object.fromEntries(Array.from(text.matchAll(LABEL), ([, name, value]) => [name, value]));
const numberOf = (text) => NUMBERS[text] ?? Number(text);

/** By connector: plain series by name, and the latency's cumulative buckets as [bound, count]. */
export function parseMetrics(text) {
  const connectors = new Map();
  for (const line of text.split('\n')) {
    const found = SERIES.exec(line);
    if (!found) continue;
    const [, name, labelText, value] = found;
    const { connector, le, ...others } = labelsOf(labelText);
    if (connector === undefined) continue;
    if (!connectors.has(connector)) connectors.set(connector, { series: {}, latency: [] });
    const one = connectors.get(connector);
    if (name === 'end_to_end_latency_seconds_bucket') one.latency.push([numberOf(le), numberOf(value)]);
    else if (Object.keys(others).length === 0) one.series[name] = numberOf(value);
  }
  return connectors;
}

/** The upper bound below which a share of what came between two readings of a histogram lies; null where nothing came. */
export function quantile(share, before, now) {
  const earlier = new Map(before);
  const grown = now.map(([bound, count]) => [bound, count - (earlier.get(bound) ?? 0)]);
  const all = grown.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  return grown.find(([, count]) => count >= share * all)[0];
}
