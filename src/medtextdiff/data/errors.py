"""What goes wrong with data: each message names the file or record, and what to do. Never a note's text."""


class DataError(ValueError):
    """A data set, table or record that cannot be used."""


class ImageError(DataError):
    """An image or mask file that cannot be read, or written."""


class OutputExists(FileExistsError):  # noqa: N818 - reads as what it says
    """A file that would be written is already there, and overwriting was not asked for."""
