"""Where a local listens."""

from __future__ import annotations

import os

import pytest

from common.config import place as place_module
from common.config.keys import TOP, read_section
from common.config.place import Place, PlaceReader, is_unix
from common.config.tree import Report, node_from
from common.errors import ConfigError

POSIX = os.name == "posix"


@pytest.fixture
def report():
    return Report()


def read(report, folder, *layers):
    """Return host, port and path; a layer is from a file, one in a tuple from the command line."""
    sections = [
        read_section(
            node_from(
                layer[0] if isinstance(layer, tuple) else layer, "" if isinstance(layer, tuple) else "c", ""
            ),
            TOP,
            "sslocal",
            report,
        )
        for layer in layers
    ]
    place = PlaceReader(report, folder).read(sections)
    said = {id(node) for section in sections for node in section.values()}
    assert (place.node is None) == (not said)
    assert place.node is None or id(place.node) in said
    return tuple(place[:3])


def problems(report):
    with pytest.raises(ConfigError) as caught:
        report.raise_problems()
    assert "hunter" not in str(caught.value)
    return [problem.removeprefix("c: ") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, (None, None, None)),
        ({"local_address": "0.0.0.0"}, ("0.0.0.0", None, None)),
        ({"local_port": 1081}, (None, 1081, None)),
        ({"local_port": "1081", "local": "::1"}, ("::1", 1081, None)),
        ({"local": "[::1]:1082"}, ("::1", 1082, None)),
        ({"local_address": "localhost:1082", "local_port": 1082}, ("localhost", 1082, None)),
        ({"local": 1083}, (None, 1083, None)),
        ({"local": "1083"}, (None, 1083, None)),
        ({"local": "127.0.0.1:0"}, ("127.0.0.1", 0, None)),
        ({"local_port": 0}, (None, 0, None)),
        ({"local": "unix:/run/x.sock"}, (None, None, "/run/x.sock")),
        ({"local": "unix:///run/x.sock"}, (None, None, "/run/x.sock")),
        ({"local_address": "/run/x.sock"}, (None, None, "/run/x.sock")),
        ({"local": "unix:/run/../tmp//x"}, (None, None, "/tmp/x")),
    ],
)
def test_places(report, tmp_path, content, expected):
    assert read(report, tmp_path, content) == expected
    report.raise_problems()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ("127.0.0.9", 1090, None)),
        ({"local": "1.2.3.4:5"}, ("1.2.3.4", 5, None)),
        ({"local": "1.2.3.4"}, ("1.2.3.4", 1090, None)),
        ({"local_port": 5}, ("127.0.0.9", 5, None)),
        ({"local_address": "1.2.3.4", "local_port": 5}, ("1.2.3.4", 5, None)),
        ({"local": "unix:/run/x"}, (None, None, "/run/x")),
    ],
)
def test_a_flag_wins_over_the_file(report, tmp_path, flags, expected):
    assert read(report, tmp_path, {"local": "127.0.0.9:1090"}, flags) == expected


def test_a_port_from_the_command_line_replaces_a_unix_socket(report, tmp_path):
    assert read(report, tmp_path, {"local": "unix:/run/x"}, {"local_port": 5}) == (None, 5, None)


def test_a_relative_path_starts_at_the_file_and_that_of_a_flag_here(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "beside"
    assert read(report, folder, {"local": "unix:x.sock"})[2] == f"{tmp_path}/beside/x.sock"
    assert read(report, folder, ({"local": "unix:x.sock"},))[2] == f"{tmp_path}/x.sock"


def test_bad_places(report, tmp_path):
    for content in (
        {"local": "hunter2 x"},
        {"local": []},
        {"local_port": "hunter2"},
        {"local": 99999},
        {"local": "h:1", "local_port": 2},
        {"local": "unix:/x", "local_port": 2},
        {"local": "unix:"},
        {"local": "unix:/hunter\n2"},
        {"local": "/" + 110 * "x"},
        {"local": "/\ud800"},
    ):
        read(report, tmp_path, content)
    assert problems(report) == [
        "local: expected a host name or an IP address",
        "local: expected text, got a list; put it in quotes",
        "local_port: expected a port from 1 to 65535, got text",
        "local: expected a port from 1 to 65535, got 99999",
        "local_port: differs from the port given with the address, 1",
        "local_port: a Unix socket has no port",
        "local: expected a path after unix:",
        "local: holds a control character",
        f"local: the path of a Unix socket has at most {place_module._MAX_PATH} bytes",
    ]


def test_what_is_wrong_is_not_missing_as_well(report, tmp_path):
    for content in (
        {"local": "hunter2 x"},
        {"local_port": "hunter2"},
        {"local": "h", "local_port": "hunter2"},
    ):
        assert read(report, tmp_path, content)[1] == 0
    assert read(report, tmp_path, {"local": "hunter2 x", "local_port": 5})[1] == 5


def test_a_system_without_unix_sockets(report, tmp_path, monkeypatch):
    monkeypatch.setattr(place_module, "_HAS_UNIX_SOCKETS", False)
    read(report, tmp_path, {"local": "unix:/run/x"})
    assert problems(report) == ["local: this system has no Unix sockets"]


def test_is_unix():
    given = ["unix:x", "/x", "x", "unix", 5, None, []]
    assert [is_unix(node_from(value, "", "")) for value in given] == [True, True] + 5 * [False]


def test_nothing_is_said_by_default():
    assert Place() == (None, None, None, None)
