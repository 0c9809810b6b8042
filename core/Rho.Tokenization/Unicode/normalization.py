"""Writes normalization.txt, the tables of UnicodeNormalization.cs, from Python's unicodedata: python3 normalization.py

One line per character that has any entry: code point; combining class; forms that leave it alone wherever it stands
(a sum of 1 NFC, 2 NFD, 4 NFKC, 8 NFKD); full canonical decomposition; full compatibility decomposition where it differs;
the pair that composes to it. Hangul syllables are computed, not listed.

The tables are those of Unicode 11, since Hugging Face tokenizers normalize by that version and ids have to be the same:
characters that came later are left out.
"""

import os
import sys
import unicodedata

FORMS = {"NFC": 1, "NFD": 2, "NFKC": 4, "NFKD": 8}


def hexes(text):
    return " ".join(f"{ord(c):X}" for c in text)


NEWER = [
    (0x898, 0x89F), (0x8CA, 0x8D2), (0xC3C, 0xC3C), (0xEBA, 0xEBA), (0x1715, 0x1715), (0x1ABF, 0x1ACE), (0x1DFA, 0x1DFA),
    (0x32FF, 0x32FF), (0xA7F2, 0xA7F4), (0xA82C, 0xA82C), (0xAB69, 0xAB69), (0x10781, 0x10785), (0x10787, 0x107B0),
    (0x107B2, 0x107BA), (0x10EAB, 0x10EAC), (0x10F82, 0x10F85), (0x11070, 0x11070), (0x11930, 0x11930), (0x11938, 0x11938),
    (0x1193D, 0x1193E), (0x11943, 0x11943), (0x119E0, 0x119E0), (0x16FF0, 0x16FF1), (0x1E130, 0x1E136), (0x1E2AE, 0x1E2AE),
    (0x1E2EC, 0x1E2EF), (0x1F16C, 0x1F16C), (0x1FBF0, 0x1FBF9),
]


def listed(cp):
    return not (0xD800 <= cp < 0xE000 or 0xAC00 <= cp < 0xD7A4 or any(first <= cp <= last for first, last in NEWER))


lines = []
pairs = {}
for cp in range(sys.maxunicode + 1):
    if not listed(cp):
        continue
    raw = unicodedata.decomposition(chr(cp))
    if raw and not raw.startswith("<") and " " in raw:
        pair = "".join(chr(int(part, 16)) for part in raw.split())
        if unicodedata.normalize("NFC", pair) == chr(cp):
            pairs[cp] = pair

seconds = {pair[1] for pair in pairs.values()} | {chr(c) for c in range(0x1161, 0x1176)} | {chr(c) for c in range(0x11A8, 0x11C3)}

for cp in range(sys.maxunicode + 1):
    if not listed(cp):
        continue
    c = chr(cp)
    combining = unicodedata.combining(c)
    safe = 0
    for form, bit in FORMS.items():
        composes = form in ("NFC", "NFKC") and c in seconds
        if unicodedata.normalize(form, c) == c and combining == 0 and not composes:
            safe |= bit
    canonical = unicodedata.normalize("NFD", c)
    compatibility = unicodedata.normalize("NFKD", c)
    if safe == 15 and combining == 0:
        continue
    lines.append(
        f"{cp:X};{combining or ''};{safe};{hexes(canonical) if canonical != c else ''};"
        f"{hexes(compatibility) if compatibility != canonical else ''};{hexes(pairs.get(cp, ''))}"
    )

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "normalization.txt"), "w", encoding="ascii") as out:
    out.write(f"# Unicode 11, written by normalization.py\n")
    out.write("\n".join(lines) + "\n")
