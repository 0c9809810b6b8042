import math
import unittest

import numpy as np

try:
    import torch
    from rho_client import select_tokens, selective_loss
except ImportError:
    torch = None


def oracle(logits, labels, reference, ratio, ignore_index=-100):
    """The definition, token by token, in float64."""
    candidates = []
    for b in range(labels.shape[0]):
        for t in range(1, labels.shape[1]):
            if labels[b, t] == ignore_index or math.isnan(reference[b, t]):
                continue
            row = logits[b, t - 1].astype(np.float64)
            loss = math.log(np.exp(row - row.max()).sum()) + row.max() - row[labels[b, t]]
            candidates.append((loss - reference[b, t], loss, (b, t)))
    count = max(1, math.ceil(round(ratio * len(candidates), 9)))
    ranked = sorted(range(len(candidates)), key=lambda i: (-candidates[i][0], i))[:count]
    return sum(candidates[i][1] for i in ranked) / count, {candidates[i][2] for i in ranked}


@unittest.skipIf(torch is None, "PyTorch is not installed")
class SelectiveLossTest(unittest.TestCase):
    def setUp(self):
        random = np.random.default_rng(7)
        self.logits = random.normal(size=(3, 12, 20)).astype(np.float32)
        self.labels = random.integers(0, 20, (3, 12))
        self.labels[0, 5] = self.labels[2, 11] = -100
        self.reference = random.uniform(0, 5, (3, 12)).astype(np.float32)
        self.reference[:, 0] = np.nan
        self.reference[1, 7] = np.nan

    def test_equals_the_definition(self):
        for ratio in (0.1, 0.3, 0.6, 0.99, 1.0):
            loss, marks = selective_loss(torch.tensor(self.logits), torch.tensor(self.labels), self.reference, ratio, return_selected=True)
            expected, selected = oracle(self.logits, self.labels, self.reference, ratio)
            self.assertAlmostEqual(float(loss), expected, places=5)
            self.assertEqual({tuple(place) for place in marks.nonzero().tolist()}, selected)

    def test_gradient_reaches_selected_positions_only(self):
        logits = torch.tensor(self.logits, requires_grad=True)
        loss, marks = selective_loss(logits, torch.tensor(self.labels), self.reference, 0.4, return_selected=True)
        loss.backward()
        touched = logits.grad.abs().sum(-1) > 0
        self.assertEqual(touched[:, :-1].tolist(), marks[:, 1:].tolist())
        self.assertFalse(touched[:, -1].any())

    def test_ratio_one_is_plain_cross_entropy(self):
        labels = torch.tensor(self.labels)
        reference = torch.zeros(3, 12)
        plain = torch.nn.functional.cross_entropy(torch.tensor(self.logits)[:, :-1].reshape(-1, 20), labels[:, 1:].reshape(-1))
        self.assertAlmostEqual(float(selective_loss(torch.tensor(self.logits), labels, reference, 1.0)), float(plain), places=5)

    def test_sums_of_micro_batches_make_the_step(self):
        whole, count = selective_loss(torch.tensor(self.logits), torch.tensor(self.labels), self.reference, 1.0, reduction="sum")
        parts = [selective_loss(torch.tensor(self.logits[i:i + 1]), torch.tensor(self.labels[i:i + 1]), self.reference[i:i + 1], 1.0, reduction="sum") for i in range(3)]
        self.assertEqual(count, sum(part[1] for part in parts))
        self.assertAlmostEqual(float(whole), float(sum(part[0] for part in parts)), places=4)

    def test_without_shift_everything_is_aligned_with_labels(self):
        logits, labels = torch.tensor(self.logits), torch.tensor(self.labels)
        shifted, marks = selective_loss(logits, labels, self.reference, 0.5, return_selected=True)
        aligned, same = selective_loss(logits[:, :-1], labels[:, 1:], self.reference[:, 1:], 0.5, shift=False, return_selected=True)
        self.assertEqual(float(shifted), float(aligned))
        self.assertEqual(marks[:, 1:].tolist(), same.tolist())

    def test_ties_go_to_earlier_positions_and_nan_never(self):
        marks = select_tokens(torch.tensor([[1.0, math.nan, 2.0, 1.0], [1.0, -math.inf, 1.0, math.nan]]), 0.5)
        self.assertEqual(marks.tolist(), [[True, False, True, True], [False, False, False, False]])
        self.assertEqual(int(select_tokens(torch.full((100,), -math.inf), 0.07).sum()), 7)

    def test_infinite_losses_outside_the_selection_do_no_harm(self):
        logits = torch.tensor(self.logits)
        logits[0, 3, int(self.labels[0, 4])] = -math.inf
        reference = self.reference.copy()
        reference[0, 4] = np.nan
        self.assertTrue(math.isfinite(float(selective_loss(logits, torch.tensor(self.labels), reference, 0.5))))

    def test_no_candidates_is_zero(self):
        loss = selective_loss(torch.tensor(self.logits, requires_grad=True), torch.full((3, 12), -100), self.reference, 0.5)
        loss.backward()
        self.assertEqual(float(loss), 0.0)

    def test_bad_arguments_are_refused(self):
        logits, labels = torch.tensor(self.logits), torch.tensor(self.labels)
        for bad in (lambda: selective_loss(logits, labels, self.reference, 0.0),
                    lambda: selective_loss(logits, labels, self.reference[:, 1:], 0.5),
                    lambda: selective_loss(logits[0], labels, self.reference, 0.5),
                    lambda: selective_loss(logits, labels, self.reference, 0.5, reduction="none")):
            self.assertRaises(ValueError, bad)


if __name__ == "__main__":
    unittest.main()
