"""Renders the chat templates of templates/ with Jinja, set up as transformers sets it up, and writes templates.json.gz.

The template texts are those that the models are published with. Needs Debian's python3-jinja2 (3.1.2):
python3 make_templates.py [FOLDER OF OTHER TEMPLATES, RESULT]
"""

import datetime
import functools
import glob
import gzip
import json
import os
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

folder = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime(2024, 7, 6, 5, 4, 3)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = NOW.strftime

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
USER = {"role": "user", "content": "What is 2 + 2?"}
ANSWER = {"role": "assistant", "content": " 4, of course.\n"}
SYSTEM = {"role": "system", "content": "  You are terse.\nAnd \"kind\" & <polite>. \u2028 é 👍 "}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city: \"now\", with <units> & more; ñ.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "default": 1.5}},
            "required": ["city"],
        },
        "return": {"type": "number"},
    },
}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "id": "abcdefghi", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": "2"}}}],
}
TEXT_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "id": "abcdefghi", "function": {"name": "get_weather", "arguments": "{\"city\": \"Zürich\"}"}}],
}
TWO_CALLS = {**TEXT_CALL, "content": None, "tool_calls": TEXT_CALL["tool_calls"] * 2}
RESULT = {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "22.5"}
THOUGHT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFour."}
CONVERSATIONS = {
    "user": [USER],
    "system": [SYSTEM, USER],
    "several": [USER, ANSWER, USER],
    "system_several": [SYSTEM, USER, ANSWER, USER, ANSWER],
    "assistant_last": [USER, ANSWER],
    "wrong_order": [ANSWER, USER],
    "thought": [USER, THOUGHT, USER],
    "thought_last": [SYSTEM, USER, THOUGHT],
    "reasoning": [USER, {"role": "assistant", "content": "Four.", "reasoning_content": "\nhm\n"}],
    "call": [USER, CALL, RESULT],
    "call_answered": [SYSTEM, USER, CALL, RESULT, ANSWER, USER],
    "text_call": [USER, TEXT_CALL, RESULT, RESULT, ANSWER],
    "two_calls": [USER, TWO_CALLS, RESULT, RESULT],
    "mapping_result": [USER, CALL, {**RESULT, "content": {"temperature": 22.5, "rain": False, "more": None}}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "part one"}, {"type": "text", "text": "part two"}]}],
    "empty": [],
}
VARIABLES = [
    {},
    {"tools": [WEATHER]},
    {"tools": [WEATHER], "tools_in_user_message": False, "date_string": "1 Jan 2025"},
    {"builtin_tools": ["get_weather", "code_interpreter"]},
    {"enable_thinking": False},
    {"enable_thinking": True, "thinking": True},
]

