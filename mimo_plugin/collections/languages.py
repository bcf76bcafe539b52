"""Languages by their usual codes, whatever a collection calls them."""

# mMARCO's code for Dutch is nobody else's.
_ISO = {"dt": "nl"}


def usual_language(code: str | None) -> str:
    """The ISO 639-1 code that a dataset's own stands for; "" where it has none."""
    return _ISO.get(code, code) if code else ""
