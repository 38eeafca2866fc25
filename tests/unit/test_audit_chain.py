"""Whoever lacks the key can change nothing in the chain unseen; a cut tail shows against a kept head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from graph.errors import SettingsInvalid
from server.audit.chain import (
    GENESIS,
    AuditEntry,
    AuditHead,
    AuditKeys,
    Break,
    ChainCheck,
    StoredEntry,
    body_of,
)

START = datetime(2026, 3, 1, tzinfo=UTC)
KEYS = AuditKeys(["k" * 32])

values: st.SearchStrategy[JsonValue] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)
)
entries = st.builds(
    AuditEntry,
    kind=st.sampled_from(["decided", "write_intent", "write_confirmed", "control"]),
    by=st.text(max_size=20),
    incident_id=st.none() | st.integers(1, 9),
    data=st.dictionaries(st.text(max_size=8), values, max_size=4),
)
chains = st.lists(entries, min_size=2, max_size=8)


def make_chain(told: Sequence[AuditEntry], keys: AuditKeys = KEYS, mac: str = GENESIS) -> list[StoredEntry]:
    chain = []
    for seq, entry in enumerate(told, start=1):
        at = START + timedelta(seconds=seq)
        body = body_of(entry, seq=seq, at=at, key=keys.signing)
        found = keys.mac(keys.signing, mac, body)
        assert found is not None
        mac = found
        chain.append(StoredEntry(seq, at, entry.kind, entry.incident_id, body, mac))
    return chain


def head_of(chain: Sequence[StoredEntry]) -> AuditHead:
    return AuditHead(seq=chain[-1].seq, mac=chain[-1].mac)


def check(
    chain: Sequence[StoredEntry],
    *,
    known: Sequence[AuditHead] = (),
    keys: AuditKeys = KEYS,
    head: AuditHead | None = None,
) -> Break | None:
    """Verify; the database's own head row is what an attacker would have made of it."""
    walk = ChainCheck(keys, known)
    for row in chain:
        if (found := walk.feed(row)) is not None:
            return found
    return walk.finish(head or AuditHead(seq=walk.seq, mac=walk.mac))


@given(chains)
def test_an_untouched_chain_is_whole(told: list[AuditEntry]) -> None:
    chain = make_chain(told)

    assert check(chain, known=[head_of(chain[:1]), head_of(chain)]) is None


@given(chains, st.data())
def test_any_single_change_is_found_at_its_entry(told: list[AuditEntry], data: st.DataObject) -> None:
    chain = make_chain(told)
    at = data.draw(st.integers(0, len(chain) - 1))
    row = chain[at]
    column = data.draw(st.sampled_from(["body", "mac", "at", "kind", "incident_id"]))
    changed = row
    if column in ("body", "mac"):
        text = row.body if column == "body" else row.mac
        place = data.draw(st.integers(0, len(text) - 1))
        letter = data.draw(st.sampled_from("0123456789abcdef{}x ").filter(lambda one: one != text[place]))
        other = text[:place] + letter + text[place + 1 :]
        changed = replace(row, body=other) if column == "body" else replace(row, mac=other)
    elif column == "at":
        changed = replace(row, at=row.at + timedelta(seconds=1))
    elif column == "kind":
        changed = replace(row, kind="other")
    else:
        changed = replace(row, incident_id=77)
    chain[at] = changed

    found = check(chain, known=[])

    assert found is not None
    assert found.seq == row.seq


@given(chains, st.data())
def test_a_removed_entry_is_found(told: list[AuditEntry], data: st.DataObject) -> None:
    chain = make_chain(told)
    known = head_of(chain)
    at = data.draw(st.integers(0, len(chain) - 1))
    del chain[at]

    found = check(chain, known=[known])

    assert found is not None
    assert found.seq == at + 1


@given(chains, st.data())
def test_two_swapped_entries_are_found(told: list[AuditEntry], data: st.DataObject) -> None:
    chain = make_chain(told)
    one = data.draw(st.integers(0, len(chain) - 2))
    two = data.draw(st.integers(one + 1, len(chain) - 1))
    first, second = chain[one], chain[two]
    # Renumbered too, as somebody would who wants it to look right.
    chain[one], chain[two] = replace(second, seq=first.seq), replace(first, seq=second.seq)

    found = check(chain)

    assert found is not None
    assert found.seq == first.seq


@given(chains, st.data())
def test_a_cut_tail_shows_against_a_kept_head(told: list[AuditEntry], data: st.DataObject) -> None:
    chain = make_chain(told)
    kept = data.draw(st.integers(0, len(chain) - 1))

    found = check(chain[:kept], known=[head_of(chain)])

    assert found is not None
    assert found.seq == kept + 1
    assert "cut off" in found.why


@given(chains)
def test_a_chain_rewritten_with_another_key_is_found(told: list[AuditEntry]) -> None:
    assert check(make_chain(told, AuditKeys(["x" * 32]))) is not None


@given(chains)
def test_a_chain_rewritten_without_a_key_is_found(told: list[AuditEntry]) -> None:
    """Anyone can compute a plain hash chain: with a key set, it is not taken for ours."""
    assert check(make_chain(told, AuditKeys())) is not None


@given(chains)
def test_a_whole_rewritten_history_shows_against_a_kept_head(told: list[AuditEntry]) -> None:
    known = head_of(make_chain(told)[:2])
    other = [entry.model_copy(update={"by": entry.by + "!"}) for entry in told]

    found = check(make_chain(other), known=[known])

    assert found is not None
    assert found.seq == 2


def test_a_rotated_key_still_verifies_what_it_signed() -> None:
    told = [AuditEntry(kind="decided", by="x") for _ in range(4)]
    old = make_chain(told[:2], AuditKeys(["o" * 32]))
    both = AuditKeys(["n" * 32, "o" * 32])
    new = []
    mac = old[-1].mac
    for seq in (3, 4):
        body = body_of(told[0], seq=seq, at=START, key=both.signing)
        mac = both.mac(both.signing, mac, body) or ""
        new.append(StoredEntry(seq, START, "decided", None, body, mac))

    assert check(old + new, keys=both) is None
    found = check(old + new, keys=AuditKeys(["n" * 32]))
    assert found is not None
    assert "AIRMEDIC_AUDIT_KEY" in found.why


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("7", id="no mac"),
        pytest.param("x:" + "0" * 64, id="no number"),
        pytest.param("7:" + "0" * 63, id="mac too short"),
        pytest.param("7:" + "g" * 64, id="mac not hexadecimal"),
    ],
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="SEQ:MAC"):
        AuditHead.parse(text)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="AIRMEDIC_AUDIT_KEY"):
        AuditKeys.parse("short")
