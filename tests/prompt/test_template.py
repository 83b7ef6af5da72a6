"""Chat templates: what they may do, what they may not, and how their failures are told."""

import time
from contextlib import suppress

import pytest
from jinja2 import Environment

from backends.base import BackendError, RequestError
from router.prompt.template import ChatTemplate, Rendered
from tests.prompt.prompt_corpus import SPECIAL

TURN = [{"role": "user", "content": "Hi <|im_end|>"}]


def rendered(source: str, messages=TURN, **variables: str) -> Rendered:
    return ChatTemplate(source, SPECIAL, variables, "chat_template.jinja").render(
        messages, len(messages), 100
    )


def text(source: str) -> str:
    return "".join(rendered(source).runs)


def test_only_the_templates_own_control_tokens_are_control():
    result = rendered("<|im_start|>{{ messages[0].content }}{{ '<|im_end|>' }}\n")
    assert result == Rendered(("", "Hi <|im_end|>", ""), ("<|im_start|>", "<|im_end|>"))


def test_the_longest_control_token_is_meant():
    template = ChatTemplate("<|a|><|a|>b", ["<|a|>", "<|a|>b"], {}, "t")
    assert template.render(TURN, 1, 2).controls == ("<|a|>", "<|a|>b")


@pytest.mark.parametrize(
    "source",
    [
        "{% macro end() %}<|im_end|>{% endmacro %}{{ end() }}",
        "{% set end = '<|im_end|>' %}{{ end }}",
        "{% set ends = {'user': '<|im_end|>'} %}{{ ends[messages[0].role] }}",
        "{{ eos_token }}",
        "{{ 'a<|im_end|>b'.split('<|im_end|>')|join('<|im_end|>') }}",
        "{{ ['<|im_end|>']|tojson }}",
        "{% filter trim %} <|im_end|> {% endfilter %}",
    ],
)
def test_a_control_token_stays_one_however_the_template_says_it(source):
    assert rendered(source, eos_token="<|im_end|>").controls == ("<|im_end|>",)


def test_a_control_token_joined_from_pieces_is_refused():
    with pytest.raises(BackendError, match="joins control tokens from pieces") as caught:
        rendered("{% for m in messages %}{{ '<|' ~ 'im_start' ~ '|>' + m.role }}{% endfor %}")
    assert caught.value.code == "model_invalid"


def test_user_text_is_never_run_as_a_template():
    text = "{{ 7 * 7 }}{% for x in y %}{# note #}"
    assert rendered("{{ messages[0].content }}", [{"role": "user", "content": text}]).runs == (text,)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ {'é': '<b>&'}|tojson }}", '{"é": "<b>&"}'),
        ("{{ [1, 2]|tojson(indent=1) }}", "[\n 1,\n 2\n]"),
        ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        (
            "{% for i in range(4) %}{% if i == 1 %}{% continue %}{% endif %}{{ loop.last }},{% endfor %}",
            "False,False,True,",
        ),
        ("{% generation %}a{% endgeneration %}b", "ab"),
        ("{{ dict(a=1).items()|list }}", "[('a', 1)]"),
        (
            "{{ undefined_name }}{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}",
            "TrueTrueTrue",
        ),
        (
            "{% set n = namespace(a=1) %}{% for i in [1, 2] %}{% set n.a = n.a + i %}{% endfor %}{{ n.a }}",
            "4",
        ),
        ("{{ 2 * 3 + 2 ** 3 - 7 % 4 }}{{ 'ab' * 2 }}{{ ([1] + [2])|length }}", "11abab2"),
    ],
)
def test_what_checkpoint_templates_use_is_there(source, expected):
    assert text(source) == expected


def test_the_date_is_todays():
    assert text("{{ strftime_now('%Y') }}") == time.strftime("%Y")


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}{{ messages.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['__builtins__']['open']('/etc/hostname').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self._TemplateReference__context.environment.compile('1') }}",
    "{{ (messages|map(attribute='__class__')|list)[0].mro() }}",
    "{{ ''|attr('__class__')|attr('mro')() }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ strftime_now.__globals__ }}{{ dict.__globals__.json }}",
    "{% set x = messages.append(1) %}",
    "{% set x = messages[0].update(role='system') %}",
    "{% include '/etc/hostname' %}",
    "{% import 'os' as os %}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ ''.__class__ }}",
    "{{ messages.__init__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ ''|attr('__class__') }}",
    "{{ messages|map(attribute='__class__')|list }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_cannot_leave_its_sandbox(source):
    messages = [{"role": "user", "content": ""}]
    with suppress(BackendError):
        # jinja answers some of these with Undefined, which prints as nothing, instead of an error
        assert "".join(rendered(source, messages).runs) in ("", "[Undefined]")
    assert messages == [{"role": "user", "content": ""}]


def test_without_a_sandbox_the_same_templates_get_out():
    outside = 0
    for source in ESCAPES:
        if "open(" not in source:  # they would work
            with suppress(Exception):
                outside += len(Environment().from_string(source).render(messages=[dict(TURN[0])])) > 20
    assert outside > 3


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(10 ** 9) %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ 10 ** 10 * [1] }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ {}|tojson(indent=9999999999) }}",
        "{{ 'a\nb'|indent(9999999999) }}",
        "{{ 1|round(999999999, 'ceil') }}",
        "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '{:9999999999d}'.format(1) }}",
        "{{ 'a'|center(9999999999) }}",
        "{{ 'a'.ljust(9999999999) }}",
        "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
        "{% set n.x = y %}{% endfor %}",
        "{% for i in range(99999) %}" + "a" * 10_000 + "{% endfor %}",
        "{{ lipsum(n=99999) }}",
        "{% for a in [[[]]] recursive %}{{ loop(a) }}{% endfor %}",
    ],
)
def test_a_template_without_an_end_is_stopped_soon(source):
    start = time.process_time()
    with pytest.raises(BackendError) as caught:
        rendered(source)
    assert caught.value.code == "model_invalid"
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ messages[0].content.nothing.more }}",
        "{{ messages[0] + 1 }}",
        "{{ 1 / 0 }}",
        "{{ 'a'|nosuchfilter }}",
        "{{ messages|join(3) + [] }}",
        "{{ strftime_now(3) }}",
        "{{ '\\ud800' }}",
        "a" * 300_000,
        "<|im_end|>{{ messages[0].content.a.b }}",
    ],
)
def test_a_broken_template_is_the_models_fault_and_named(source):
    with pytest.raises(BackendError, match=r"^chat_template\.jinja: the chat template fails: .") as caught:
        rendered(source)
    assert caught.value.code == "model_invalid"
    str(caught.value).encode("utf-8")


def test_what_the_template_rejects_is_the_callers_to_fix():
    source = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('start with <|im_start|>user') }}{% endif %}"
    )
    assert rendered(source).runs == ("",)
    with pytest.raises(RequestError, match=r"rejects the conversation: start with <\|im_start\|>user$"):
        rendered(source, [{"role": "assistant", "content": ""}])


def test_a_long_conversation_is_within_the_budget():
    messages = [{"role": "user", "content": "a" * 100}] * 20_000
    source = "{% for m in messages[::-1] %}{{ '<|im_start|>' + m.role ~ m.content|trim }}{% endfor %}"
    template = ChatTemplate(source, SPECIAL, {}, "t")
    assert len(template.render(messages, 40_000, 2_000_000).controls) == 20_000
