"""What can go wrong, in words that say what would be right."""


class RhoError(Exception):
    """A value, file or address that the caller can put right."""


class Mismatch(RhoError):
    """Two parts do not fit together: the reference or its tokenizer is not the one expected."""


class CorruptData(RhoError):
    """Tokens do not have the hash that they were announced with."""


class Unavailable(RhoError):
    """No scorer made progress within the budget."""


class Unauthenticated(RhoError):
    """The scorer wants an API key or a certificate, or another one."""
