"""Writes texts.json: the texts that every tokenizer here is compared on. python3 make_texts.py"""

import json
import os
import random
import unicodedata

folder = os.path.dirname(os.path.abspath(__file__))
random.seed(20240412)
corpus = open(os.path.join(folder, "corpus.txt"), encoding="utf-8").read()

texts = [
    "",
    " ",
    "  ",
    "\n",
    "a",
    " a",
    "Hello world!",
    "Hello  world   with    spaces     in      it",
    "   leading, trailing   ",
    "\t\ttabs\tand\r\nline ends\r\n\r\n\n\n  \n x",
    "The quick brown fox doesn't jump; it's 1234567890 years old, isn't it? YOU'LL SEE'S 'S 'T 'ſ x'sx 'LLama 'rest",
    " 's 't 're 've 'm 'll 'd 'S 'T 'RE 'VE 'M 'LL 'D",
    "<s>begin</s> <unk> <pad> <|endoftext|> <|im_start|>user\nhi<|im_end|>\n <|begin_of_text|> <| endoftext |>",
    "   <s>   spaced   </s>   <mask>   x<mask>y <word> x<word>y<word> _<word>",
    "[INST] <<SYS>>\nYou are helpful.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Bye [/INST]",
    "▁ already ▁▁ meta▁space ▁",
    "<0x41> <0x0A> <0xZZ> <0xff>",
    "é e\u0301 ê\u0323 ẹ\u0302 Å Å A\u030a ﬁ ﬃ ① ² ½ ㎏ ｆｕｌｌ ｗｉｄｔｈ ﷺ",
    "q\u0307\u0323 q\u0323\u0307 a\u0315\u0300\u05ae\u0062 \u1100\u1161\u11a8 가\u11a8 각 \u0344 \u2126 \u212b",
    "İstanbul ISTANBUL ıi ΣΑΣ ß ẞ Ǆ ǅ",
    "👍 👍🏽 👩‍👩‍👧‍👦 🇩🇪🇫🇷 🏳️‍🌈 1️⃣ ☃ ☃️ 🤦🏼‍♂️ 😀😃😄",
    "\u0000\u0001\u0002 \u0007\u0008 \u001b[31mred\u001b[0m \u007f \u0080\u0085\u009f \u00a0 \u00ad \u200b\u200c\u200d\u200e \u2028\u2029 \u3000 \ufeff \ufffd \ufffe",
    "𝒜𝓁𝓅𝒽𝒶 𝟘𝟙𝟚 𐍈𐌰 𠀀𠀁 \U0001F9EC \U000E0041 \U0010FFFF",
    "中文没有空格的一句话,混合English和123数字。「引用」!?",
    "日本語のテキスト、カタカナとｶﾀｶﾅ。",
    "한국어 텍스트 ㄱㄴㄷ",
    "ไทยไม่มีช่องว่าง กำ",
    "हिन्दी क्षत्रिय",
    "שָׁלוֹם العَرَبِيَّة",
    "٣٤٥ ४५६ ⅣⅧ ⁵₆ 12٣4",
    "def f(x):\n\treturn x**2  # comment\n\n\nclass A:\n    def __init__(self):\n        self.x = {'a': [1, 2, 3]}\n",
    "for(;;){a[i]+=b->c;}//x\n/* y */ #include <stdio.h>\n",
    "\\frac{1}{2}\\left(\\sum_{i=1}^{n}x_i\\right)^{2} $$\\alpha\\beta$$ \\\\ & \\hline",
    "snake_case camelCase PascalCase kebab-case SCREAMING_CASE x1y2z3 __dunder__",
    "https://example.com/a/b?c=d&e=f#g user@example.com 192.168.0.1 2024-01-31T12:34:56Z",
    "!!!???...,,,;;;:::---___+++===***///\\\\\\|||~~~^^^```",
    "''\"\"''\"\" ‘quoted’ “double” «guillemets» – — …",
    "1" * 50 + " " + "12345678901234567890",
    "a" * 300,
    "ab" * 200,
    "x" + " " * 100 + "y" + "\n" * 50 + "z",
    "▁" * 20 + "x",
    "the the the the theThe THE tHe",
    "word\n\n \n  word \n\tword\n",
    " \n \r \t x",
    "ends with space ",
    "ends with newline\n",
    "ends with spaces   ",
    "\u1680\u2000\u2001\u202f\u205f spaces",
    "ab\u0300\u0301\u0302\u0303\u0304cd",
]
texts += [line for line in corpus.split("\n") if line.strip()][::3]
texts.append(corpus[:1500])

for length in (20, 60, 200):
    for _ in range(4):
        texts.append(bytes(random.randrange(256) for _ in range(length)).decode("utf-8", errors="replace"))
pool = [c for c in sorted(set(corpus))] + list(" \n\t'\"<>|_▁é\u0301👍𝒜\u200d中ن") * 3
for length in (10, 30, 80, 160):
    for _ in range(8):
        texts.append("".join(random.choice(pool) for _ in range(length)))
ranges = [(0, 0x250), (0x250, 0x3000), (0x3000, 0xD7FF), (0xE000, 0xFFFD), (0x10000, 0x1FFFF)]


def old_character():
    """A character that is the same in every version of Unicode since 3.2: implementations follow different ones."""
    while True:
        c = chr(random.randint(*random.choice(ranges)))
        if unicodedata.ucd_3_2_0.category(c) == unicodedata.category(c) != "Cn":
            return c


texts += ["".join(old_character() for _ in range(40)) for _ in range(20)]
words = corpus.split()
for _ in range(20):
    texts.append("".join(random.choice(words) + random.choice([" ", "  ", "\n", "", "</s>", "<|im_end|>", " <s> ", ", "]) for _ in range(15)))

with open(os.path.join(folder, "texts.json"), "w", encoding="utf-8") as out:
    json.dump(texts, out, ensure_ascii=True, indent=0)
