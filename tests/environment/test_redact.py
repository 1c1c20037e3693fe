"""Secrets of any length from six characters on, in whatever place, stay out of text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlenergy.diffusion.environment.redact import REDACTED, redact, redact_arguments, redact_environment

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# With a digit, so that none is a part of the words around it.
SECRET = st.text(LETTERS, min_size=6, max_size=30).map(lambda text: text[:-1] + "7")
NAMES = ("HF_TOKEN", "MY_SECRET", "DB_PASSWORD", "AWS_ACCESS_KEY", "API_KEY", "SESSION_COOKIE", "auth")


@given(SECRET, st.sampled_from(NAMES))
def test_values_of_telling_variables_are_nowhere(secret, name):
    environ = {name: secret, "OTHER": f"prefix-{secret}"}
    assert secret not in redact(f"a {secret} b/{secret}", environ)
    assert all(
        secret not in word for word in redact_arguments(["run", f"--path=/x/{secret}", secret], environ)
    )
    kept = redact_environment(environ, re.compile("."))
    assert kept[name] == REDACTED and secret not in kept["OTHER"]


@given(SECRET, st.sampled_from(["--hub_token", "--password", "--api-key", "-auth"]))
def test_values_of_telling_options_are_nowhere(secret, option):
    assert redact_arguments([option, secret, "--steps", "4"], {}) == [option, REDACTED, "--steps", "4"]
    assert redact_arguments([f"{option}={secret}", "4"], {}) == [f"{option}={REDACTED}", "4"]


@pytest.mark.parametrize("length", [6, 8, 11, 12])
def test_short_secrets_count_from_six_characters_on(length):
    secret = "z9" * 3 + "q" * (length - 6)
    assert redact(f"x {secret}", {"HF_TOKEN": secret}) == f"x {REDACTED}"
    assert redact("x z9z9z", {"HF_TOKEN": "z9z9z"}) == "x z9z9z", "five occur by chance"


@pytest.mark.parametrize(
    "secret",
    [
        *("hf_abcdefgh", "ghp_abcdefgh", "gho_abcdefgh", "github_pat_abcdefgh", "glpat-abcdefgh"),
        *("sk-abcdefghijklmnop", "AKIAABCDEFGHIJKLMNOP", "xoxb-abcdefgh", "eyJabcdefgh.abcdefgh.abc"),
    ],
)
def test_tokens_of_well_known_services_are_known_by_their_shape(secret):
    assert redact(f"https://x/{secret} and {secret}", {}) == f"https://x/{REDACTED} and {REDACTED}"


def test_passwords_of_addresses_and_bearers_are_left_out():
    assert redact("http://me:pw@host/x", {}) == f"http://{REDACTED}@host/x"
    assert redact("Authorization: Bearer abc", {}) == f"Authorization: Bearer {REDACTED}"


@pytest.mark.parametrize("text", ["tokenizer=t5", "batch 4", "http://host:80/x", "author", "sk-short"])
def test_ordinary_words_stay(text):
    assert redact(text, {"TOKENIZERS_PARALLELISM": "false!", "AUTHOR": "batch 4"}) == text
