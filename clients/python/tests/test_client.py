import os
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rho_client import Mismatch, RhoError, ScorerClient, TokenShard, Unavailable
from tests import service

TEXT = "\n".join(f"The sum of {a} and {b} is {a + b}, and their product is {a * b}." for a in range(40) for b in range(40))


def tokens_of(sequences, length, seed=1):
    return np.random.default_rng(seed).integers(0, 300, (sequences, length))


def read(client, shard, **options):
    blocks = list(client.score_shard(shard, **options))
    assert all(a.first_sequence + len(a.losses) == b.first_sequence for a, b in zip(blocks, blocks[1:]))
    return np.concatenate([block.losses for block in blocks])


@unittest.skipIf(service.executable() is None, "rho is not built")
class ScorerClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = TemporaryDirectory()
        cls.reference = Path(cls.folder.name) / "reference"
        cls.weights = service.make_reference(cls.reference, TEXT)
        cls.scorer = service.Scorer(cls.reference)

    @classmethod
    def tearDownClass(cls):
        cls.scorer.close()
        cls.folder.cleanup()

    def client(self, *scorers, **options):
        client = ScorerClient([scorer.address for scorer in scorers or (self.scorer,)], **options)
        self.addCleanup(client.close)
        return client

    def start(self, *options):
        scorer = service.Scorer(self.reference, *options)
        self.addCleanup(scorer.close)
        return scorer

    def test_losses_are_those_that_pytorch_computes(self):
        try:
            losses_of = __import__("tests.llama", fromlist=["losses_of"]).losses_of
        except ImportError:
            self.skipTest("PyTorch is not installed")
        tokens = tokens_of(40, 64)
        losses = read(self.client(encoding="f32"), tokens)
        self.assertTrue(np.isnan(losses[:, 0]).all())
        np.testing.assert_allclose(losses[:, 1:], losses_of(self.weights, tokens)[:, 1:], rtol=1e-4, atol=1e-4)

    def test_part_of_a_shard_that_the_scorer_has_met_sends_its_tokens_only(self):
        shard = TokenShard.from_array(tokens_of(600, 64, seed=77))
        sent, blocks = [], shard.blocks
        shard.blocks = lambda see, size, first, end: sent.append((first, end)) or blocks(see, size, first, end)
        whole = read(self.client(), shard)
        part = read(self.client(encoding="f32"), shard, first_sequence=300, end_sequence=310)  # scored and cached apart
        np.testing.assert_allclose(part, whole[300:310], rtol=2 ** -10)
        self.assertEqual(sent, [(0, 600), (256, 512)])  # chunks have 256 sequences

    def test_entropies_and_top_tokens_are_those_that_pytorch_computes(self):
        try:
            predictions_of = __import__("tests.llama", fromlist=["predictions_of"]).predictions_of
        except ImportError:
            self.skipTest("PyTorch is not installed")
        tokens = tokens_of(30, 64, seed=4)
        log_p = predictions_of(self.weights, tokens)
        top, ids = log_p.topk(5, -1)
        client = self.client(encoding="f32", entropy=True, top_k=5)
        self.assertGreaterEqual(client.describe().max_top_k, 5)
        blocks = list(client.score_shard(tokens))
        answers = sorted(client.score(list(tokens)), key=lambda answer: answer.id)
        for entropies, top_ids, log_probabilities in (
                [np.concatenate([getattr(block, name) for block in blocks]) for name in ("entropies", "top_ids", "top_log_probabilities")],
                [np.stack([getattr(answer, name) for answer in answers]) for name in ("entropies", "top_ids", "top_log_probabilities")]):
            self.assertTrue(np.isnan(entropies[:, 0]).all() and np.isnan(log_probabilities[:, 0]).all() and not top_ids[:, 0].any())
            np.testing.assert_allclose(entropies[:, 1:], -(log_p.exp() * log_p).sum(-1), rtol=2 ** -10, atol=1e-3)
            np.testing.assert_allclose(log_probabilities[:, 1:], top, rtol=2 ** -10, atol=1e-3)
            # Where PyTorch's float64 sees two tokens closer together than float32 does, either may come first.
            clear = ((top[..., :-1] - top[..., 1:]) > 1e-4).all(-1).numpy()
            self.assertGreater(clear.mean(), 0.9)
            np.testing.assert_array_equal(top_ids[:, 1:][clear][:, :4], ids.numpy()[clear][:, :4])

    def test_documents_that_do_not_see_each_other_are_scored_apart(self):
        tokens = tokens_of(4, 60)
        documents = np.repeat([[0] * 20 + [1] * 25 + [2] * 10 + [-1] * 5], 4, 0)
        shard = TokenShard.from_array(tokens, documents)
        client = self.client(encoding="f32")
        together = read(client, shard)
        apart = read(client, shard, documents_see_each_other=False)
        alone = read(client, tokens[:, 20:45])
        np.testing.assert_allclose(apart[:, 21:45], alone[:, 1:], rtol=1e-4, atol=1e-4)
        self.assertTrue(np.isnan(apart[:, [0, 20, 45, 55, 59]]).all())
        self.assertTrue(np.isnan(together[:, 55:]).all())
        self.assertFalse(np.isnan(together[:, 20]).any())

    def test_encodings_keep_their_precision(self):
        tokens = tokens_of(10, 50)
        exact = read(self.client(encoding="f32"), tokens)
        np.testing.assert_allclose(read(self.client(), tokens), exact, rtol=2 ** -10, atol=1e-4)
        np.testing.assert_allclose(read(self.client(encoding="log8"), tokens), exact, rtol=0.011, atol=0.003)

    def test_any_range_gives_the_same_losses(self):
        tokens = tokens_of(700, 64)
        client = self.client()
        whole = read(client, tokens)
        for first, end in ((0, 1), (1, 700), (255, 257), (699, 700), (300, 300)):
            part = [block.losses for block in client.score_shard(tokens, first_sequence=first, end_sequence=end)]
            np.testing.assert_array_equal(np.concatenate([*part, np.empty((0, 64), np.float32)]), whole[first:end])

    def test_sequences_on_the_fly_are_answered_by_id(self):
        random = np.random.default_rng(3)
        sequences = {i: random.integers(0, 300, random.integers(1, 200)) for i in range(200)}
        answers = {answer.id: answer.losses for answer in self.client(encoding="f32").score(sequences.items())}
        self.assertEqual(answers.keys(), sequences.keys())
        for i in (0, 50, 199):
            alone = read(self.client(encoding="f32"), sequences[i][None])[0]
            np.testing.assert_allclose(answers[i], alone, rtol=1e-3, atol=1e-3)

    def test_a_shard_has_the_same_losses_whatever_else_is_scored(self):
        tokens = tokens_of(1500, 64, seed=8)
        first = read(self.client(), tokens)
        others = threading.Thread(target=lambda: list(self.client().score(list(tokens_of(400, 37, seed=9)))))
        others.start()
        np.testing.assert_array_equal(read(self.client(), tokens), first)
        others.join(60)

    def test_a_killed_scorer_costs_nothing_but_time(self):
        cache = Path(self.folder.name) / "cache"
        tokens = tokens_of(6000, 64, seed=5)
        undisturbed = read(self.client(), tokens)
        scorers = [self.start("--cache", cache), self.start("--cache", cache)]
        client = self.client(*scorers)
        parts = []
        for block in client.score_shard(tokens):
            parts.append(block.losses)
            if len(parts) == 3:
                busy = max(client.info(), key=lambda info: info.queued_tokens).address
                next(scorer for scorer in scorers if scorer.address == busy).kill()
        # The scorers are processes of their own, whose products may be rounded otherwise: float16 steps apart, and seldom.
        arrived = np.concatenate(parts)
        np.testing.assert_allclose(arrived, undisturbed, rtol=2 ** -10)
        self.assertLess(np.mean(arrived[:, 1:] != undisturbed[:, 1:]), 1e-3)

    def test_a_scorer_that_stops_in_order_hands_over(self):
        scorers = [self.start(), self.start()]
        tokens = tokens_of(6000, 64, seed=6)
        client = self.client(*scorers)
        answers, stopping = [], None
        for answer in client.score(list(tokens)):
            answers.append(answer)
            if len(answers) == 500:
                busy = max(client.info(), key=lambda info: info.streams).address
                stopping = threading.Thread(target=next(scorer for scorer in scorers if scorer.address == busy).stop)
                stopping.start()
        stopping.join(60)
        self.assertEqual(sorted(answer.id for answer in answers), list(range(6000)))

    def test_what_is_cached_comes_without_scoring(self):
        scorer = self.start("--cache", Path(self.folder.name) / "cache2")
        tokens = tokens_of(300, 64, seed=7)
        client = self.client(scorer)
        shard = TokenShard.from_array(tokens)
        self.assertEqual(client.coverage([shard])[0].state, "missing")
        first = read(client, shard)
        self.assertEqual(client.coverage([shard])[0].state, "cached")
        np.testing.assert_array_equal(read(client, tokens), first)

    def test_leaving_a_stream_frees_its_work(self):
        client = self.client()
        for _ in client.score_shard(tokens_of(6000, 64, seed=8)):
            break
        deadline = time.monotonic() + 60
        while (info := client.info()[0]).streams + info.queued_tokens and time.monotonic() < deadline:  # an open stream may queue anew
            time.sleep(0.1)
        self.assertEqual((info.streams, info.queued_tokens), (0, 0))

    def test_mistakes_are_named(self):
        with self.assertRaisesRegex(Mismatch, "sha256:mine"):
            self.client(tokenizer_fingerprint="sha256:mine").describe()
        with self.assertRaisesRegex(RhoError, "token id 300 in sequence 1 at position 2"):
            read(self.client(), [[1, 2, 3], [4, 5, 300]])
        with self.assertRaisesRegex(RhoError, "at most 512"):
            read(self.client(), np.zeros((1, 513), int))
        with self.assertRaisesRegex(Unavailable, "127.0.0.1:1"):
            ScorerClient("127.0.0.1:1", connect_timeout=1).describe()
        for bad in ("", "host", "host:port", "http://host:1/path"):
            self.assertRaises(RhoError, ScorerClient, bad)

    def test_the_example_trains(self):
        try:
            __import__("torch")
        except ImportError:
            self.skipTest("PyTorch is not installed")
        folder = Path(self.folder.name)
        (folder / "corpus.txt").write_text(TEXT)
        subprocess.run([service.executable(), "corpus", "build", "--tokenizer", self.reference, "--length", "64", "--out", folder / "corpus", folder / "corpus.txt"],
                       check=True, capture_output=True, timeout=120)
        output = subprocess.run(
            [sys.executable, "examples/train.py", "--scorer", self.scorer.address, "--corpus", folder / "corpus", "--steps", "40"],
            cwd=Path(__file__).parents[1], env=dict(os.environ, PYTHONPATH="."), check=True, capture_output=True, text=True, timeout=300).stdout
        losses = [float(line.split()[-1]) for line in output.splitlines() if line.startswith("step")]
        self.assertLess(losses[-1], losses[0] - 1)

    def test_a_source_that_fails_is_what_the_caller_sees(self):
        def source():
            yield [1, 2, 3]
            raise KeyError("the caller's own")

        with self.assertRaises(KeyError):
            list(self.client().score(source()))


if __name__ == "__main__":
    unittest.main()
