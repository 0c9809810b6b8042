// The official OpenAI package against a served model. Usage: node openai_client.mjs BASE_URL; prints "ok".
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}v1`, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const model = "tiny";
const messages = [{ role: "system", content: "Be brief." }, { role: "user", content: "What is 7 * 6?" }];

const models = [];
for await (const entry of client.models.list()) models.push(entry);
assert.equal(models[0].id, model);
assert.equal((await client.models.retrieve(model)).object, "model");

// Completions: whole, streamed, several prompts and choices, log-probabilities, echo, stop, bias, penalties.
const whole = await client.completions.create({ model, prompt: "The quick", max_tokens: 12, temperature: 0, logprobs: 3, user: "u1" });
assert.equal(whole.object, "text_completion");
assert.equal(whole.usage.completion_tokens, 12);
assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + 12);
assert.equal(whole.choices[0].finish_reason, "length");
assert.equal(whole.choices[0].logprobs.tokens.length, 12);
// Tokens that are parts of characters are named by their bytes.
if (!whole.choices[0].logprobs.tokens.some(token => token.startsWith("bytes:"))) assert.equal(whole.choices[0].logprobs.tokens.join(""), whole.choices[0].text);

let text = "", usage, finish;
for await (const part of await client.completions.create({ model, prompt: "The quick", max_tokens: 12, temperature: 0, stream: true, stream_options: { include_usage: true } })) {
  if (part.usage) usage = part.usage;
  for (const choice of part.choices) {
    text += choice.text;
    finish = choice.finish_reason ?? finish;
  }
}
assert.equal(text, whole.choices[0].text);
assert.equal(finish, "length");
assert.equal(usage.completion_tokens, 12);

const many = await client.completions.create({ model, prompt: ["a", "b"], n: 3, max_tokens: 4, seed: 1 });
assert.deepEqual(many.choices.map(choice => choice.index), [0, 1, 2, 3, 4, 5]);
const again = await client.completions.create({ model, prompt: ["a", "b"], n: 3, max_tokens: 4, seed: 1 });
assert.deepEqual(many.choices.map(choice => choice.text), again.choices.map(choice => choice.text));

const echo = await client.completions.create({ model, prompt: "The quick", max_tokens: 0, echo: true, logprobs: 1 });
assert.equal(echo.choices[0].text, "The quick");
assert.equal(echo.choices[0].logprobs.token_logprobs[0], null);

const part = text.slice(Math.floor(text.length / 2), Math.floor(text.length / 2) + 2);
const stopped = await client.completions.create({ model, prompt: "The quick", max_tokens: 12, temperature: 0, stop: [part] });
assert.equal(stopped.choices[0].text, text.slice(0, text.indexOf(part)));
assert.equal(stopped.choices[0].finish_reason, "stop");
const penalized = await client.completions.create({ model, prompt: "The quick", max_tokens: 8, temperature: 0, presence_penalty: 1, frequency_penalty: 1, logit_bias: { 300: 100 }, top_p: 0.9 });
assert.equal(penalized.usage.completion_tokens, 8);

// Chat: whole, streamed, log-probabilities, schema.
const chat = await client.chat.completions.create({ model, messages, max_completion_tokens: 10, temperature: 0, logprobs: true, top_logprobs: 4 });
assert.equal(chat.choices[0].message.role, "assistant");
assert.equal(chat.choices[0].logprobs.content[0].top_logprobs.length, 4);
let answer = "";
for await (const chunk of await client.chat.completions.create({ model, messages, max_tokens: 10, temperature: 0, stream: true })) answer += chunk.choices[0]?.delta?.content ?? "";
assert.equal(answer, chat.choices[0].message.content);
const helper = client.chat.completions.stream({ model, messages, max_tokens: 10, temperature: 0, n: 1 });
assert.equal((await helper.finalChatCompletion()).choices[0].message.content, answer);
const schema = { type: "object", properties: { answer: { type: "integer", minimum: 0, maximum: 99 } }, required: ["answer"], additionalProperties: false };
const structured = await client.chat.completions.create({ model, messages, max_tokens: 60, seed: 3, response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema } } });
assert.ok(Number.isInteger(JSON.parse(structured.choices[0].message.content).answer));

// Errors arrive as the package's own classes, with the field at fault.
await assert.rejects(client.completions.create({ model, prompt: "a", best_of: 5 }), error => error instanceof OpenAI.BadRequestError && error.param === "best_of");
await assert.rejects(client.chat.completions.create({ model, messages, tools: [{ type: "function", function: { name: "f" } }] }), error => error instanceof OpenAI.BadRequestError && error.param === "tools");
await assert.rejects(client.completions.create({ model: "nobody", prompt: "a" }), error => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
await assert.rejects(client.completions.create({ model, prompt: "a", max_tokens: 100_000 }), error => error.code === "context_length_exceeded");

// Leaving a stream early.
const endless = await client.completions.create({ model, prompt: "The", max_tokens: 400, stream: true });
for await (const _ of endless) break;
endless.controller.abort();

console.log("ok");
