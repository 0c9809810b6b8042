"""Trains small SentencePiece models on corpus.txt and records what SentencePiece makes of texts.json.

Needs Debian's sentencepiece and python3-sentencepiece (0.1.97): python3 make_sentencepiece.py
"""

import base64
import gzip
import json
import os
import subprocess

import sentencepiece

folder = os.path.dirname(os.path.abspath(__file__))
out = os.path.join(folder, "sentencepiece")
os.makedirs(out, exist_ok=True)
texts = json.load(open(os.path.join(folder, "texts.json"), encoding="utf-8"))

MODELS = {
    # As Llama 2's: BPE, bytes for what is unknown, text left as it is.
    "llama": "--model_type=bpe --vocab_size=900 --byte_fallback=true --normalization_rule_name=identity --remove_extra_whitespaces=false "
    "--split_digits=true --allow_whitespace_only_pieces=true --character_coverage=0.98",
    "bpe_nfkc_cf": "--model_type=bpe --vocab_size=700 --normalization_rule_name=nfkc_cf --user_defined_symbols=<mask>,<word>,▁▁meta,q "
    "--control_symbols=<pad>,[INST] --character_coverage=0.98",
    "unigram_nmt_nfkc": "--model_type=unigram --vocab_size=650 --normalization_rule_name=nmt_nfkc --user_defined_symbols=<mask>,<word> "
    "--character_coverage=0.98",
    "unigram_bytes": "--model_type=unigram --vocab_size=800 --byte_fallback=true --normalization_rule_name=identity --remove_extra_whitespaces=false "
    "--add_dummy_prefix=false --character_coverage=0.98 --pad_id=3",
    "bpe_suffix": "--model_type=bpe --vocab_size=600 --treat_whitespace_as_suffix=true --normalization_rule_name=identity --character_coverage=0.98",
}


def utf16(text, offset):
    return len(text[:offset].encode("utf-16-le")) // 2


for name, options in MODELS.items():
    prefix = os.path.join(out, name, "tokenizer")
    os.makedirs(os.path.join(out, name), exist_ok=True)
    subprocess.run(
        ["spm_train", f"--input={folder}/corpus.txt", f"--model_prefix={prefix}", "--num_threads=1", "--minloglevel=2", *options.split()], check=True)
    os.remove(prefix + ".vocab")
    model = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")
    cases = []
    for text in texts:
        proto = model.encode(text, out_type="immutable_proto")
        ids = [piece.id for piece in proto.pieces]
        cases.append({
            "ids": ids,
            "offsets": [[utf16(text, piece.begin), utf16(text, piece.end)] for piece in proto.pieces],
            "decoded": model.decode(ids),
        })
    # Ids that no text gives: decoding has to take them all the same.
    mixed = [[(7 * i * i + 3 * i + k) % model.vocab_size() for i in range(30)] for k in range(20)]
    expected = {"cases": cases, "decodings": [{"ids": ids, "decoded": model.decode(ids)} for ids in mixed]}
    with open(os.path.join(out, name, "expected.json.gz"), "wb") as file:
        file.write(gzip.compress(json.dumps(expected, separators=(",", ":")).encode(), mtime=0))

# Llama 2's tokenizer.json from the same pieces, made as transformers' convert_slow_tokenizer makes it.
model = sentencepiece.SentencePieceProcessor(model_file=os.path.join(out, "llama", "tokenizer.model"))
vocab = {model.id_to_piece(i): i for i in range(model.vocab_size())}
scores = {piece: model.get_score(i) for piece, i in vocab.items()}
merges = []
for piece, score in scores.items():
    local = [(piece[:i], piece[i:], score) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
    merges += sorted(local, key=lambda m: (vocab[m[0]], vocab[m[1]]))
merges.sort(key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)


def fields(data):
    """The length-delimited fields of a protobuf message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 2:
            size = varint()
            yield tag >> 3, data[at:at + size]
            at += size
        else:
            at += {5: 4, 1: 8}.get(tag & 7, 0)
            if tag & 7 == 0:
                varint()


def character_map(proto):
    normalizer = next(value for field, value in fields(proto) if field == 3)
    return next(value for field, value in fields(normalizer) if field == 2)


def special(i, content):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


tokenizer = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
    },
    "pre_tokenizer": None,
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    },
    "decoder": {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    },
    "model": {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": True, "byte_fallback": True, "vocab": vocab, "merges": [f"{a} {b}" for a, b, _ in merges],
    },
}
os.makedirs(os.path.join(folder, "huggingface", "llama2"), exist_ok=True)
json.dump(tokenizer, open(os.path.join(folder, "huggingface", "llama2", "tokenizer.json"), "w", encoding="utf-8"), ensure_ascii=False, indent=1)

# A unigram tokenizer.json, with and without SentencePiece's character map.
for name, source, bytes_too in (("unigram", "unigram_nmt_nfkc", False), ("unigram_bytes", "unigram_bytes", True)):
    model = sentencepiece.SentencePieceProcessor(model_file=os.path.join(out, source, "tokenizer.model"))
    pieces = [[model.id_to_piece(i), model.get_score(i)] for i in range(model.vocab_size())]
    normalizers = [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]
    if not bytes_too:
        proto = open(os.path.join(out, source, "tokenizer.model"), "rb").read()
        normalizers.insert(0, {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(character_map(proto)).decode()})
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [special(i, piece) for i, (piece, _) in enumerate(pieces) if piece in ("<unk>", "<s>", "</s>", "<pad>", "<mask>")],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": not bytes_too},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}]},
        "model": {"type": "Unigram", "unk_id": model.unk_id(), "vocab": pieces, "byte_fallback": bytes_too},
    }
    os.makedirs(os.path.join(folder, "huggingface", name), exist_ok=True)
    json.dump(tokenizer, open(os.path.join(folder, "huggingface", name, "tokenizer.json"), "w", encoding="utf-8"), ensure_ascii=False)
