// A stream that fails on the way has to raise. Usage: node failing_stream.mjs BASE_URL; prints "begun" and then what was raised by each client.
import { createOpenAI } from "@ai-sdk/openai";
import { streamText } from "ai";
import OpenAI from "openai";

const baseURL = `${process.argv[2]}v1`, apiKey = "none", model = "tiny", prompt = "The";
const raised = async (name, run) => {
  try {
    await run();
    return `${name}: ended as if whole`;
  } catch (error) {
    return `${name}: raised`;
  }
};
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const provider = createOpenAI({ baseURL, apiKey });
const sdk = chosen => async () => {
  let failure;
  const result = streamText({ model: chosen, prompt, maxOutputTokens: 400, temperature: 0, maxRetries: 0, onError: ({ error }) => { failure = error; } });
  for await (const _ of result.textStream);
  if (failure) throw failure;
};
const results = await Promise.all([
  raised("openai completions", async () => { for await (const _ of await client.completions.create({ model, prompt, max_tokens: 400, temperature: 0, stream: true })); }),
  raised("openai chat", async () => { for await (const _ of await client.chat.completions.create({ model, messages: [{ role: "user", content: prompt }], max_tokens: 400, temperature: 0, stream: true })); }),
  raised("openai responses", async () => { for await (const _ of await client.responses.create({ model, input: prompt, max_output_tokens: 400, temperature: 0, stream: true })); }),
  raised("ai chat", sdk(provider.chat(model))),
  raised("ai responses", sdk(provider(model))),
]);
console.log(results.join("\n"));
