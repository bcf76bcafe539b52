"""Languages by their usual codes, whatever a collection calls them."""

# mMARCO's code for Dutch is nobody else's; the others are ISO 639-3, as NeuCLIR's.
_ISO = {"dt": "nl", "eng": "en", "fas": "fa", "rus": "ru", "zho": "zh"}


def usual_language(code: str | None) -> str:
    """The ISO 639-1 code that a dataset's own stands for; "" where it has none."""
    return _ISO.get(code, code) if code else ""
