"""Readers that leave: at the scorer and in this process nothing of their streams is left, though no block comes any more."""

import fcntl
import threading
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rho_client import RhoError, ScorerClient, TokenShard
from rho_client._streams import Stop, prefetched
from tests import service

CHUNK = 256  # sequences of 64 tokens


def eventually(condition):
    deadline = time.monotonic() + 30  # shorter than a follower's patience with whoever scores
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def own_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rho-")]


class PrefetchTest(unittest.TestCase):
    def setUp(self):
        self.given, self.ended = [], threading.Event()

    def source(self):
        try:
            while True:
                self.given.append(len(self.given))
                yield self.given[-1]
        finally:
            self.ended.set()

    def test_a_reader_that_leaves_a_full_queue_ends_the_source(self):
        stop = Stop()
        items = prefetched(self.source, 2, stop)
        self.assertEqual([next(items), next(items)], [0, 1])
        self.assertTrue(eventually(lambda: len(self.given) == 5))  # two taken, two waiting, one that finds no room
        items.close()
        self.assertTrue(self.ended.wait(30))
        self.assertTrue(eventually(lambda: not own_threads()))
        self.assertEqual(len(self.given), 5)

    def test_an_iterator_that_was_never_read_starts_nothing(self):
        prefetched(self.source, 2, Stop()).close()
        self.assertEqual((self.given, own_threads()), ([], []))

    def test_a_failure_comes_after_the_items_before_it(self):
        def failing():
            yield 1
            raise KeyError("the source's own")

        items = prefetched(failing, 8, Stop())
        self.assertEqual(next(items), 1)
        self.assertRaises(KeyError, next, items)


@unittest.skipIf(service.executable() is None, "rho is not built")
class LeavingTest(unittest.TestCase):
    """A shard whose first chunk is cached, while the rest is leased by somebody who never scores it."""

    @classmethod
    def setUpClass(cls):
        cls.folder = TemporaryDirectory()
        folder = Path(cls.folder.name)
        service.make_reference(folder / "reference", "some text to learn a tokenizer of. " * 50)
        cls.scorer = service.Scorer(folder / "reference", "--cache", folder / "cache")
        cls.shard = TokenShard.from_array(np.random.default_rng(1).integers(0, 300, (3 * CHUNK, 64)))
        with ScorerClient(cls.scorer.address) as client:
            assert len(list(client.score_shard(cls.shard, end_sequence=CHUNK)))
        [lock] = (folder / "cache").glob("*/*.0.lock")
        cls.lease = open(lock, "r+b")
        fcntl.flock(cls.lease, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @classmethod
    def tearDownClass(cls):
        cls.lease.close()
        cls.scorer.close()
        cls.folder.cleanup()

    def setUp(self):
        self.client = ScorerClient(self.scorer.address)
        self.addCleanup(self.client.close)

    def blocks(self):
        """Blocks of a stream from which nothing comes after the first."""
        blocks = self.client.score_shard(self.shard)
        next(blocks)
        self.assertEqual(self.scorer.metric("rho_scoring_streams"), 1)
        return blocks

    def assert_nothing_left(self):
        self.assertTrue(eventually(lambda: self.scorer.metric("rho_scoring_streams") == 0), "the stream is still open at the scorer")
        self.assertEqual(self.scorer.metric("rho_scoring_queue_tokens"), 0)
        self.assertTrue(eventually(lambda: not own_threads()), own_threads())

    def test_closing_the_iterator(self):
        self.blocks().close()
        self.assert_nothing_left()

    def test_leaving_a_loop(self):
        for _ in self.client.score_shard(self.shard):
            break
        self.assert_nothing_left()

    def test_an_exception_in_a_loop(self):
        def read():
            for _ in self.client.score_shard(self.shard):
                raise KeyError("the reader's own")

        self.assertRaises(KeyError, read)
        self.assert_nothing_left()

    def test_dropping_the_iterator(self):
        blocks = self.blocks()
        del blocks
        self.assert_nothing_left()

    def test_closing_the_client_wakes_who_waits(self):
        blocks = self.blocks()
        failures = []

        def wait():
            try:
                next(blocks)
            except RhoError as error:
                failures.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        self.client.close()
        waiting.join(30)
        self.assertEqual(failures, ["the client is closed"])
        self.assert_nothing_left()
        self.assertRaisesRegex(RhoError, "the client is closed", list, self.client.score_shard(self.shard))

    def test_leaving_single_sequences(self):
        taken = threading.Event()

        def source():
            yield [1, 2, 3]
            taken.wait(30)

        for _ in self.client.score(source()):
            break
        taken.set()
        self.assert_nothing_left()

    def test_a_scorer_that_is_away_is_waited_for_no_longer(self):
        scorer = service.Scorer(Path(self.folder.name) / "reference")
        self.addCleanup(scorer.close)
        client = ScorerClient(scorer.address, budget=600)
        self.addCleanup(client.close)
        blocks = client.score_shard(self.shard)
        scorer.kill()
        reading = threading.Thread(target=lambda: self.assertRaises(RhoError, next, blocks))
        reading.start()
        self.assertTrue(eventually(own_threads))
        client.close()
        reading.join(30)
        self.assertFalse(reading.is_alive())
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
