// What is wrong with a connector, in plain words, and what to do next.

import { count, duration, many, percent, rate as pace } from './words.js';

/** What stands in the way of a task that does not move: what it waits for, and where to look. */
const WAITS = {
  end: ['It is ending, and what is in flight ends first.', 'Wait a moment.'],
  contention: ['Another writer of the same rows has its turn.', 'See who else writes the table.'],
  acquire: ['It takes its partitions over in the store.', 'If this lasts, look at the store.'],
  rebalance: ['Partitions are being given to another worker.', 'If this lasts, look at the members of its group.'],
  group: ['Kafka has not yet taken its first offsets; nothing is written before.', 'Look at the brokers and at the ACLs of its group.'],
  topics: ['Kafka has not yet said that the topics are still the same.', 'Look at the brokers.'],
  request: ['A retry or a drop of parked events waits for what is in flight.', 'Wait a moment.'],
  parked_limit: ['As many events are parked as may be.', 'Decide what becomes of its parked keys, then resume it.'],
  load: ['It reads rows from the store, which has not answered.', 'Look at the load of the store.'],
  memory: ['Rows that wait to be written fill its memory.', 'Look at the load of the store, or raise worker.memory.'],
  write: ['The store has not answered a write.', 'Look at the load of the store and at locks on the table.'],
  log: ['The log cannot be read.', 'Look at the brokers.'],
};

const verdict = (tone, title, { cause = null, next = null, action = null } = {}) => ({ tone, title, cause, next, action });
function waiting(lag) {
  if (lag === null) return 'How many events wait is unknown.';
  if (lag === 0) return 'No event waits.';
  return `${many(lag, 'event')} ${lag === 1 ? 'waits' : 'wait'}.`;
}

const troubleOf = (tasks) => tasks.find((task) => task.trace)?.trace;

const OF_STATE = {
  FAILED: (cause) => verdict('bad', 'It has failed, and waiting does not cure it', {
    cause, next: 'Mend what the message names, then restart the connector.', action: 'restart',
  }),
  PAUSED: (cause, { lag }) => verdict('watch', `It is paused. ${waiting(lag)}`, {
    cause, next: 'Resume it when what it was paused for is done.', action: 'resume',
  }),
  STOPPED: (cause, { lag }) => verdict('watch', `It is stopped, and has left its group. ${waiting(lag)}`, {
    cause, next: 'Resume it to fold again.', action: 'resume',
  }),
  RESTARTING: (cause) => verdict(cause ? 'bad' : 'busy', cause ? 'It tries again to start' : 'It starts', {
    cause, next: cause ? 'Mend what the message names. It tries again by itself.' : null,
  }),
  UNASSIGNED: (cause, { tasks }) => {
    const trouble = troubleOf(tasks);
    if (tasks.length === 0) return verdict('watch', cause ? 'It waits' : 'It has not started yet', { cause, next: cause && 'It goes on by itself once that is so.' });
    return verdict(trouble ? 'bad' : 'watch', 'No partition is assigned to this worker', {
      cause: trouble ?? cause, next: 'It begins by itself once it is given one. If this lasts, look at its group and its topics.',
    });
  },
};

function ofRunning(status, figures) {
  const { lag, blocked_by: blocked, tasks, rebuild, parked_keys: parked, connector, bad_records: bad } = status;
  const trouble = connector.trace ?? troubleOf(tasks);
  const [wait, look] = WAITS[blocked] ?? [];
  if (trouble) {
    return verdict('bad', wait ?? 'It tries again what failed', { cause: trouble, next: look ?? 'It goes on by itself once the cause is gone.' });
  }
  if (wait) return verdict('watch', wait, { next: look });
  if (rebuild?.trouble) return verdict('bad', 'Its rebuild tries again what failed', { cause: rebuild.trouble, next: 'The live rows are not touched. The rebuild goes on by itself once the cause is gone.' });
  if (rebuild) return verdict('busy', `Generation ${rebuild.generation} is being built: ${percent(rebuild.progress)}`, { next: rebuild.waiting ? `It waits: ${rebuild.waiting}` : null });
  if (status.expiry?.paused) return verdict('bad', 'No row expires', { cause: status.expiry.paused, next: 'Set the clock right that is wrong; if none is, let it go on by the command.' });
  if (bad?.all) return verdict('bad', `Every record is bad: the last ${count(bad.in_a_row)} are`, { cause: bad.last.reason, next: 'Correct the projection or the source\'s converters, then rebuild; or correct the producer.' });
  if (parked > 0) return verdict('watch', `${many(parked, 'key')} set aside`, { next: 'Look at its parked keys, mend the cause, then retry them.' });
  if (bad?.rate > 0) return verdict('watch', `Bad records come: ${pace(bad.rate)}`, { cause: bad.last?.reason, next: 'Look at the last one, and correct the producer or the projection.' });
  if (lag === null) return verdict('busy', 'How far behind it is, is not known yet', { next: 'If this lasts, see that its topics exist.' });
  if (lag > 0) return verdict('busy', `${count(lag)} to go${figures.age ? `, ${duration(figures.age)} behind` : ''}`);
  return verdict('good', 'Up to date');
}

/** The verdict over a connector: a tone (`good`, `busy`, `watch` or `bad`), a title, the worker's own message, the next
 *  step, and an action that takes it. */
export function judge({ status, figures }) {
  const { state, trace = null } = status.connector;
  return (OF_STATE[state] ?? (() => ofRunning(status, figures)))(trace, status);
}

const RANK = { bad: 0, watch: 1, busy: 2, good: 3 };

/** What needs a person first. */
export const byUrgency = (a, b) => RANK[a.verdict.tone] - RANK[b.verdict.tone] || a.name.localeCompare(b.name);

/** All connectors in one sentence. */
export function headline(connectors) {
  const counted = (tone) => connectors.filter((connector) => connector.verdict.tone === tone).length;
  const [bad, watch, busy] = ['bad', 'watch', 'busy'].map(counted);
  const all = connectors.length;
  if (bad > 0) return `${bad} of ${many(all, 'connector')} ${bad === 1 ? 'needs' : 'need'} you`;
  if (watch > 0) return `${watch} of ${many(all, 'connector')} ${watch === 1 ? 'waits' : 'wait'} for a decision`;
  if (busy > 0) return `${busy} of ${many(all, 'connector')} ${busy === 1 ? 'is' : 'are'} catching up`;
  return all === 1 ? 'The connector is up to date' : `All ${all} connectors are up to date`;
}
