// Where the page begins: what is shown, and what is told of the worker.

import { connectorView } from './connector.js';
import { announce, fill, say, show } from './dom.js';
import { overview } from './overview.js';
import { Polls } from './polls.js';
import { forgetToken, token } from './rest.js';
import { showTokenForm } from './token.js';
import { judge } from './verdict.js';
import { clock } from './words.js';

const byId = (id) => document.getElementById(id);
const main = byId('main');
const CONNECTOR = /^#\/connectors\/(.+)$/;

function nameOf(hash) {
  const name = CONNECTOR.exec(hash)?.[1] ?? '';
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

let known = null;
let shown = null;
let isAsking = false;

function route() {
  const name = nameOf(location.hash);
  shown?.leave?.();
  shown = name ? connectorView(main, name, () => polls.now()) : overview(main);
  if (known) shown.update(known);
}

/** Tells what changed for better or worse since the last look. */
function announceChanges(before, now) {
  for (const [name, connector] of now.connectors) {
    const earlier = before.connectors.get(name);
    if (!earlier) continue;
    const [was, is] = [judge(earlier), judge(connector)];
    if (was.tone !== is.tone && (is.tone === 'bad' || is.tone === 'watch' || was.tone === 'bad')) announce(`${name}: ${is.title}`);
  }
}

/** Tells of a config that the worker refused; text stays as it is while it says the same, so that it is read out once. */
function tellOfConfig({ error, loaded, missing }) {
  const refused = error ? `The config is wrong, and the one of ${loaded} stays in use. ${error}` : '';
  const kept = missing.length > 0 ? `Missing in the config's files, and running on until SIGHUP: ${missing.join(', ')}.` : '';
  say(byId('config'), [refused, kept].filter(Boolean).join(' '));
  show(byId('config'), error || missing.length > 0);
}

function tell(view) {
  show(byId('lost'), false);
  tellOfConfig(view.worker.config);
  show(byId('forget'), token());
  const { foldline_version: version, kafka_cluster_id: cluster } = view.worker;
  say(byId('worker'), `${version}${cluster ? ` · log ${cluster}` : ''}`);
  say(byId('pulse'), `as of ${clock(view.at)}`);
  if (known) announceChanges(known, view);
  known = view;
  if (isAsking || !shown) { isAsking = false; route(); }
  shown.update(view);
}

function askForToken() {
  if (isAsking) return;
  shown?.leave?.();
  [isAsking, shown, known] = [true, null, null];
  say(byId('worker'), '');
  say(byId('pulse'), '');
  show(byId('forget'), false);
  show(byId('config'), false);
  document.title = 'Token – Foldline';
  showTokenForm(main, () => polls.now());
}

function fail(error) {
  if (error.status === 401) {
    forgetToken();
    askForToken();
    return;
  }
  const since = known ? ` What is shown is as of ${clock(known.at)}.` : '';
  fill(byId('lost'), `${error.message}${since} It is asked again and again.`);
  show(byId('lost'), true);
}

const polls = new Polls(tell, fail);

addEventListener('hashchange', () => {
  if (isAsking) return;
  route();
  scrollTo(0, 0);
  main.querySelector('h1')?.focus();
});
// The link would take the place of what the address names.
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
byId('forget').addEventListener('click', () => {
  forgetToken();
  polls.now();
});
polls.now();
