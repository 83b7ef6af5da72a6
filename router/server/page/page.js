// The page: a question goes out, its answer comes in, and the next question follows from both.

import { clear, isEmpty, offerSample, question, write } from "./composer.js";
import { Conversation, imageAt } from "./conversation.js";
import { toEnd } from "./following.js";
import { say, warn } from "./notices.js";
import { answer, servedModel } from "./server.js";
import { offer, settings } from "./settings.js";
import { Turn } from "./turn.js";

const [log, welcome, model, send, stop, key] = ["conversation", "welcome", "model", "send", "stop", "key"].map(
  (id) => document.getElementById(id),
);

let conversation = new Conversation();
let asking = null; // what stops the answer that is coming
let broken = null; // a turn that failed and whose question is being written again

async function ask() {
  if (asking) return warn("Wait for this answer, or stop it, before you ask on.");
  const how = settings();
  if (!how) return;
  asking = new AbortController();
  try {
    const asked = await question();
    if (asked) await answerTo(asked, how, asking.signal);
    else warn("Write a question or add an image first.");
  } finally {
    asking = null;
    offerStop(false);
  }
}

async function answerTo(asked, { backend, system, sampling }, signal) {
  const turn = begin(asked);
  const here = conversation;
  const messages = here.messages(asked, system);
  const request = { model: "auto", messages, stream: true, stream_options: { include_usage: true }, ...sampling };
  try {
    for await (const part of answer(request, backend, signal)) turn.take(part);
    turn.end();
    say(turn.text);
    here.keep(asked, turn.text);
  } catch (error) {
    if (signal.aborted) stopped(turn, asked, here);
    else failed(turn, asked, error, imageAt(error.param, messages, asked));
  }
}

function begin(asked) {
  broken?.element.remove();
  broken = null;
  clear();
  welcome.hidden = true;
  const turn = new Turn(asked);
  log.append(turn.element);
  toEnd();
  offerStop(true);
  say("Waiting for the answer.");
  return turn;
}

function stopped(turn, asked, here) {
  turn.stop();
  say("Stopped.");
  if (turn.text !== "") here.keep(asked, turn.text);
  else askAgain(turn, asked);
}

function failed(turn, asked, error, image) {
  turn.fail(`${image ? `${image.name}: ` : "No answer: "}${error.message}.`);
  askAgain(turn, asked, image);
}

/** The question of a turn that came to nothing is there to be changed; the turn goes with the next one. */
function askAgain(turn, asked, refused = null) {
  // a new chat has begun, or another question
  if (!turn.element.isConnected || !isEmpty()) return;
  write(asked, refused);
  broken = turn;
}

function startAnew() {
  asking?.abort();
  conversation = new Conversation();
  broken = null;
  log.replaceChildren();
  welcome.hidden = false;
  clear();
  document.getElementById("question").focus();
}

/** The one button takes the other's place, and its focus. */
function offerStop(isComing) {
  const [shown, hidden] = isComing ? [stop, send] : [send, stop];
  const hadFocus = document.activeElement === hidden;
  shown.hidden = false;
  hidden.hidden = true;
  if (hadFocus) shown.focus();
}

async function greet() {
  try {
    const served = await servedModel();
    model.textContent = served ? served.id : "The model is being loaded …";
    if (served) offer(served.meta.backends);
    else setTimeout(greet, 1000);
  } catch (error) {
    model.textContent = error.message;
  }
}

document.getElementById("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
stop.addEventListener("click", (event) => {
  // the second click of two on Send is not meant for Stop
  if (event.detail < 2) asking?.abort();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !key.open) asking?.abort();
});
document.getElementById("new-chat").addEventListener("click", startAnew);
for (const button of document.querySelectorAll("#samples button")) {
  button.addEventListener("click", () => offerSample(button));
}
greet();
