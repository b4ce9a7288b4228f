"""Sentences for what the system refuses."""

from __future__ import annotations

import errno

import pytest

from common.run.failures import file_failure, listen_failure


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(errno.EADDRINUSE, "Address already in use", "127.0.0.1:1080"),
            "cannot listen on 127.0.0.1:1080: another program listens there already",
        ),
        (
            OSError(errno.EADDRNOTAVAIL, "Cannot assign", "192.0.2.1:1080"),
            "cannot listen on 192.0.2.1:1080: this machine has no such address; 0.0.0.0 is all it has",
        ),
        (
            OSError(errno.EACCES, "Permission denied", "[::1]:80"),
            "cannot listen on [::1]:80: not permitted; ports below 1024 want root or CAP_NET_BIND_SERVICE",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "cannot listen: Too many open files"),
        (OSError("no number"), "cannot listen: no number"),
    ],
)
def test_listen_failure_names_address_and_cause(error, sentence):
    assert str(listen_failure(error)) == sentence


def test_file_failure_names_purpose_path_and_cause():
    error = OSError(errno.EACCES, "Permission denied", "/x")
    assert str(file_failure("log file", "/var/log/x", error)) == "log file /var/log/x: Permission denied"
    assert str(file_failure("log file", "x", OSError("odd"))) == "log file x: odd"
