// The question that is being written: its text, and images from wherever they come.

import { say, warn } from "./notices.js";
import { Tray } from "./tray.js";

const form = document.getElementById("composer");
const field = document.getElementById("question");
const choose = document.getElementById("choose");
const tray = new Tray(document.getElementById("tray"), (found, problems) => {
  warn(problems);
  if (found.length > 0) say(`Added ${found.map(({ name }) => name).join(", ")}.`);
});

/** `{text, images}`; null: there is nothing to ask. */
export async function question() {
  const images = await tray.whole();
  const text = field.value.trimEnd();
  return text === "" && images.length === 0 ? null : { text, images };
}

/** Write this in place of what is there; `refused` is the image that is at fault. */
export function write({ text, images }, refused = null) {
  field.value = text;
  tray.put(images, refused);
}

/** Start anew. */
export function clear() {
  write({ text: "", images: [] });
  warn();
}

/** Whether nothing was written yet. */
export function isEmpty() {
  return field.value === "" && tray.images.length === 0;
}

/** Offer an image of the server's with a question that fits it. */
export async function offerSample(button) {
  const { src } = button.querySelector("img");
  const data = await (await fetch(src)).blob();
  await tray.add([new File([data], src.split("/").pop(), { type: data.type })]);
  if (field.value === "") field.value = button.dataset.question;
  field.focus();
}

field.addEventListener("keydown", (event) => {
  // an Enter that ends the composition of a character sends nothing
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

choose.addEventListener("change", async () => {
  await tray.add(choose.files);
  choose.value = ""; // the same file may be chosen again
  field.focus();
});

document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length === 0) return;
  event.preventDefault();
  tray.add(event.clipboardData.files);
});

const holdsFiles = (event) => event.dataTransfer.types.includes("Files");
const show = (isOver) => document.body.classList.toggle("dropping", isOver);

document.addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault(); // the browser would open the file in place of this page
  event.dataTransfer.dropEffect = "copy";
  show(true);
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) show(false); // out of the window, not from one element to the next
});
document.addEventListener("drop", (event) => {
  show(false);
  if (!holdsFiles(event)) return;
  event.preventDefault();
  tray.add(event.dataTransfer.files);
  field.focus();
});
