// Open an export with transformers.js: node open.mjs PACKAGES FOLDER TEXTS [DTYPE]
// PACKAGES is where `npm install --ignore-scripts @huggingface/transformers` was run. Prints logits and labels as JSON.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [packages, folder, textsFile, dtype = 'fp32'] = process.argv.slice(2);
const entry = createRequire(resolve(packages, 'x.js')).resolve('@huggingface/transformers');
const { AutoModelForSequenceClassification, AutoTokenizer, env, pipeline } = await import(pathToFileURL(entry));
env.allowRemoteModels = false;
env.localModelPath = '/';

const texts = JSON.parse(readFileSync(textsFile, 'utf-8'));
const tokenizer = await AutoTokenizer.from_pretrained(resolve(folder));
const model = await AutoModelForSequenceClassification.from_pretrained(resolve(folder), { dtype });
const { logits } = await model(tokenizer(texts, { padding: true, truncation: true }));
const classify = await pipeline('text-classification', resolve(folder), { dtype });
const labels = (await classify(texts)).map((it) => it.label);
console.log(JSON.stringify({ version: env.version, logits: logits.tolist(), labels }));
