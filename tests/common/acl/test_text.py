"""The text: sections, lines, limits, and every bad line at once with its number."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.acl import text as module
from common.acl.text import DEFAULTS, LISTS, MAX_LINE, MAX_SIZE, MAX_TOLD, read_file, read_rules
from common.errors import ConfigError

WHOLE = """\
# rules
[bypass_all]

[proxy_list]
192.0.2.1
2001:db8::/32   # documentation
|www.example.com
||example.net
(^|\\.)example\\.org$
^tracker[0-9]+\\.

[bypass_list]
10.0.0.0/8
"""


def problems(text):
    with pytest.raises(ConfigError) as caught:
        read_rules(text, "rules.acl")
    return caught.value.problems


def held(rules, name):
    """Say which of some names and addresses a list holds."""
    things = (
        "www.example.com",
        "a.example.net",
        "a.example.org",
        "tracker1.a",
        "192.0.2.1",
        "2001:db8::1",
        "10.1.1.1",
    )
    found = rules.lists[name]
    return [
        thing
        for thing in things
        if (ipaddress.ip_address(thing) in found.networks if thing[-1].isdigit() else thing in found.names)
    ]


def check_whole(rules):
    assert held(rules, "proxy") == [
        "www.example.com",
        "a.example.net",
        "a.example.org",
        "tracker1.a",
        "192.0.2.1",
        "2001:db8::1",
    ]
    assert held(rules, "bypass") == ["10.1.1.1"]
    assert held(rules, "outbound_block") == held(rules, "outbound_allow") == []
    assert rules.defaults == {"proxy": False, "outbound": True}
    assert rules.warnings == []


@pytest.mark.parametrize(
    "form",
    [
        WHOLE,
        WHOLE.removesuffix("\n"),
        WHOLE.replace("\n", "\r\n"),
        WHOLE.replace("\n", "\r"),
        "\ufeff" + WHOLE,
        WHOLE.replace("\n", " \t\n  "),
        WHOLE.replace("_all", "_ALL").replace("[p", "[P"),
        WHOLE.replace("\n\n", "\n\n# more\n   # indented\n\n"),
    ],
    ids=["plain", "no last newline", "CRLF", "CR", "BOM", "blanks", "upper case", "comments"],
)
def test_every_form_of_a_text(form):
    check_whole(read_rules(form, "rules.acl"))


def test_an_empty_text_is_no_rules():
    for text in ("", "\n", "\ufeff", "# nothing\n\n"):
        rules = read_rules(text, "rules.acl")
        assert rules.defaults == {"proxy": True, "outbound": True}
        assert not any(each.names or each.networks for each in rules.lists.values())


@pytest.mark.parametrize("section", LISTS)
def test_lists_and_their_other_names(section):
    rules = read_rules(f"[{section}]\n10.0.0.0/8\n||example.net\n", "rules.acl")
    for name in rules.lists:
        assert held(rules, name) == (["a.example.net", "10.1.1.1"] if name == LISTS[section] else [])


@pytest.mark.parametrize("section", DEFAULTS)
def test_defaults(section):
    subject, value = DEFAULTS[section]
    rules = read_rules(f"[{section}]\n[{section}]\n", "rules.acl")
    assert rules.defaults == {"proxy": True, "outbound": True} | {subject: value}


def test_a_list_may_be_opened_again_and_a_default_closes_none():
    rules = read_rules(
        "[proxy_list]\n192.0.2.1\n[bypass_list]\n10.0.0.0/8\n[bypass_all]\n||example.net\n[white_list]\n2001:db8::1",
        "r",
    )
    assert held(rules, "proxy") == ["192.0.2.1", "2001:db8::1"]
    assert held(rules, "bypass") == ["a.example.net", "10.1.1.1"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("10.0.0.0/33", "not an IP address or network"),
        ("10.0.0.0/8/8", "not an IP address or network"),
        ("10.0.0.0/255.0.0.0", "not an IP address or network"),
        ("300.1.1.1", "not an IP address or network"),
        ("10.0.0", "not an IP address or network"),
        ("10.0.0.1-10.0.0.9", "not an IP address or network"),
        ("10.0.0.0/8 192.168.0.0/16", "not an IP address or network"),
        ("::1/129", "not an IP address or network"),
        ("fe80::1%eth0", "not an IP address or network"),
        ("[::1]", "not an IP address or network"),
        ("[::1]:80", "not an IP address or network"),
        ("::1 ::2", "not an IP address or network"),
        ("|", "not a host name"),
        ("||", "not a host name"),
        ("|||a", "not a host name"),
        ("||*.example.com", "not a host name"),
        ("||example.com^", "not a host name"),
        ("|http://example.com/", "not a host name"),
        ("||1.2.3.4", "an address stands alone, without |"),
        (
            "*.example.com",
            "character 1: nothing to repeat; all names under a domain are written ||example.com",
        ),
        ("(^|\\.example\\.com$", "character 19: a parenthesis is not closed"),
        ("(?!www)example", "character 1: look-ahead and look-behind are not supported"),
        ("[remote_dns]", "unknown section"),
        ("[bypass-list]", "unknown section"),
        ("[black-list]", "unknown section"),
        ("[proxy_list] 10.0.0.0/8", "a section stands alone on its line"),
        ("[bypass_list", "character 13: a bracket is not closed"),
        ("[accept_all]", "contradicts line 1"),
        ("a" * (MAX_LINE + 1), f"longer than {MAX_LINE} characters"),
        ("||b\udcfccher.example", "not printable text in UTF-8"),
        ("a\tb", "not printable text in UTF-8"),
        ("a\x00b", "not printable text in UTF-8"),
        ("a\u200bb", "not printable text in UTF-8"),
        ("a\u2028b", "not printable text in UTF-8"),
    ],
)
def test_bad_lines(line, problem):
    assert problems(f"[reject_all]\n[bypass_list]\n\n{line}\n10.0.0.0/8\n") == (
        f"rules.acl: line 4: {problem}",
    )


def test_all_bad_lines_are_told_at_once():
    text = "10.0.0.0/8\n[bypass_list]\n10.0.0.0/33\n||ok.example\n)\n[nonsense]\n|*\n"
    assert problems(text.replace("\n", "\r\n")) == (
        "rules.acl: line 1: a rule before any list, such as [bypass_list]",
        "rules.acl: line 3: not an IP address or network",
        "rules.acl: line 5: character 1: a parenthesis that was not opened",
        "rules.acl: line 6: unknown section",
        "rules.acl: line 7: not a host name",
    )


def test_a_default_opens_no_list():
    assert problems("[proxy_all]\nexample\n") == (
        "rules.acl: line 2: a rule before any list, such as [bypass_list]",
    )


def test_the_number_of_problems_is_bounded():
    told = problems("bad\n" * (MAX_TOLD + 5))
    assert len(told) == MAX_TOLD + 1
    assert told[-1] == "rules.acl: 5 more lines like these"


def test_a_file_that_is_no_rules_is_not_quoted():
    text = '{\n  "server": "192.0.2.1",\n  "password": "hunter2",\n}\n'
    for whole in (
        text,
        "[bypass_list]\n" + text + "*hunter2\n|hunter2!\n10.0.0.0/hunter2\n10.0.0.0/8 hunter2\n",
    ):
        told = "\n".join(problems(whole))
        assert "hunter2" not in told
        assert "192.0.2.1" not in told


@pytest.mark.parametrize(
    "line", ["http://example.com/", "(^|\\.)# all of them$", "(^|\\.)a\\.com $", "1.2.3.4:80", "пример\\.рф"]
)
def test_a_rule_that_can_match_nothing_is_a_warning(line):
    """Lists in the wild hold some, which libev and rust take."""
    rules = read_rules(f"[bypass_list]\n{line}\n||example.net\n", "rules.acl")
    assert rules.warnings == ["rules.acl: line 2: no host name can match this"]
    assert held(rules, "bypass") == ["a.example.net"]


def test_comments_may_hold_anything():
    rules = read_rules("# \udcff\x00 " + "x" * 5000 + "\n[bypass_list]#\n10.0.0.0/8 # \udcff\n", "r")
    assert held(rules, "bypass") == ["10.1.1.1"]


def test_a_longest_rule():
    rules = read_rules("[bypass_list]\n" + "(example|" + "a" * (MAX_LINE - 10) + ")\n", "r")
    assert "a.example.net" in rules.lists["bypass"].names


def test_a_text_that_is_too_large():
    assert read_rules("#" * MAX_SIZE, "r").warnings == []
    assert problems("#" * (MAX_SIZE + 1)) == (f"rules.acl: larger than {MAX_SIZE} bytes",)


@given(st.text("ab.|[]()*+?{}\\^$#/:_1 \r\n\ufeff\udcffé\t", max_size=60))
def test_any_text_is_rules_or_a_config_error(text):
    told = ("rules.acl: line ",)
    try:
        read_rules("[bypass_list]\n" + text, "rules.acl")
    except ConfigError as exc:
        told = exc.problems
    assert told
    assert all(line.startswith("rules.acl: line ") and line.isprintable() for line in told)


# -- files -------------------------------------------------------------------------------------------


def test_a_file(tmp_path):
    path = tmp_path / "rules.acl"
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode() + b"# \xb9\xe6\xd4\xf2\r\n")
    check_whole(read_rules(read_file(str(path)), str(path)))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.acl: No such file or directory$"):
        read_file(str(tmp_path / "nothing.acl"))
    with pytest.raises(ConfigError, match=r": not a file name$"):
        read_file("a\0b")


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_SIZE", 100)
    path = tmp_path / "rules.acl"
    path.write_bytes(b"#" * 100)
    assert read_file(str(path)) == "#" * 100
    path.write_bytes(b"#" * 101)
    with pytest.raises(ConfigError, match=r"larger than 100 bytes$"):
        read_file(str(path))
