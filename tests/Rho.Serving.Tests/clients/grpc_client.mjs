// gRPC's own JavaScript client. Usage: node grpc_client.mjs TARGET PROTOS; prints "ok".
import assert from "node:assert/strict";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [target, protos] = process.argv.slice(2);
const definition = loader.loadSync("rho/inference/v1/inference.proto", { includeDirs: [protos], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true });
const { Inference } = grpc.loadPackageDefinition(definition).rho.inference.v1;
const client = new Inference(target, grpc.credentials.createInsecure());
const unary = (method, request) => new Promise((resolve, reject) => client[method](request, { deadline: Date.now() + 60_000 }, (error, response) => (error ? reject(error) : resolve(response))));
const stream = (method, request) => new Promise((resolve, reject) => {
  const responses = [];
  client[method](request, { deadline: Date.now() + 60_000 }).on("data", data => responses.push(data)).on("error", reject).on("end", () => resolve(responses));
});

assert.equal((await unary("ListModels", {})).models[0].name, "tiny");
const tokens = (await unary("Tokenize", { text: "The dog" })).tokens;
assert.ok(tokens.length > 1);
const parts = await stream("Generate", { text: "The dog", sampling: { max_tokens: 9, temperature: 0, log_probabilities: 1 } });
assert.equal(parts.at(-1).finish_reason, "FINISH_REASON_LENGTH");
assert.equal(parts.at(-1).usage.completion_tokens, 9);
const same = await stream("Generate", { tokens: { ids: tokens }, sampling: { max_tokens: 9, temperature: 0 } });
assert.equal(parts.map(part => part.text).join(""), same.map(part => part.text).join(""));
const scores = await stream("Score", { inputs: [{ text: "The dog" }, { tokens: { ids: tokens } }], top: 1 });
assert.deepEqual(scores[0].log_probabilities.slice(1), scores[1].log_probabilities.slice(1));
await assert.rejects(stream("Generate", { text: "a", sampling: { n: 1000 } }), error => error.code === grpc.status.INVALID_ARGUMENT && error.details.startsWith("n:"));
client.close();
console.log("ok");
