"""What goes wrong with text."""


class TextError(ValueError):
    """A text encoder, tokenizer or corpus that cannot be used; the message says what to do, never what a note says."""