# What single constructs give: each line is a template of its own.
FEATURES = r"""
{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 1.0 }} {{ 1e3 }} {{ 0.1 + 0.2 }} {{ 1 == 1.0 }} {{ 2 ** -1 }}
{{ 1e16 }} {{ 123456789012345.6 }} {{ 0.0001 }} {{ 0.00001 }} {{ -0.5 }} {{ 1.5e-7 }} {{ 1e22 }} {{ 1000000.0 }}
{{ 'a' ~ 1 ~ none ~ true ~ undefined_thing ~ [1, 'b', none] }} {{ 'a' 'b' }} {{ 'x' * 3 }} {{ "tab\tq\"uote\\ \u00e9 \x41" }}
{{ [1, 2, 3][0] }} {{ [1, 2, 3][-1] }} {{ [1, 2, 3, 4][1:3] }} {{ [1, 2, 3, 4][::-1] }} {{ 'hello'[1:] }} {{ 'hello'[:-1] }} {{ 'hello'[::2] }} {{ 'hé👍llo'[2] }} {{ 'hé👍llo'|length }} {{ 'hello'[-3:-1] }} {{ [1,2,3,4,5][3:0:-2] }}
{{ {'a': 1, 'b': [1, 2.5, "x'y"], 3: (1,), 'n': none} }} {{ (1, 2) }} {{ () }} {{ {} }} {{ "it's" }} {{ ["it's", 'q"', 'n\n', '\t', 'é', '\u200b'] }}
{{ 'a' in 'abc' }} {{ 1 in [1, 2] }} {{ 'k' in {'k': 1} }} {{ 'z' not in 'abc' }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ not 1 == 2 }}
{{ none is none }} {{ x is defined }} {{ x is not defined }} {{ 1 is odd }} {{ 2 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is sequence }} {{ 1 is number }} {{ 1.0 is float }} {{ true is boolean }} {{ 1 is integer }} {{ true is integer }} {{ 'x' is iterable }} {{ true is true }} {{ 1 is true }} {{ 3 is eq 3 }} {{ 3 is in [1, 3] }} {{ 'a' is sameas 'a' }} {{ none is not none and 1 }}
{{ 'yes' if 1 else 'no' }} {{ 'yes' if 0 else 'no' }} {{ 'yes' if 0 }} {{ 1 or 2 }} {{ 0 or 2 }} {{ 1 and 2 }} {{ 0 and 2 }} {{ not 0 }} {{ none or 'd' }}
{{ ' x '|trim }}|{{ 'xyx'|trim('x') }}|{{ 'AbC'|lower }}|{{ 'AbC'|upper }}|{{ 'hello world'|title }}|{{ 'hELLO'|capitalize }}|{{ [1, 2]|join(', ') }}|{{ [1, 2]|first }}|{{ [1, 2]|last }}|{{ 'abc'|reverse }}|{{ [3, 1, 2]|sort }}|{{ ['b', 'A']|sort }}|{{ [3, 1]|sort(reverse=true) }}
{{ x|default('d') }} {{ ''|default('d') }} {{ ''|default('d', true) }} {{ none|default('d') }} {{ x|d }}| {{ 'a-b'|replace('-', '+') }} {{ 'aaa'|replace('a', 'b', 2) }} {{ '5'|int + 1 }} {{ 'x'|int }} {{ '2.5'|float }} {{ 3.7|int }} {{ -3|abs }} {{ 3.14159|round(2) }} {{ 2.5|round }} {{ 2.1|round(0, 'ceil') }} {{ [1, 2, 3]|sum }} {{ [1, 5, 2]|max }} {{ [4, 2]|min }}
{{ [{'n': 1, 'r': 'u'}, {'n': 2, 'r': 'a'}]|map(attribute='n')|list }} {{ ['a', 'b']|map('upper')|join }} {{ [1, 2, 3, 4]|select('even')|list }} {{ [1, 2, 3]|reject('equalto', 2)|list }} {{ [{'r': 'u'}, {'r': 'a'}]|selectattr('r', 'equalto', 'u')|list }} {{ [{'r': 'u'}, {'r': 'a'}]|rejectattr('r', 'equalto', 'u')|list }} {{ [0, 1, '']|select|list }} {{ [1, 1, 2]|unique|list }} {{ {'b': 1, 'a': 2}|dictsort }} {{ {'b': 1}|items|list }}
{{ {'a': [1, 2], 'b': none, 'c': true, 'd': 1.5, 'e': 'é"\n<&>\u2028'}|tojson }} {{ [1, {'a': []}]|tojson(indent=2) }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ {'a': 'é👍'}|tojson(ensure_ascii=true) }} {{ [1, 2]|tojson(separators=(',', ':')) }} {{ []|tojson(indent=2) }} {{ {}|tojson(indent=4) }}
{{ ' a b '.strip() }}|{{ 'xxaxx'.lstrip('x') }}|{{ 'xxaxx'.rstrip('x') }}|{{ 'a,b,c'.split(',') }}|{{ 'a,b,c'.split(',', 1) }}|{{ ' a  b '.split() }}|{{ 'a b c'.rsplit(' ', 1) }}|{{ 'abc'.startswith('a') }}|{{ 'abc'.endswith(('x', 'c')) }}|{{ 'a'.upper() }}|{{ 'abc'.replace('b', '') }}|{{ 'abcb'.find('b') }}|{{ 'abcb'.rfind('b') }}|{{ 'abcb'.count('b') }}|{{ '-'.join(['a', 'b']) }}|{{ 'a\nb\r\nc'.splitlines() }}|{{ 'hello world'.title() }}|{{ '12'.isdigit() }}|{{ 'abc'.removeprefix('a') }}|{{ 'abc'.removesuffix('c') }}|{{ 'aXb'.lower() }}
{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 3) }} {% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %} {% for k in {'a': 1}.keys() %}{{ k }}{% endfor %} {% for v in {'a': 1}.values() %}{{ v }}{% endfor %} {{ {'items': 1}['items'] }} {{ {'a': {'b': 2}}.a.b }} {{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }}
{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }};{% endfor %}{% for x in [] %}x{% else %}none{% endfor %}{% for i in range(10) if i is odd %}{{ i }}{{ loop.length }}{% endfor %}{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}
{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{% if true %}{% set y = 5 %}{% endif %}{{ y }}{% set a, b = 1, 2 %}{{ a }}{{ b }}
{% set t %}in {{ 1 }} block{% endset %}[{{ t }}]{% set t | upper | trim %} shout {% endset %}[{{ t }}]{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% macro m(a, b=2) %}({{ a }},{{ b }},{{ c }}){% endmacro %}{% set c = 9 %}{{ m(1) }}{{ m(1, b=3) }}{{ m() }}{% macro fact(n) %}{% if n < 2 %}1{% else %}{{ n * fact(n - 1)|int }}{% endif %}{% endmacro %}{{ fact(5) }}
{% raw %}{{ raw }} {% if %}{% endraw %}{# comment {{ x }} #}x{#- c -#}  y {%- if true -%}  z  {%- endif -%} w {{- 'a' -}} b
{% if 0 %}a{% elif 1 %}b{% else %}c{% endif %}{% if none %}{% else %}d{% endif %}{%+ if true %} e{%+ endif %}
{{ x.y }}
{{ x }}|{{ messages[5] }}|{{ messages[0].nothing }}|{{ messages[0].role }}
{{ undefined_function() }}
{{ raise_exception('told so') }}
{{ 'a' + 1 }}
{{ 1 / 0 }}
{{ {'a': 1}.update({'b': 2}) }}
{{ [1].append(2) }}
{{ dict(a=1, b='x') }} {{ namespace(a=1).a }} {{ strftime_now('%d %B %Y %H:%M:%S %j %y %b %a %A %p %I %-d %%') }} {{ range(3)|list }}
{% generation %}marked{% endgeneration %} {{ true and false or true }} {{ [1, 2] + [3] }} {{ 'abc'|list }} {{ 'a b c'|wordcount }} {{ '<&>'|e }} {{ 'a\nb'|indent(2) }} {{ 'a\nb'|indent(2, true) }} {{ 'x'|string }}
{{ messages|length }} {{ messages|map(attribute='role')|join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ (messages|first).content }} {{ messages[-1]['content'][0:4] }}
""".strip().split("\n")

