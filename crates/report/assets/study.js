'use strict';

const study = document.getElementById('study');
const parts = ['intro', 'asking', 'end'].map((id) => document.getElementById(id));
const [intro, asking, end] = parts;
const questions = [...document.querySelectorAll('.question')];
const photos = [...document.querySelectorAll('.photo')];
const progress = document.querySelector('progress');
const memory = `study-${study.dataset.study}`;

// What has been answered so far, kept by the browser where it allows that.
let state = remembered() ?? begin();
let at = 0;
let since = 0;

function begin() {
  const random = crypto.getRandomValues(new Uint32Array(4));
  const session = [...random].map((number) => number.toString(16).padStart(8, '0')).join('');
  return { session, answers: [] };
}

function remembered() {
  try { return JSON.parse(localStorage.getItem(memory)); } catch { return null; }
}

function remember() {
  try { localStorage.setItem(memory, JSON.stringify(state)); } catch { /* Then only the file keeps them. */ }
}

function show(part) {
  for (const other of parts) other.hidden = other !== part;
}

// The first question without an answer, or the end.
function next() {
  const open = questions.findIndex((_, i) => !state.answers.some((answer) => answer.question === i));
  if (open < 0) show(end); else ask(open);
}

function ask(question) {
  at = question;
  since = performance.now();
  show(asking);
  questions.forEach((other, i) => { other.hidden = i !== at; });
  photos.forEach((photo, i) => { photo.hidden = i !== Number(questions[at].dataset.photo); });
  const given = state.answers.find((answer) => answer.question === at)?.choice;
  for (const button of questions[at].querySelectorAll('button')) {
    button.setAttribute('aria-pressed', String(button.dataset.choice === given));
  }
  document.getElementById('prompt').textContent = `“${questions[at].dataset.prompt}”`;
  document.getElementById('count').textContent = `${at + 1} of ${questions.length}`;
  document.getElementById('back').disabled = at === 0;
  progress.value = at;
}

function choose(choice) {
  const seconds = Math.round((performance.now() - since) / 100) / 10;
  state.answers = state.answers.filter((answer) => answer.question !== at);
  state.answers.push({ question: at, choice, seconds });
  state.answers.sort((a, b) => a.question - b.question);
  remember();
  if (at + 1 < questions.length) ask(at + 1); else next();
}

function save() {
  const file = {
    study: study.dataset.study, session: state.session, saved: new Date().toISOString(),
    sealed: study.dataset.sealed, answers: state.answers,
  };
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: 'application/json' }));
  link.download = `answers-${study.dataset.study}-${state.session.slice(0, 8)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  document.getElementById('saved').textContent = `Saved as ${link.download} among your downloads.`;
}

for (const button of document.querySelectorAll('[data-choice]')) {
  button.addEventListener('click', () => choose(button.dataset.choice));
}
document.getElementById('start').addEventListener('click', next);
document.getElementById('back').addEventListener('click', () => { if (at > 0) ask(at - 1); });
document.getElementById('save').addEventListener('click', save);
document.getElementById('again').addEventListener('click', () => {
  state = begin();
  remember();
  next();
});
document.addEventListener('keydown', (event) => {
  if (asking.hidden || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const choice = { ArrowLeft: 'left', 1: 'left', ArrowRight: 'right', 2: 'right' }[event.key];
  if (choice) choose(choice); else if (event.key === 'Backspace' && at > 0) ask(at - 1); else return;
  event.preventDefault();
});

if (state.answers.length > 0) next();
