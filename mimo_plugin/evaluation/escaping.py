"""Text as LaTeX shows it."""

_ESCAPES = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    "\u2212": r"\ensuremath{-}",
    "–": "--",
    "→": r"\ensuremath{\rightarrow}",
    "²": r"\ensuremath{^2}",
    "†": r"\ensuremath{^{\dagger}}",
}


def escape_latex(text: str) -> str:
    r"""100 % -> 100 \%. Quotation marks need the T1 encoding."""
    return "".join(_ESCAPES.get(character, character) for character in text)
