// Builds small tokenizer.json files of the shapes that published models have and records what Hugging Face tokenizers
// makes of texts.json. Needs npm's tokenizers 0.23.2, and huggingface/llama2 from make_sentencepiece.py:
//   npm install tokenizers@0.23.2 && NODE_PATH=node_modules node make_huggingface.js
const fs = require('fs')
const os = require('os')
const path = require('path')
const zlib = require('zlib')
const hf = require('tokenizers')

const folder = __dirname
const out = path.join(folder, 'huggingface')
const texts = JSON.parse(fs.readFileSync(path.join(folder, 'texts.json'), 'utf8'))
const llama2 = JSON.parse(fs.readFileSync(path.join(out, 'llama2', 'tokenizer.json'), 'utf8'))

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
const LLAMA3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const QWEN2 = LLAMA3.replace('\\p{N}{1,3}', '\\p{N}')
const DEEPSEEK3 =
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
const O200K =
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

const regex = (pattern, behavior = 'Isolated', invert = false) => ({ type: 'Split', pattern: { Regex: pattern }, behavior, invert })
const literal = (pattern, behavior, invert = false) => ({ type: 'Split', pattern: { String: pattern }, behavior, invert })
const byteLevel = (use_regex, add_prefix_space = false, trim_offsets = true) => ({ type: 'ByteLevel', add_prefix_space, trim_offsets, use_regex })
const sequence = (...pretokenizers) => ({ type: 'Sequence', pretokenizers })
const normalizers = (...steps) => ({ type: 'Sequence', normalizers: steps })
const token = (id, content, flags = {}) => ({
  id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...flags,
})
const template = (before, after = []) => ({
  type: 'TemplateProcessing',
  single: [...before, null, ...after].map(t => t === null ? { Sequence: { id: 'A', type_id: 0 } } : { SpecialToken: { id: t[0], type_id: 0 } }),
  pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
  special_tokens: Object.fromEntries([...before, ...after].map(([text, id]) => [text, { id: text, ids: [id], tokens: [text] }])),
})

// A byte-level vocabulary: 256 letters and what Hugging Face's own trainer merges on corpus.txt.
function train(preTokenizer) {
  const empty = { version: '1.0', truncation: null, padding: null, added_tokens: [], normalizer: null, pre_tokenizer: preTokenizer, post_processor: null, decoder: null,
    model: { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab: {}, merges: [] } }
  const trained = hf.Tokenizer.fromString(JSON.stringify(empty))
  trained.train([path.join(folder, 'corpus.txt')])
  const file = path.join(os.tmpdir(), `trained-${process.pid}.json`)
  trained.save(file)
  const model = JSON.parse(fs.readFileSync(file, 'utf8')).model
  fs.unlinkSync(file)
  return model.merges.map(merge => typeof merge === 'string' ? merge.split(' ') : merge)
}

function byteModel(merges, count, options = {}) {
  const vocab = {}
  for (const letter of hf.byteLevelAlphabet().sort((a, b) => a.codePointAt(0) - b.codePointAt(0))) vocab[letter] = Object.keys(vocab).length
  const kept = merges.slice(0, count)
  for (const [left, right] of kept) vocab[left + right] ??= Object.keys(vocab).length
  return { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false,
    ignore_merges: false, vocab, merges: kept, ...options }
}

const file = (parts) => ({ version: '1.0', truncation: null, padding: null, added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...parts })
const next = (model) => Object.keys(model.vocab).length
const size = 700
const kinds = {}

