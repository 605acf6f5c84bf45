// The worker's token: asked for where the worker wants one, and kept for as long as the tab is open.

import { fill, h } from './dom.js';
import { ask, forgetToken, keepToken } from './rest.js';

/** Asks for the token, and tells `accepted` when the worker took it. */
export function showTokenForm(main, accepted) {
  const refusal = h('p', { class: 'refusal', role: 'alert', id: 'refusal' });
  const input = h('input', {
    id: 'token', type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, 'aria-describedby': 'token-hint refusal',
  });
  const enter = async (event) => {
    event.preventDefault();
    keepToken(input.value.trim());
    try {
      await ask('/');
      accepted();
    } catch (error) {
      forgetToken();
      fill(refusal, error.status === 401 ? 'The worker does not take this token.' : error.message);
      input.setAttribute('aria-invalid', 'true');
      input.select();
    }
  };
  fill(main, h('form', { class: 'token panel', submit: enter },
    h('h1', { tabindex: '-1' }, 'This worker wants its token'),
    h('label', { for: 'token' }, 'Token'),
    input,
    h('p', { class: 'hint', id: 'token-hint' }, 'It is the config’s worker.token. This tab keeps it until it is closed.'),
    refusal,
    h('button', { type: 'submit', class: 'primary' }, 'Continue')));
  input.focus();
}
