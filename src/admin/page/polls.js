// What the page knows: read from the worker again and again, with the figures of the last minutes.

import { parseMetrics, quantile } from './metrics.js';
import { ask, askText } from './rest.js';

const EVERY_MS = 2_000;
/** Samples that are kept: four minutes. */
const SAMPLES = 120;
/** Latencies are of the last minute. */
const LATENCY_SAMPLES = 30;

const known = (number) => (Number.isFinite(number) ? number : null);

/** Reads the worker for `tell(view)`; `fail(error)` where it does not answer. */
export class Polls {
  #histories = new Map();
  #tell;
  #fail;
  #timer = null;
  #round = 0;

  constructor(tell, fail) {
    this.#tell = tell;
    this.#fail = fail;
    document.addEventListener('visibilitychange', () => { if (!document.hidden) this.now(); });
  }

  /** Reads at once, and then again and again. */
  async now() {
    clearTimeout(this.#timer);
    const round = ++this.#round;
    let view = null;
    let failure = null;
    try {
      view = await this.#read();
    } catch (error) {
      failure = error;
    }
    // Somebody has asked again meanwhile.
    if (round !== this.#round) return;
    if (failure) this.#fail(failure);
    else this.#tell(view);
    const wantsToken = failure?.status === 401;
    if (!document.hidden && !wantsToken) this.#timer = setTimeout(() => this.now(), EVERY_MS);
  }

  async #read() {
    const [worker, all, text] = await Promise.all([ask('/'), ask('/connectors?expand=status&expand=info'), askText('/metrics')]);
    const metrics = parseMetrics(text);
    const connectors = new Map();
    for (const [name, { status, info }] of Object.entries(all)) {
      connectors.set(name, this.#connector(name, status, info, metrics.get(name)));
    }
    return { worker, connectors, at: new Date() };
  }

  #connector(name, status, info, metrics = { series: {}, latency: [] }) {
    const { series, latency } = metrics;
    const history = this.#histories.get(name) ?? [];
    const before = history.at(-1);
    // A worker that began anew counts from 0.
    if (before && before.consumed > (series.records_consumed_total ?? 0)) history.length = 0;
    const age = known(series.consumer_lag_seconds);
    history.push({ lag: status.lag, age, rate: status.rate, consumed: series.records_consumed_total ?? 0, latency });
    if (history.length > SAMPLES) history.shift();
    this.#histories.set(name, history);
    const earlier = history[Math.max(0, history.length - 1 - LATENCY_SAMPLES)].latency;
    const figures = {
      age,
      median: quantile(0.5, earlier, latency),
      slow: quantile(0.99, earlier, latency),
      inFlight: series.inflight_events ?? null,
      deadLetters: series.events_dead_lettered_total ?? 0,
      skipped: series.events_skipped_total ?? 0,
    };
    return { name, status, config: info.config, figures, history };
  }
}
