const NEAR = 80; // pixels from the end that still count as being there

/** Go to the page's end. */
export function toEnd() {
  const page = document.scrollingElement;
  page.scrollTop = page.scrollHeight;
}

/** Change the page; who was at its end stays there, who reads further up is left alone. */
export function following(change) {
  const page = document.scrollingElement;
  const wasAtEnd = page.scrollHeight - page.scrollTop - page.clientHeight < NEAR;
  change();
  if (wasAtEnd) toEnd();
}
