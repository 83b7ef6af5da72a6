// The official client of Node. The checks are those of checks.py.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// the package lies in the folder that the runner installed it into, not beside this file
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const { default: OpenAI } = await import(pathToFileURL(require.resolve("openai")).href);

const model = "scenes";
const colours = ["red", "green", "blue", "yellow"];
const image = readFileSync(process.env.IMAGE);
const colour = { enum: colours };
const schema = {
  type: "object",
  properties: { first: colour, second: colour },
  required: ["first", "second"],
  additionalProperties: false,
};
const endless = { max_tokens: 3000, logit_bias: { 1010: -100, 1012: -100 } };

const chat = (fields, key) =>
  new OpenAI(key ? { apiKey: key } : {}).chat.completions.create({ model, ...fields });
const text = [{ role: "user", content: "What can you do?" }];
const imaged = (data) => {
  const url = `data:image/png;base64,${data.toString("base64")}`;
  const parts = [{ type: "text", text: "Which colours do you see?" }, { type: "image_url", image_url: { url } }];
  return [{ role: "user", content: parts }];
};

async function figure(name, label = "") {
  const address = process.env.OPENAI_BASE_URL.replace(/\/v1$/, "/metrics");
  const headers = { authorization: `Bearer ${process.env.OPENAI_API_KEY}` };
  const lines = (await (await fetch(address, { headers })).text()).split("\n");
  const found = lines.filter((line) => line.startsWith(`hybrid_${name}{`) && line.includes(label));
  return found.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

const aborted = () => figure("requests_total", 'finish_reason="abort"');

const checks = {
  async text() {
    const done = await chat({ messages: text });
    assert.match(done.choices[0].message.content, /\.$/);
  },
  async image() {
    const said = (await chat({ messages: imaged(image) })).choices[0].message.content;
    for (const name of colours) assert.ok(said.includes(name), said);
  },
  async stream() {
    const chunks = [];
    const stream = await chat({ messages: text, stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) chunks.push(chunk);
    const pieces = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "");
    assert.equal(pieces.join(""), (await chat({ messages: text })).choices[0].message.content);
    assert.ok(chunks.at(-1).usage.prompt_tokens > 3);
    assert.ok(chunks.at(-1).usage.completion_tokens > 3);
  },
  async structured() {
    const form = { type: "json_schema", json_schema: { name: "seen", strict: true, schema } };
    const asked = { model, messages: imaged(image), response_format: form };
    const found = (await new OpenAI().chat.completions.parse(asked)).choices[0].message.parsed;
    assert.deepEqual(Object.keys(found), ["first", "second"]);
    for (const value of Object.values(found)) assert.ok(colours.includes(value), value);
  },
  unknown_model: () => assert.rejects(chat({ messages: text, model: "no-such-model" }), OpenAI.NotFoundError),
  bad_image() {
    const bad = Buffer.concat([image.subarray(0, 20), Buffer.from("not an image")]);
    return assert.rejects(chat({ messages: imaged(bad) }), OpenAI.BadRequestError);
  },
  wrong_key: () => assert.rejects(chat({ messages: text }, "wrong"), OpenAI.AuthenticationError),
  async cancel() {
    const before = await aborted();
    let seen = 0;
    for await (const chunk of await chat({ messages: text, stream: true, ...endless })) {
      if (chunk && ++seen === 5) break;
    }
    const since = performance.now();
    while ((await figure("requests_running")) || (await aborted()) !== before + 1) {
      assert.ok(performance.now() - since < 1000, "it went on for a second");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },
};

for (const [name, check] of Object.entries(checks)) {
  let said = "pass";
  try {
    await check();
  } catch (error) {
    said = `${error.constructor.name}: ${error.message}`.replace(/\s+/g, " ");
  }
  console.log(`${name}\t${said}`);
}
