// The API key: in this tab's memory of the browser, never in an address.

const NAME = "hybrid-key";
const dialog = document.getElementById("key");
const input = document.getElementById("key-value");
const problem = document.getElementById("key-problem");

let kept = null; // where the browser keeps nothing
let asking = null; // one dialog, however many requests wait for it

/** The key to send; null: none was needed yet. */
export function key() {
  try {
    return sessionStorage.getItem(NAME) ?? kept;
  } catch {
    return kept;
  }
}

/** Ask for a key in place of `refused`; whether there is another one now. */
export async function askForKey(refused) {
  if (key() !== refused) return true; // given since that request was sent
  asking ??= ask(refused !== null).finally(() => (asking = null));
  return asking;
}

function ask(wasRefused) {
  problem.hidden = !wasRefused;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "given"), { once: true });
  });
}

function keep(given) {
  kept = given;
  try {
    sessionStorage.setItem(NAME, given);
  } catch {
    // kept as long as the page is
  }
}

document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(input.value.trim());
  dialog.close("given");
});
document.getElementById("key-cancel").addEventListener("click", () => dialog.close());