{
  const model = byteModel(train(byteLevel(true)), size)
  // GPT-2's file has merges as one string each and empty affixes.
  model.merges = model.merges.map(merge => merge.join(' '))
  model.continuing_subword_prefix = ''
  model.end_of_word_suffix = ''
  kinds.gpt2 = file({ model, pre_tokenizer: byteLevel(true), post_processor: byteLevel(true), decoder: byteLevel(true, true),
    added_tokens: [token(next(model), '<|endoftext|>')] })
  kinds.gpt2_prefix = file({ model, pre_tokenizer: byteLevel(true, true), post_processor: byteLevel(true, true), decoder: byteLevel(true, true),
    added_tokens: [token(next(model), '<|endoftext|>', { normalized: true }), token(next(model) + 1, '<mask>', { lstrip: true }), token(next(model) + 2, '</s>', { rstrip: true })] })
}
{
  const merges = train(sequence(regex(LLAMA3), byteLevel(false)))
  const model = byteModel(merges, size, { ignore_merges: true })
  const n = next(model)
  // A token that no merge gives: only ignore_merges finds it.
  model.vocab['ĠHello'] = n
  kinds.llama3 = file({ model, pre_tokenizer: sequence(regex(LLAMA3), byteLevel(false)), decoder: byteLevel(true, true),
    post_processor: { type: 'Sequence', processors: [byteLevel(true), template([['<|begin_of_text|>', n + 1]])] },
    added_tokens: ['<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'].map((t, i) => token(n + 1 + i, t)) })
}
{
  const model = byteModel(train(sequence(regex(QWEN2), byteLevel(false))), size)
  const n = next(model)
  kinds.qwen2 = file({ model, normalizer: { type: 'NFC' }, pre_tokenizer: sequence(regex(QWEN2), byteLevel(false, false, false)),
    post_processor: byteLevel(false, false, false), decoder: byteLevel(false, false, false),
    added_tokens: [token(n, '<|endoftext|>'), token(n + 1, '<|im_start|>'), token(n + 2, '<|im_end|>'), token(n + 3, '<word>', { special: false }),
      token(n + 4, 'quick brown', { special: false, single_word: true, normalized: true })] })
}
{
  const cutting = sequence(regex('\\p{N}{1,3}'), regex('[一-龥぀-ゟ゠-ヿ]+'), regex(DEEPSEEK3), byteLevel(false))
  const model = byteModel(train(cutting), size)
  const n = next(model)
  kinds.deepseek3 = file({ model, normalizer: normalizers(), pre_tokenizer: cutting, decoder: byteLevel(true, true),
    post_processor: template([['<｜begin▁of▁sentence｜>', n]]),
    added_tokens: [token(n, '<｜begin▁of▁sentence｜>'), token(n + 1, '<｜User｜>', { special: false }), token(n + 2, '<｜Assistant｜>', { special: false, normalized: true })] })
}
{
  const cutting = sequence(regex('[\r\n]'), regex('\\s?\\p{L}+'), regex('\\s?\\p{P}+'), regex('[一-龥ࠀ-一가-퟿]+'), { type: 'Digits', individual_digits: true }, byteLevel(false))
  const model = byteModel(train(cutting), size)
  kinds.deepseek_math = file({ model, normalizer: normalizers(), pre_tokenizer: cutting, decoder: byteLevel(true), post_processor: byteLevel(false, true, false),
    added_tokens: [token(next(model), '</s>', { lstrip: true, rstrip: true })] })
}
{
  const cutting = sequence(regex(O200K), byteLevel(false))
  const model = byteModel(train(cutting), size)
  kinds.o200k = file({ model, pre_tokenizer: cutting, decoder: byteLevel(true) })
}

// The shapes around Llama 2's pieces.
const { model: pieces, added_tokens: llamaTokens, post_processor: llamaPost, decoder: llamaDecoder } = llama2
kinds.llama2 = llama2
kinds.llama2_metaspace = file({ model: pieces, added_tokens: llamaTokens, post_processor: llamaPost, decoder: llamaDecoder,
  pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false } })
kinds.mistral_split = file({ model: { ...pieces, byte_fallback: false }, added_tokens: [...llamaTokens, token(next(pieces), '<mask>', { special: false, lstrip: true })],
  pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
  decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true } })
kinds.metaspace_never = file({ model: { ...pieces, byte_fallback: false, fuse_unk: false }, added_tokens: llamaTokens.slice(1),
  pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'never', split: true },
  decoder: { type: 'Sequence', decoders: [{ type: 'Metaspace', replacement: '▁', prepend_scheme: 'never', split: true }, { type: 'Fuse' }, { type: 'Strip', content: 'd', start: 2, stop: 0 }] } })
kinds.llama2_normalized_tokens = file({ model: pieces, normalizer: llama2.normalizer, decoder: llamaDecoder,
  added_tokens: llamaTokens.map(t => ({ ...t, normalized: true })) })
// Bytes for some characters only, unknown tokens for the others.
const holes = { ...pieces, vocab: Object.fromEntries(Object.entries(pieces.vocab).filter(([piece]) => !/^<0xE/.test(piece))) }
kinds.partial_fallback = file({ model: holes, normalizer: llama2.normalizer, decoder: llamaDecoder, added_tokens: llamaTokens })
kinds.partial_fallback_unfused = file({ model: { ...holes, fuse_unk: false }, decoder: { type: 'ByteFallback' }, added_tokens: [] })
kinds.no_decoder = file({ model: { ...pieces, byte_fallback: false, unk_token: null }, added_tokens: llamaTokens.slice(1) })

