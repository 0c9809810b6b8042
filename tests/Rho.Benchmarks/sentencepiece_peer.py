#!/usr/bin/python3
"""The other side of ./rho bench tokenizer and ./rho bench corpus: SentencePiece, and a plain pipeline of SentencePiece and PyTorch.

  train KIND TEXT MODEL            trains a model of KIND bpe or unigram on the lines of TEXT (MODEL.model, MODEL.vocab)
  encode MODEL TEXT ROUNDS         encodes the lines of TEXT on one thread; processor seconds of the best round
  corpus MODEL THREADS OUT FILE... lines of JSON to tokens in sequences of 1,024, saved with torch.save
Prints one JSON object a line.
"""
import gzip, hashlib, json, resource, struct, sys, time
import sentencepiece


def train(kind, text, model):
    begin = time.time()
    sentencepiece.SentencePieceTrainer.train(
        input=text, model_prefix=model, model_type=kind, vocab_size=8000, byte_fallback=True, character_coverage=0.9999, num_threads=1,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True, max_sentence_length=1 << 20, minloglevel=2)
    print(json.dumps({"seconds": time.time() - begin}))


def encode(model, text, rounds):
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    with open(text, encoding="utf-8", newline="\n") as f:
        lines = f.read().split("\n")[:-1]
    best = None
    for _ in range(rounds):
        begin = time.process_time()
        ids = processor.encode(lines, out_type=int, num_threads=1)
        seconds = time.process_time() - begin
        best = seconds if best is None else min(best, seconds)
    digest, count = hashlib.sha256(), 0
    for line in ids:
        digest.update(struct.pack("<%di" % (len(line) + 1), *line, -1))
        count += len(line)
    print(json.dumps({"seconds": best, "tokens": count, "sha256": digest.hexdigest()}))


def corpus(model, threads, out, files):
    import numpy, torch
    torch.set_num_threads(1)
    length, shard = 1024, 1 << 22
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    begin = time.time()
    pending, held, tokens, size, shards = [], 0, 0, 0, 0

    def texts():
        for name in files:
            with (gzip.open if name.endswith(".gz") else open)(name, "rt", encoding="utf-8") as f:
                for line in f:
                    yield json.loads(line)["text"]

    def save(rest):
        nonlocal pending, held, shards
        flat = numpy.concatenate(pending)
        count = len(flat) // length if not rest else -(-len(flat) // length)
        count = min(count, shard // length)
        part, left = flat[:count * length], flat[count * length:]
        part = numpy.pad(part, (0, count * length - len(part)))
        torch.save(torch.from_numpy(part.astype(numpy.int32)).view(count, length), "%s-%05d.pt" % (out, shards))
        shards += 1
        pending, held = [left], len(left)

    def flush(batch):
        nonlocal held, tokens, size
        for text, ids in zip(batch, processor.encode(batch, out_type=int, num_threads=threads)):
            ids.append(processor.eos_id())
            pending.append(numpy.asarray(ids, dtype=numpy.int32))
            held, tokens, size = held + len(ids), tokens + len(ids), size + len(text.encode())
        while held >= shard:
            save(False)

    batch = []
    for text in texts():
        batch.append(text)
        if len(batch) == 256:
            flush(batch)
            batch = []
    flush(batch)
    while held:
        save(True)
    print(json.dumps({"seconds": time.time() - begin, "bytes": size, "tokens": tokens, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "train":
        train(*arguments)
    elif command == "encode":
        encode(arguments[0], arguments[1], int(arguments[2]))
    else:
        corpus(arguments[0], int(arguments[1]), arguments[2], arguments[3:])
