import { events } from "./events.js";
import { askForKey, key } from "./key.js";

/** Why there is no answer, in words; `param` is the place in the request that is at fault. */
export class ServerError extends Error {
  constructor(words, param = null) {
    super(words);
    this.param = param;
  }
}

/** The model that is served, or null while it is being loaded. */
export async function servedModel() {
  const response = await call("/v1/models");
  if (response.status === 503) return null;
  if (!response.ok) throw await refusal(response);
  return (await response.json()).data[0];
}

/**
 * The parts of an answer: first `{backend, reason}`, then `{text}` as it comes, at its end `{finish, timings}`
 * and `{usage}`. Throws ServerError, or what `signal` was aborted with.
 */
export async function* answer(request, backend, signal) {
  const headers = { "content-type": "application/json", ...(backend && { "x-hybrid-backend": backend }) };
  const body = JSON.stringify(request);
  const response = await call("/v1/chat/completions", { method: "POST", headers, body, signal });
  if (!response.ok) throw await refusal(response);
  yield { backend: response.headers.get("x-hybrid-backend"), reason: response.headers.get("x-hybrid-route-reason") };
  yield* parts(response.body, signal);
}

async function* parts(stream, signal) {
  try {
    for await (const data of events(stream)) {
      if (data === "[DONE]") return;
      yield part(JSON.parse(data));
    }
  } catch (error) {
    if (signal.aborted || error instanceof ServerError) throw error;
  }
  throw new ServerError("the connection to the server ended before the answer did");
}

function part(chunk) {
  if (chunk.error) throw new ServerError(chunk.error.message, chunk.error.param);
  const [choice] = chunk.choices;
  const { timings, usage } = chunk;
  return { text: choice?.delta.content ?? "", finish: choice?.finish_reason ?? null, timings, usage };
}

/** The response to a request, sent again with each key that is given until one is accepted. */
async function call(path, options = {}) {
  for (;;) {
    const sent = key();
    const headers = { ...options.headers, ...(sent && { authorization: `Bearer ${sent}` }) };
    const response = await reach(path, { cache: "no-store", ...options, headers });
    if (response.status !== 401) return response;
    if (!(await askForKey(sent))) throw await refusal(response);
  }
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    const size = (options.body?.length ?? 0) / 2 ** 20;
    // a server that refuses a large body may close before all of it was sent
    const why = size > 8 ? `, or it does not take ${Math.round(size)} MiB of images and text` : "";
    throw new ServerError(`the server cannot be reached${why}`);
  }
}

async function refusal(response) {
  const wait = response.headers.get("retry-after");
  const later = wait ? ` (in about ${wait} s)` : "";
  try {
    const { error } = await response.json();
    return new ServerError(error.message + later, error.param);
  } catch {
    return new ServerError(`the server answered with status ${response.status}${later}`);
  }
}