// One file per normalizer and pre-tokenizer, around the same pieces.
const plain = (parts) => file({ model: { ...pieces, byte_fallback: false }, decoder: { type: 'Fuse' }, added_tokens: [token(next(pieces), 'The', { special: false, normalized: true }), token(next(pieces) + 1, '<mask>')], ...parts })
const normalizing = {
  nfc: { type: 'NFC' },
  nfd: { type: 'NFD' },
  nfkc: { type: 'NFKC' },
  nfkd: { type: 'NFKD' },
  lowercase: { type: 'Lowercase' },
  strip: { type: 'Strip', strip_left: true, strip_right: true },
  strip_left: { type: 'Strip', strip_left: true, strip_right: false },
  replace_regex: { type: 'Replace', pattern: { Regex: '\\s+|e(?=r)' }, content: '▁~' },
  replace_longer: { type: 'Replace', pattern: { String: 'an' }, content: 'ana' },
  mixed: normalizers({ type: 'NFKC' }, { type: 'Lowercase' }, { type: 'Prepend', prepend: '▁▁' }, { type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' }, { type: 'Replace', pattern: { String: ' ' }, content: '▁' }),
}
for (const [name, normalizer] of Object.entries(normalizing)) kinds[`normalizer_${name}`] = plain({ normalizer })
const cutting = {
  digits: { type: 'Digits', individual_digits: true },
  digits_together: { type: 'Digits', individual_digits: false },
  punctuation: { type: 'Punctuation', behavior: 'Isolated' },
  punctuation_previous: { type: 'Punctuation', behavior: 'MergedWithPrevious' },
  punctuation_contiguous: { type: 'Punctuation', behavior: 'Contiguous' },
  whitespace: { type: 'Whitespace' },
  whitespace_split: { type: 'WhitespaceSplit' },
  split_removed: literal(' ', 'Removed'),
  split_next: literal('e', 'MergedWithNext'),
  split_previous: literal('e', 'MergedWithPrevious'),
  split_contiguous: literal('l', 'Contiguous'),
  split_invert: regex('\\w+|\\s', 'Removed', true),
  split_invert_next: regex('\\w\\w', 'MergedWithNext', true),
  split_empty: regex('x*', 'Isolated'),
  split_words: regex("(?i:the|s\\b)|[[a-m]&&[^aeiou]]+|\\p{Lu}\\p{Ll}*|\\p{^L}|[\\x{1F300}-\\x{1FAFF}\\u4E00-\\u9FFF]+|(?<=a)b++|[\\w&&[^\\d]]{2,3}?|\\h{2}", 'Isolated'),
  split_case: regex('(?i)σ+|straße|[k-m]|é', 'Isolated'),
  split_lines: regex('^ *|$|\\R|.$', 'Isolated'),
}
for (const [name, pre_tokenizer] of Object.entries(cutting)) kinds[`cutting_${name}`] = plain({ pre_tokenizer })

// Unigram from the SentencePiece model's pieces is made in make_sentencepiece.py.
for (const name of fs.readdirSync(out).filter(name => name.startsWith('unigram'))) kinds[name] = JSON.parse(fs.readFileSync(path.join(out, name, 'tokenizer.json'), 'utf8'))

// What Hugging Face's trainer merges, first to last, for the trainer's tests.
const trained = { gpt2: train(sequence(regex(GPT2), byteLevel(false))), llama3: train(sequence(regex(LLAMA3), byteLevel(false))), qwen2: train(sequence(regex(QWEN2), byteLevel(false))) }
fs.writeFileSync(path.join(folder, 'trained.json.gz'), zlib.gzipSync(JSON.stringify(trained), { level: 9 }))

async function main() {
  for (const [name, contents] of Object.entries(kinds)) {
    fs.mkdirSync(path.join(out, name), { recursive: true })
    const json = JSON.stringify(contents)
    if (!['llama2'].includes(name) && !name.startsWith('unigram')) fs.writeFileSync(path.join(out, name, 'tokenizer.json'), json)
    const tokenizer = hf.Tokenizer.fromString(json)
    const cases = []
    for (const text of texts) {
      const encoding = await tokenizer.encode(text, null, { addSpecialTokens: false })
      const ids = encoding.getIds()
      const special = (await tokenizer.encode(text, null, { addSpecialTokens: true })).getIds()
      // Offsets come in code points.
      const starts = [0]
      for (const c of text) starts.push(starts[starts.length - 1] + c.length)
      const entry = { ids }
      // Version 0.23 decodes added tokens as the normalizer leaves them, and then no longer knows special ones among
      // them; versions before it, and Rho, decode them as they are written.
      const rewritten = contents.normalizer && contents.added_tokens.some(t => t.normalized && ids.includes(t.id))
      if (!rewritten) entry.decoded = await tokenizer.decode(ids, false)
      // Where several characters become one, Rho's offsets cover all of them, the others' one of them.
      if (!/^(normalizer_|unigram)/.test(name) && !(name === 'qwen2' && text.normalize('NFC') !== text)) entry.offsets = encoding.getOffsets().map(([a, b]) => [starts[a], starts[b]])
      if (special.length !== ids.length) entry.special = special
      const skipped = await tokenizer.decode(ids, true)
      if (!rewritten && skipped !== entry.decoded) entry.skipped = skipped
      cases.push(entry)
    }
    const total = tokenizer.getVocabSize(true)
    const decodings = []
    for (let k = 0; k < 20; k++) {
      const ids = Array.from({ length: 30 }, (_, i) => (7 * i * i + 3 * i + k * 31) % total)
      if (contents.normalizer && contents.added_tokens.some(t => t.normalized && ids.includes(t.id))) continue
      decodings.push({ ids, skip: k % 2 === 1, decoded: await tokenizer.decode(ids, k % 2 === 1) })
    }
    fs.writeFileSync(path.join(out, name, 'expected.json.gz'), zlib.gzipSync(JSON.stringify({ cases, decodings }), { level: 9 }))
    console.log(name, cases.length, total)
  }
}
main()
