/**
 * Show `text` in `element`, newlines kept; `code`, **bold** and fenced blocks are all that is read as markup.
 * Whatever the text holds becomes text of elements made here, never markup of its own.
 * Paragraphs that did not change since the last call stay, and with them what a reader has selected.
 */
export function show(element, text) {
  const wanted = blocks(text);
  wanted.forEach((block, at) => {
    const there = element.children[at];
    if (there?.source === block.source) return;
    const made = block.code === undefined ? paragraph(block.source) : codeBlock(block);
    made.source = block.source;
    there ? there.replaceWith(made) : element.append(made);
  });
  while (element.children.length > wanted.length) element.lastElementChild.remove();
}

/** Paragraphs, and blocks of code between lines of three backticks; the last may lack its end. */
function blocks(text) {
  const found = [];
  text.split(/^```/m).forEach((source, at) => {
    if (at % 2 === 1) {
      const [language, ...lines] = source.split("\n");
      found.push({ source: "```" + source, language: language.trim(), code: lines.join("\n") });
    } else {
      const prose = at === 0 ? source : source.replace(/^\n+/, ""); // the block has room around it
      found.push(...prose.split("\n\n").filter((part) => part.trim() !== "").map((part) => ({ source: part })));
    }
  });
  return found;
}

function paragraph(source) {
  const made = document.createElement("p");
  let end = 0;
  for (const found of source.matchAll(/`([^`\n]+)`|\*\*(?=\S)([^*\n]+)\*\*/g)) {
    made.append(source.slice(end, found.index), marked(found));
    end = found.index + found[0].length;
  }
  made.append(source.slice(end).trimEnd());
  return made;
}

function marked([, code, bold]) {
  const made = document.createElement(code === undefined ? "strong" : "code");
  made.textContent = code ?? bold;
  return made;
}

function codeBlock({ language, code }) {
  const made = document.createElement("pre");
  const inner = document.createElement("code");
  inner.textContent = code.trimEnd();
  made.tabIndex = 0; // long lines are scrolled by keyboard too
  made.setAttribute("role", "region");
  made.setAttribute("aria-label", language ? `${language} code` : "code");
  made.append(inner);
  return made;
}
