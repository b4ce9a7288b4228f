"""W15: the hosts file, every line of it, and again when it changes."""

from __future__ import annotations

import os
import sys

import pytest

from common.net.hosts import LOOPBACK, HostsFile, hosts_path, parse_hosts
from common.proto.address import parse_ip


def addresses(*texts):
    return tuple(map(parse_ip, texts))


def test_every_line_of_a_name_counts_and_comments_do_not():
    """W15: ``::1 localhost`` does not hide 127.0.0.1."""
    table = parse_hosts(
        [
            "# 10.0.0.1 comment\n",
            "127.0.0.1 localhost # loopback localhost2\n",
            "::1\tlocalhost  ip6-localhost\n",
            "  10.0.0.9   Both.Example. both   #x\r\n",
            "2001:db8::9 both.example\n",
            "127.0.0.1 localhost\n",
            "not-an-address name\n",
            "10.0.0.1\n",
            "\n",
            "#",
        ]
    )
    assert table == {
        "localhost": addresses("127.0.0.1", "::1"),
        "ip6-localhost": addresses("::1"),
        "both.example": addresses("10.0.0.9", "2001:db8::9"),
        "both": addresses("10.0.0.9"),
    }


def test_a_zone_is_kept():
    assert str(parse_hosts(["fe80::1%lo0 localhost"])["localhost"][0]) == "fe80::1%lo0"


def test_the_file_is_read_again_when_it_changed(tmp_path):
    """W15: reloaded."""
    path = tmp_path / "hosts"
    hosts = HostsFile(str(path))
    assert hosts.lookup("a.test") == ()
    path.write_text("10.0.0.1 a.test\n")
    assert hosts.lookup("a.test") == addresses("10.0.0.1")
    path.write_text("10.0.0.22 a.test\n")
    assert hosts.lookup("a.test") == addresses("10.0.0.22")
    other = tmp_path / "new"
    other.write_text("10.0.0.33 a.test\n")
    os.utime(other, ns=(path.stat().st_mtime_ns,) * 2)
    other.replace(path)  # same size, same time, another file
    assert hosts.lookup("a.test") == addresses("10.0.0.33")
    path.unlink()
    assert hosts.lookup("a.test") == ()


def test_an_unchanged_file_is_not_read_again(tmp_path, monkeypatch):
    path = tmp_path / "hosts"
    path.write_text("10.0.0.1 a.test\n")
    hosts = HostsFile(str(path))
    hosts.lookup("a.test")
    monkeypatch.setattr(hosts, "_read", lambda: pytest.fail("read again"))
    assert hosts.lookup("a.test") == addresses("10.0.0.1")


def test_localhost_needs_no_file(tmp_path):
    """RFC 6761 section 6.3."""
    hosts = HostsFile(str(tmp_path / "none"))
    assert hosts.lookup("localhost") == LOOPBACK
    assert hosts.lookup("app.localhost") == LOOPBACK
    assert hosts.lookup("notlocalhost") == ()


def test_a_file_decides_about_localhost_when_it_speaks_of_it(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    assert HostsFile(str(path)).lookup("localhost") == addresses("127.0.0.1")


def test_bytes_that_are_no_text_do_no_harm(tmp_path):
    path = tmp_path / "hosts"
    path.write_bytes(b"10.0.0.1 \xff\xfe\x00\n10.0.0.2 a.test\n")
    assert HostsFile(str(path)).lookup("a.test") == addresses("10.0.0.2")


def test_a_file_that_cannot_be_read_is_empty(tmp_path):
    assert HostsFile(str(tmp_path)).lookup("a.test") == ()  # a directory


def test_where_the_file_is(monkeypatch):
    assert hosts_path() == "/etc/hosts"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("SYSTEMROOT", r"D:\Windows")
    assert hosts_path().replace("/", "\\") == r"D:\Windows\System32\drivers\etc\hosts"
