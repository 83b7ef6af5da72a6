import { following } from "./following.js";
import { show } from "./text.js";
import { imageElement } from "./tray.js";

/** A question and its answer on the page; the answer is busy until it is ended in one of three ways. */
export class Turn {
  text = "";
  #answer = make("div", "answer");
  #shown = make("div", "text");
  #facts = make("p", "facts");
  #told = {}; // what the server said beside the text
  #frame = null;
  #since = performance.now();
  #clock = setInterval(() => this.#wait(), 1000);

  constructor({ text, images }) {
    const asked = make("div", "question");
    asked.append(make("h2", "unseen", "You asked"));
    if (images.length > 0) asked.append(make("div", "images"));
    asked.lastChild.append(...images.map(imageElement));
    if (text) asked.append(make("p", "", text));
    this.#answer.append(make("h2", "unseen", "The answer"), this.#shown, this.#facts);
    this.#answer.setAttribute("aria-busy", "true");
    this.element = make("article", "turn");
    this.element.append(asked, this.#answer);
    this.#wait();
  }

  /** A part of the answer, as it comes from the server. */
  take({ text = "", ...told }) {
    for (const [name, value] of Object.entries(told)) this.#told[name] = value ?? this.#told[name];
    this.text += text;
    if (this.text === "") this.#wait();
    // painted as often as the screen is, however many tokens come
    else this.#frame ??= requestAnimationFrame(() => this.#paint());
  }

  /** The answer is whole. */
  end() {
    const { timings, usage, finish } = this.#told;
    const cut = finish === "length" && "cut off at the most tokens allowed";
    this.#close(...(usage && timings ? figures(usage, timings) : []), cut);
    if (this.text === "") this.#shown.append(make("p", "nothing", "The answer has no text."));
  }

  /** It was stopped by whoever asked. */
  stop() {
    this.#close("stopped");
  }

  /** It failed, and why. */
  fail(words) {
    this.#close();
    const problem = make("p", "problem", words);
    problem.setAttribute("role", "alert");
    following(() => this.#facts.before(problem));
  }

  #close(...facts) {
    clearInterval(this.#clock);
    cancelAnimationFrame(this.#frame);
    this.#paint();
    const { backend, reason } = this.#told;
    following(() => {
      this.#facts.replaceChildren(...(backend ? [make("strong", "", backend), " ", reason] : []));
      this.#facts.append(line(facts.filter(Boolean)));
      this.#facts.removeAttribute("aria-hidden");
      this.#answer.setAttribute("aria-busy", "false");
    });
  }

  #paint() {
    this.#frame = null;
    if (this.text === "") return;
    clearInterval(this.#clock);
    following(() => {
      show(this.#shown, this.text);
      this.#facts.textContent = "";
    });
  }

  #wait() {
    const seconds = Math.floor((performance.now() - this.#since) / 1000);
    const { backend } = this.#told;
    const doing = backend ? `${backend} is reading` : "Waiting";
    this.#facts.textContent = seconds < 1 ? `${doing} …` : `${doing} … ${seconds} s`;
    this.#facts.setAttribute("aria-hidden", "true"); // it changes each second
  }
}

function figures(usage, timings) {
  const cached = usage.prompt_tokens_details?.cached_tokens;
  const before = cached ? ` (${cached} read before)` : "";
  const speed = timings.predicted_per_second;
  return [
    `${usage.prompt_tokens} tokens in${before}`,
    `${usage.completion_tokens} out`,
    `first after ${(timings.prompt_ms / 1000).toFixed(2)} s`,
    speed > 0 && `${speed.toFixed(speed < 100 ? 1 : 0)} tokens/s`,
  ];
}

/** Facts in a line of their own, none of which is broken in two. */
function line(facts) {
  const made = make("span", "line");
  for (const fact of facts) made.append(made.hasChildNodes() ? " · " : " ", make("span", "", fact));
  return made;
}

function make(kind, name, text = "") {
  const made = document.createElement(kind);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}
