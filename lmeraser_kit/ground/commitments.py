"""Salted commitments: a hash that names nobody, and that who has its salt can open.

A commitment is SHA-256 over a random salt of 128 bits and a name. Without the salt no guess of the name can be tried
against it, and two commitments to one name have nothing in common. The only randomness of the kit that is not keyed:
it must not be possible to guess it, and nothing that is hashed as state may hold it.
"""

from __future__ import annotations

import secrets

from lmeraser_kit import checks
from lmeraser_kit.ground.hashing import digest


def fresh_nonce() -> str:
    """128 random bits, in hex: a salt, or what keeps a hash from being guessed."""
    return secrets.token_hex(16)


def commitment_of(kind: str, name: str, salt: str) -> str:
    """A hash that hides a name and can be opened with its salt, in hex.

    Args:
        kind: What is named, `uid` or `owner`: one name as both has two commitments.
        name: The name.
        salt: As `fresh_nonce` gives it.

    Raises:
        ValueError: If one of them is something else.
    """
    kind = checks.choice("kind", kind, ("uid", "owner"))
    return digest(kind, checks.text("salt", salt), checks.text("name", name))


def opens(commitment: str, owner: str, salt: str) -> bool:
    """Whether a commitment, of a receipt or a certificate, is to this owner.

    Args:
        commitment: In hex.
        owner: Whose request it was.
        salt: What was handed out with the receipt.

    Raises:
        ValueError: If one of them is no text.
    """
    named = commitment_of("owner", checks.text("owner", owner), salt)
    return checks.text("commitment", commitment) == named
