// Structured answers as npm's openai and the AI SDK ask for them, with schemas that zod writes. Usage: node schemas_client.mjs BASE_URL; prints "ok".
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject } from "ai";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const baseURL = `${process.argv[2]}v1`, apiKey = "none", model = "tiny", prompt = "Fill the form.";
const shape = z.object({
  id: z.uuid(), name: z.string().min(1).max(8), email: z.email().max(60), born: z.iso.date(), at: z.iso.datetime(), score: z.number().min(0).max(1),
  count: z.number().int().positive().max(99).multipleOf(3), kind: z.enum(["a", "b"]), note: z.string().max(5).nullable(), tags: z.array(z.literal("x")).min(1).max(2),
  either: z.union([z.boolean(), z.object({ deep: z.literal(1) })]),
});
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 120_000 });
const provider = createOpenAI({ baseURL, apiKey });
for (let seed = 0; seed < 5; seed++) {
  const chat = await client.chat.completions.parse({ model, seed, messages: [{ role: "user", content: prompt }], response_format: zodResponseFormat(shape, "form") });
  shape.parse(chat.choices[0].message.parsed);
  const response = await client.responses.parse({ model, input: prompt, text: { format: zodTextFormat(shape, "form") } });
  shape.parse(response.output_parsed);
  for (const chosen of [provider(model), provider.chat(model)]) shape.parse((await generateObject({ model: chosen, schema: shape, prompt, maxRetries: 0 })).object);
}

console.log("ok");
