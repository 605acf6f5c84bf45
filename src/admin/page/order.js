// What the worker is asked to do.

import { announce, fill, show } from './dom.js';
import { ask, of } from './rest.js';

/** Asks the worker to do something, says what it answered, and reads it again. */
export async function order(view, { method, path, done }) {
  try {
    const answer = await ask(of(view.name, path), method);
    announce(typeof done === 'function' ? done(answer) : done);
    show(view.refusal, false);
  } catch (error) {
    fill(view.refusal, `The worker refused: ${error.message}`);
    show(view.refusal, true);
  }
  await view.refresh();
}
