// Usage: node validate.mjs FILE, of lines {"schema": …, "text": …}. Prints each text that is not of its schema, and how many were read.
import fs from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const ajv = new Ajv2020({ strict: false, multipleOfPrecision: 6, logger: false });
addFormats.default(ajv);
let count = 0, wrong = 0;
for (const line of fs.readFileSync(process.argv[2], "utf8").split("\n").filter(Boolean)) {
  const { schema, text } = JSON.parse(line);
  const validate = ajv.compile(schema);
  if (!validate(JSON.parse(text))) {
    wrong++;
    console.error(ajv.errorsText(validate.errors), line);
  }
  count++;
}
console.log(count);
process.exit(wrong ? 1 : 0);
