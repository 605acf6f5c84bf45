// A question before what cannot be taken back.

import { h } from './dom.js';

/** Asks, with `choices` as [value, label, hint] where there are several ways; gives the chosen value, or null. */
export function confirm({ title, text, yes, danger = false, choices = [] }) {
  const opener = document.activeElement;
  const options = choices.map(([value, label, hint], at) => h('label', { class: 'choice' },
    h('input', { type: 'radio', name: 'choice', value, checked: at === 0 }),
    h('span', {}, h('strong', {}, label), h('small', {}, hint))));
  const form = h('form', { method: 'dialog' },
    h('h2', { id: 'question' }, title),
    h('p', {}, text),
    options.length > 0 && h('fieldset', {}, h('legend', { class: 'hidden' }, 'Which way'), options),
    h('div', { class: 'buttons' },
      h('button', { type: 'submit', value: 'no' }, 'Cancel'),
      h('button', { type: 'submit', value: 'yes', class: danger ? 'danger' : 'primary' }, yes)));
  const dialog = h('dialog', { 'aria-labelledby': 'question' }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      const chosen = new FormData(form).get('choice') ?? 'yes';
      dialog.remove();
      opener?.focus();
      resolve(dialog.returnValue === 'yes' ? chosen : null);
    });
  });
}
