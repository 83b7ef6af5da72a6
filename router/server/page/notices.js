// What the page says beside the conversation.

const notice = document.getElementById("notice");
const said = document.getElementById("said");

let silence = 0; // the timer after which nothing is said any more

/** Show a problem above the question, until the next; none hides it. */
export function warn(words = "") {
  notice.textContent = words;
  notice.hidden = words === "";
}

/** Tell those who listen to the page, once. */
export function say(words) {
  clearTimeout(silence);
  said.textContent = words;
  // by then it was spoken; whoever reads the page line by line is not to meet it again
  silence = setTimeout(() => (said.textContent = ""), 5000);
}
