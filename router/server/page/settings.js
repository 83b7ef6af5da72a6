// How an answer is to be made; what is left empty is not sent, and the server and its model decide.

const panel = document.getElementById("settings");
const said = document.getElementById("settings-said");
const backend = document.getElementById("backend");
const system = document.getElementById("system");
const numbers = ["temperature", "max_tokens", "seed"].map((id) => document.getElementById(id));

/** `{backend, system, sampling}`; null: a field is wrong, and is shown. */
export function settings() {
  const wrong = numbers.find((field) => !field.checkValidity());
  if (wrong) {
    panel.open = true;
    wrong.reportValidity();
    return null;
  }
  const given = numbers.filter((field) => field.value !== "");
  const sampling = Object.fromEntries(given.map((field) => [field.id, field.valueAsNumber]));
  return { backend: backend.value, system: system.value.trim(), sampling };
}

/** Let the backends of the server be chosen. */
export function offer(names) {
  const chosen = backend.value;
  backend.replaceChildren(...["", ...names].map((name) => new Option(name || "auto", name)));
  backend.value = names.includes(chosen) ? chosen : "";
  tell();
}

function tell() {
  const [temperature, most, seed] = numbers.map((field) => field.value);
  said.textContent = [
    `backend ${backend.value || "auto"}`,
    temperature && `temperature ${temperature}`,
    most && `at most ${most} tokens`,
    seed && `seed ${seed}`,
    system.value.trim() && "a system prompt",
  ].filter(Boolean).join(", ");
}

panel.addEventListener("input", tell);
tell();
