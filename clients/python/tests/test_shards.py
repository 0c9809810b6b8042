import hashlib
import unittest

import numpy as np

from rho_client import RhoError, TokenShard, decode_losses


class TokenShardTest(unittest.TestCase):
    def test_hash_is_that_of_the_stored_tokens(self):
        tokens = np.arange(60, dtype="<u2").reshape(6, 10)
        expected = hashlib.sha256(b"U16 6 10\n" + tokens.tobytes()).hexdigest()
        self.assertEqual(TokenShard.from_array(tokens.astype(np.int64)).sha256, expected)
        wide = tokens.astype("<u4") + 70_000
        self.assertEqual(TokenShard.from_array(wide).sha256, hashlib.sha256(b"U32 6 10\n" + wide.tobytes()).hexdigest())

    def test_layout_of_documents_and_padding(self):
        documents = [[0, 0, 1, 1, -1, -1], [0, 1, 0, 2, 2, 2], [-1, 0, 0, -1, 0, 1], [3, 3, 3, 3, 3, 3]]
        shard = TokenShard.from_array(np.zeros((4, 6), int), documents)
        self.assertEqual(shard.layout(0, 4, False).tolist(), [[0, 0, 1, 0, 2, 2], [0, 1, 1, 1, 0, 0], [2, 0, 0, 2, 0, 1], [0, 0, 0, 0, 0, 0]])
        self.assertEqual(shard.layout(1, 2, True).tolist(), [[0, 0, 0, 0, 0, 0], [2, 0, 0, 2, 0, 0]])
        self.assertEqual(shard.layout_sha256(False), hashlib.sha256(shard.layout(0, 4, False).tobytes()).hexdigest())
        plain = TokenShard.from_array(np.zeros((4, 6), int), np.zeros((4, 6), int))
        self.assertEqual(plain.layout_sha256(False), "")

    def test_blocks_cover_the_shard_in_order(self):
        tokens = np.random.default_rng(1).integers(0, 1000, (50, 333))
        documents = np.minimum(np.arange(333) // 50, 5)[None].repeat(50, 0)
        shard = TokenShard.from_array(tokens, documents)
        for size in (100, 999, 5000, 80_000):
            position, seen, layout = 0, b"", b""
            for first, part, marks in shard.blocks(False, size, 0, 50):
                self.assertEqual(first, position)
                self.assertLessEqual(len(part) + len(marks), size)
                position += len(marks)
                seen += part
                layout += marks
            self.assertEqual(seen, tokens.astype("<u2").tobytes())
            self.assertEqual(layout, shard.layout(0, 50, False).tobytes())
            some = list(shard.blocks(False, size, 7, 9))
            self.assertEqual(some[0][0], 7 * 333)
            self.assertEqual(b"".join(part for _, part, _ in some), tokens[7:9].astype("<u2").tobytes())

    def test_bad_arrays_are_refused(self):
        for bad in (np.zeros(3, int), np.zeros((2, 2)), np.array([[1, -1]]), np.zeros((2, 0), int)):
            self.assertRaises(RhoError, TokenShard.from_array, bad)


class EncodingTest(unittest.TestCase):
    def test_f16_and_f32_are_what_they_say(self):
        values = np.array([0.0, 1.5, 12.25, np.nan], np.float32)
        np.testing.assert_array_equal(decode_losses(values.astype("<f2").tobytes(), "f16"), values)
        np.testing.assert_array_equal(decode_losses(values.astype("<f4").tobytes(), "f32"), values)

    def test_log8_follows_its_formula(self):
        values = decode_losses(bytes(range(256)), "log8")
        np.testing.assert_allclose(values[:255], (129 ** (np.arange(255) / 254) - 1) / 4, rtol=1e-6)
        self.assertTrue(np.isnan(values[255]))


if __name__ == "__main__":
    unittest.main()