LAYOUT = [
    "  {% if true %}\n  a\n  {% endif %}\nb\n",
    "a\n\n{% if true %}\n\n  b\n{% endif %}  \n\n",
    "{% for i in [1, 2] %}\n{{ i }}\n{% endfor %}\n",
    "x  {%- if true %}\n  y\n  {%- endif %}\n z",
    "x {%+ if true %}\n  y {%+ endif +%}\n z",
    " {# c #}\n x {# c #} y\n {#- c -#} \n z",
    "\t{% set x = 1 %}\t{{ x }}\r\nnext\r\n",
    "{{ 'a' }}\n{{ 'b' }}\n\n",
    "  {{ 1 }}  \n  {% if 1 %}x{% endif %}  {% if 1 %}y{% endif %}\n",
    "{% raw %}\n  {{ x }}\n  {% endraw %}\n y",
    "a {{- ' b ' -}} c\n{{ '-' -}}\n  d",
]


@functools.lru_cache(maxsize=None)
def compiled(template):
    return env.from_string(template)


def render(template, messages, variables, prompt):
    try:
        text = compiled(template).render(
            messages=messages, add_generation_prompt=prompt, **{"tools": None, "documents": None, **variables}, **TOKENS)
        return {"text": text}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def cases(template, conversations, variables):
    for name, messages in conversations.items():
        for prompt in (False, True):
            seen = []
            for extra in variables:
                rendered = render(template, messages, extra, prompt)
                if rendered not in seen:
                    yield {"conversation": name, "variables": extra, "prompt": prompt, **rendered}
                seen.append(rendered)


sources = {}
for path in sorted(glob.glob(os.path.join(sys.argv[1] if len(sys.argv) > 1 else os.path.join(folder, "templates"), "**/*.jinja"), recursive=True)):
    sources[os.path.basename(path)] = open(path, encoding="utf-8", newline="").read()
result = {
    "tokens": TOKENS,
    "now": NOW.isoformat(),
    "conversations": CONVERSATIONS,
    "templates": [{"name": name, "source": source, "cases": list(cases(source, CONVERSATIONS, VARIABLES))} for name, source in sources.items()],
    "features": [{"source": source, **render(source, CONVERSATIONS["several"], {}, True)} for source in FEATURES + LAYOUT],
}
with open(sys.argv[2] if len(sys.argv) > 2 else os.path.join(folder, "templates.json.gz"), "wb") as out:
    out.write(gzip.compress(json.dumps(result).encode(), mtime=0))
