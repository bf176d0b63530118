"""The one exception that the command line shows as a single line."""


class UserError(ValueError):
    """Something that the user can put right: a file, a recipe, an argument.

    The message is one line: what is wrong, where (file, and line, record or position), and what was
    expected. The command line prints it without a traceback and exits with status 2.
    """
