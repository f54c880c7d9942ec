"""Passwords in addresses are used, and never shown."""

import urllib.parse

import pytest

from fre_runtime.commands import run
from fre_runtime.commands.common import run_command
from fre_runtime.errors import UsageError
from fre_runtime.live.addresses import is_stream, reason_of, shown, split_password
from fre_runtime.live.captures import open_capture
from fre_runtime.live.sinks.webhook import Webhook

SPECIAL = ["secret", "sec/ret", "sec@ret", "sec:ret", "s/e@c:r?e#t", "@", "sec%ret", "1/secret@2"]


@pytest.mark.parametrize("password", SPECIAL)
@pytest.mark.parametrize("scheme", ["rtsp", "http", "mqtt"])
def test_an_encoded_password_is_read_and_never_shown(scheme, password):
    encoded = urllib.parse.quote(password, safe="")
    address = f"{scheme}://us%40er:{encoded}@cam:8554/line/1?x=y"
    assert split_password(address) == (f"{scheme}://cam:8554/line/1?x=y", "us@er", password)
    assert shown(address) == f"{scheme}://cam:8554/line/1?x=y"


@pytest.mark.parametrize("password", SPECIAL)
@pytest.mark.parametrize("rest", ["cam/line", "cam:8554/line/1?x=y"])
def test_a_password_that_should_have_been_encoded_is_not_shown_either(password, rest):
    address = f"rtsp://operator:{password}@{rest}"
    told = shown(address)
    assert told.removeprefix("rtsp://").removeprefix("***@") == rest
    if "/" in password or "?" in password:  # then it cannot be told from a path
        assert told.startswith("rtsp://***@")
    try:
        named = open_capture(address).name
    except UsageError as error:
        named = str(error)
        assert "in a password write / as %2F" in named
    assert "operator" not in named
    assert all(part not in named for part in ("sec", "ret"))


def test_a_path_with_an_at_sign_stays():
    assert shown("http://cam/user@example/line") == "http://cam/user@example/line"
    assert shown("photos/a@b:c.png") == "photos/a@b:c.png"


@pytest.mark.parametrize("address", ["rtmp://user:secret@cam/x", "RTSP://user:secret@:0/x"])
def test_addresses_of_other_kinds_hide_it_too(address, capsys):
    with pytest.raises(UsageError) as caught:
        open_capture(address)
    assert "secret" not in str(caught.value)
    assert run_command(run, ["model", address]) in (1, 2)
    assert "secret" not in capsys.readouterr().err


def test_schemes_may_be_written_large():
    assert is_stream("RTSP://cam/x")
    assert open_capture("RTSP://user:secret@cam/x").name == "RTSP://cam/x"


def test_reasons_hide_secrets_among_the_parameters():
    error = ValueError("URL can't contain control characters. '/v?pwd=my secret'")
    assert "secret" not in reason_of(error)
    with pytest.raises(UsageError) as caught:
        Webhook("ftp://user:sec/ret@host/x?token=secret")
    assert "sec" not in str(caught.value)
