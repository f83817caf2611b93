"""A next key is believed if it signed, for this connection and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.errors import BadMessage
from aemesh.host.keys.keystore import Identity
from aemesh.protocol.rotation import next_key_untrusted, statement
from aemesh.protocol.wire import Rotate

PRESENT, NEXT, OTHER = (Identity.ephemeral(name) for name in ("now", "next", "other"))
HERE, ELSEWHERE = bytes(32), bytes(31) + b"\1"


def offer(signer: Identity = NEXT, *, by=PRESENT, bound_to=HERE) -> Rotate:
    message = statement(by.key_id, NEXT.key_id, bound_to)
    return Rotate(key=NEXT.public.raw, sig=signer.sign(message))


def test_a_key_that_signed_for_this_connection_is_taken():
    assert next_key_untrusted(offer(), PRESENT.key_id, HERE) == NEXT.public


@pytest.mark.parametrize(
    "body",
    [
        offer(signer=OTHER),
        offer(signer=PRESENT),
        offer(by=OTHER),
        offer(bound_to=ELSEWHERE),
        Rotate(key=b"", sig=bytes(64)),
        Rotate(key=NEXT.public.raw, sig=b""),
    ],
)
def test_a_key_that_somebody_only_saw_is_refused(body):
    """Threat: 30."""
    with pytest.raises(BadMessage):
        next_key_untrusted(body, PRESENT.key_id, HERE)


@given(key=st.binary(max_size=40), sig=st.binary(max_size=70))
def test_nothing_but_a_bad_message_comes_of_random_bytes(key, sig):
    with pytest.raises(BadMessage):
        next_key_untrusted(Rotate(key=key, sig=sig), PRESENT.key_id, HERE)
