// One tool loop each of npm's openai, the AI SDK and LangChain, against the scripted model. Usage: node tools_client.mjs BASE_URL; prints "ok".
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool as langchainTool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const baseURL = `${process.argv[2]}v1`, apiKey = "none", model = "scripted";
const says = "It is sunny in Oslo.";
let asked = [];
const weather = ({ city }) => {
  asked.push(city);
  return "sunny";
};
const checkAsked = () => {
  assert.deepEqual(asked, ["Oslo"]);
  asked = [];
};

// npm openai: the runner, whole and streamed, and responses.
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const tools = [{ type: "function", function: { name: "get_weather", description: "Weather", parameters, parse: JSON.parse, function: weather } }];
for (const stream of [false, true]) {
  const runner = client.chat.completions.runTools({ model, messages: [{ role: "user", content: "How is Oslo?" }], tools, stream });
  assert.equal(await runner.finalContent(), says);
  checkAsked();
}

const functions = [{ type: "function", name: "get_weather", parameters, strict: true }];
const input = [{ role: "user", content: "How is Oslo?" }];
const first = await client.responses.create({ model, input, tools: functions });
input.push(...first.output);
for (const item of first.output) {
  if (item.type === "function_call") input.push({ type: "function_call_output", call_id: item.call_id, output: weather(JSON.parse(item.arguments)) });
}
checkAsked();
assert.equal((await client.responses.create({ model, input, tools: functions })).output_text, says);
const streamed = client.responses.stream({ model, input, tools: functions });
assert.equal((await streamed.finalResponse()).output_text, says);

// The AI SDK: responses, which it takes by default, and chat completions.
const provider = createOpenAI({ baseURL, apiKey });
const sdkTools = { get_weather: tool({ description: "Weather", inputSchema: z.object({ city: z.string() }), execute: async input => weather(input) }) };
for (const chosen of [provider(model), provider.chat(model)]) {
  const settings = { model: chosen, tools: sdkTools, prompt: "How is Oslo?", stopWhen: stepCountIs(3), maxRetries: 0 };
  assert.equal((await generateText(settings)).text, says);
  checkAsked();
  assert.equal(await streamText({ ...settings, onError: ({ error }) => { throw error; } }).text, says);
  checkAsked();
}

// LangChain.
const bound = new ChatOpenAI({ model, apiKey, configuration: { baseURL }, maxRetries: 0 })
  .bindTools([langchainTool(weather, { name: "get_weather", description: "Weather", schema: z.object({ city: z.string() }) })]);
const history = [new HumanMessage("How is Oslo?")];
const calling = await bound.invoke(history);
history.push(calling);
for (const call of calling.tool_calls) history.push(new ToolMessage({ content: weather(call.args), tool_call_id: call.id }));
checkAsked();
assert.equal((await bound.invoke(history)).content, says);

console.log("ok");
