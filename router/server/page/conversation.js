/** What was asked and answered so far, as the server wants to be told of it. */
export class Conversation {
  #turns = [];

  /** The messages that ask `question` after all that was kept. */
  messages(question, system) {
    const before = this.#turns.flatMap(({ question, answer }) => [asked(question), said("assistant", answer)]);
    return [...(system ? [said("system", system)] : []), ...before, asked(question)];
  }

  /** Go on from this answer. */
  keep(question, answer) {
    this.#turns.push({ question, answer });
  }
}

/** The image of `question` that `param` names in `messages`, such as messages[2].content[0]; or null. */
export function imageAt(param, messages, question) {
  const found = /^messages\[(\d+)\]\.content\[(\d+)\]/.exec(param ?? "");
  return found && Number(found[1]) === messages.length - 1 ? (question.images[found[2]] ?? null) : null;
}

function asked({ text, images }) {
  if (images.length === 0) return said("user", text);
  const parts = images.map(({ address }) => ({ type: "image_url", image_url: { url: address } }));
  return said("user", text ? [...parts, { type: "text", text }] : parts);
}

function said(role, content) {
  return { role, content };
}
