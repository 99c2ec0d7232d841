"""The errors of dj_dagster, one tree.

::

    DataJointError
    ├── DefinitionError             a definition does not parse, or refers to something missing
    │   └── MissingDefinitionError  a class of a new table lacks a definition
    ├── ConfigurationError          a setting is missing or wrong
    ├── QueryError                  the database refused a statement, or a query lacks a meaning
    │   ├── QuerySyntaxError
    │   ├── AccessError
    │   ├── MissingTableError
    │   ├── DuplicateError
    │   ├── IntegrityError
    │   ├── UnknownAttributeError
    │   │   └── UnknownFieldError
    │   ├── MissingAttributeError
    │   └── InvalidValueError       a value does not fit its attribute
    ├── ConnectionFailedError       transient: the server could not be reached
    │   └── LostConnectionError     transient: the server went away in the middle
    │       └── LostCommitError     whether the transaction took effect is not known
    ├── TransientError              transient: deadlock or lock wait, safe to try again
    ├── ObjectError
    │   ├── BlobError               bytes that are not a blob, or an object that cannot be packed
    │   ├── MissingExternalFile     the row names an object that its store does not have
    │   └── ChecksumError           the object's bytes are not those that were written
    ├── PopulateError               populate was asked for something it must not do
    ├── MissingMakeError            a class of a computed table lacks `make`
    └── ThreadSafetyError           the default connection was used where DJ_THREAD_SAFE forbids it

Names that DataJoint 2.3 has keep its spelling. The attribute `transient` is true if trying again
can help; the job table and the orchestrator decide by it.

The documentation's page of errors is written from the docstrings here, which say of each error what
to do about it. A traceback ends with the address of the error's section.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

DOCUMENTATION = "https://dj-dagster.readthedocs.io/en/stable/"
"""Address of the documentation."""

_PAGE = f"{DOCUMENTATION}reference/errors.html"


class DataJointError(Exception):
    """The base of all errors of dj_dagster; the message says what to do about it.

    Catch it to catch them all. Where it is raised itself, the call was not possible in this
    situation, and the message names the reason.
    """

    transient: ClassVar[bool] = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Return an error with a note, the last line of its traceback: the address of its help."""
        error = super().__new__(cls, *args, **kwargs)
        # Errors that are defined elsewhere have the section of the one that they are a kind of.
        ours = next(kind for kind in cls.__mro__ if kind.__module__ == __name__)
        error.add_note(f"Help: {_PAGE}#{ours.__name__.lower()}")
        return error

    def suggest(self, *args: object) -> Self:
        """Return an error of the same kind with further arguments."""
        return type(self)(*self.args, *args)


class DefinitionError(DataJointError):
    """A table definition that does not parse, or that refers to something unknown.

    The message shows file and line, the table, and the line itself with a mark under the place.
    It also says what to write instead. If it names a table that is not known, declare that first,
    or import the module that has its class.
    """


class MissingDefinitionError(DefinitionError, NotImplementedError):
    """A class without a definition, whose table is not in the database.

    Write the text `definition` in the class, or declare the table elsewhere first.
    """


class ConfigurationError(DataJointError):
    """A setting that is missing, unknown or has a value that cannot be used.

    The message names the setting. Correct it where it comes from: the environment, the file
    `datajoint.json`, or `dj.config`. A name of a table that does not stand for any is one, too:
    the message lists names that are near.
    """


class QueryError(DataJointError):
    """A statement that the database refused, or a query that does not make sense.

    The message has the words of the database. Subclasses tell the usual causes apart.
    """


class QuerySyntaxError(QueryError):
    """SQL that the server could not parse, most often a string restriction.

    Look at the restriction or projection that the message shows: is a quote or a parenthesis
    missing, or an operator that SQL does not have, such as ``==``? On SQLite the text is
    translated from MySQL's SQL, and the message names the part that cannot be translated.
    """


class AccessError(QueryError):
    """The database user lacks a privilege.

    Ask the administrator of the database for the privilege that the message names, or use another
    account.
    """


class MissingTableError(QueryError):
    """The table is not in the database (any more).

    The table was dropped or never declared, or the program is connected to another database than
    it should be: ``dj.conn()`` displays which. A class declares its table when its schema
    decorates it.
    """


class DuplicateError(QueryError):
    """A row with the same primary key or unique index exists.

    To leave existing rows as they are, use ``insert(rows, skip_duplicates=True)``; to put new
    rows in their place, ``insert(rows, replace=True)``; to change one value, ``update1``.
    """


class IntegrityError(QueryError):
    """A foreign key would be violated.

    A row that is inserted refers to a parent that is not there: insert the parent first. Or a row
    that is deleted by ``delete_quick`` or by SQL has rows below it: ``delete`` includes them.
    """


class UnknownAttributeError(QueryError):
    """A name that the heading does not have.

    Is the name misspelled, or was the attribute left out by an earlier ``proj``? The message
    names attributes that are near.
    """


class UnknownFieldError(UnknownAttributeError, KeyError):
    """A row that was to be inserted has a name that the table does not have.

    Correct the name, or leave such fields out by ``insert(rows, ignore_extra_fields=True)``.
    """

    __str__ = Exception.__str__


class MissingAttributeError(QueryError):
    """A row lacks a value for an attribute without a default.

    Give the value in the row, or give the attribute a default in the definition: ``gain = 1 :
    float64``, or ``gain = null : float64`` if it may be unknown.
    """


class InvalidValueError(QueryError):
    """A value that does not fit its attribute's type.

    The message names the attribute and the value. Nothing of the call was inserted. What each
    type takes is in the table of types; widen the type by ``alter`` if the value is right.
    """


class ConnectionFailedError(DataJointError):
    """The database could not be reached.

    Is the server up, and can this machine reach it? Is the address right that the message shows?
    The address comes from `DJ_DATABASE_URL`, `DJ_HOST` or the settings' file.
    """

    transient = True


class LostConnectionError(ConnectionFailedError):
    """The connection broke while it was in use.

    Outside a transaction a query is sent again by itself. Inside one the whole transaction is
    rolled back: make the call again. If it comes often, look at the server's log and its limits
    of time and size (``wait_timeout``, ``max_allowed_packet``).
    """


class LostCommitError(LostConnectionError):
    """The connection broke during COMMIT: whether the transaction took effect is not known.

    Look whether the rows are there before the call is made again.
    """

    transient = False


class TransientError(DataJointError):
    """A deadlock or lock timeout: nothing was written, the same call may succeed.

    Make the call again. Keys that fail by it are made again by the sensor. If it comes often, two
    programs write the same rows: use ``populate(reserve_jobs=True)``, or shorten transactions.
    """

    transient = True


class ObjectError(DataJointError):
    """Something is wrong with a value kept as bytes.

    Subclasses tell the causes apart. ``dj-dagster check SCHEMA --read-data`` names all damaged
    values of a schema.
    """


class BlobError(ObjectError):
    """Bytes that are not a valid blob, or an object that the format cannot hold.

    When a value is inserted: it has a part that the format cannot hold, which the message names.
    Turn it into arrays, numbers, texts, lists or dicts, or write a codec for it. When a value is
    fetched: the bytes are damaged, or another program wrote them in a format of its own.
    """


class MissingExternalFile(ObjectError):
    """A row refers to an object or file that its store does not have.

    Is the store the right one, and mounted? An object that the collector has removed is brought
    back by ``dj-dagster gc SCHEMA --restore``, a lost one by ``dj-dagster restore``. The row of a
    computed table can be deleted and made again.
    """


class ChecksumError(ObjectError):
    """An object's content differs from the content that was written, as its row describes it.

    The object was damaged, or changed by another program. Bring it back from a backup by
    ``dj-dagster restore``; delete the row of a computed table, and it is made again.
    """


class PopulateError(DataJointError):
    """Populate was asked for something that it must not do.

    The message names the table and the reason: a `key_source` that fails, a key that is not one
    of the table's, or a call inside a transaction or a `make`.
    """


class MissingMakeError(DataJointError, NotImplementedError):
    """A computed table whose class lacks `make`, so that it cannot be populated.

    Write the method in the class, or populate the table in the program that has it.
    """


class ThreadSafetyError(DataJointError):
    """The default connection or its settings were used where ``DJ_THREAD_SAFE`` forbids it.

    Make a connection of the thread's own, by `Instance` or `Connection`, or unset the variable.
    """


def text_of(error: BaseException) -> str:
    """Return the message of an exception, ``""`` if its own `__str__` fails."""
    try:
        # A subclass of str might do anything when it is used.
        return str.__str__(str(error))
    except (Exception, SystemExit):
        return ""


def counted(number: int, what: str) -> str:
    """Return a number with its noun, in the singular or the plural.

    Examples
    --------
    >>> counted(1, "key"), counted(2, "key")
    ('1 key', '2 keys')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def named_text(error: BaseException) -> str:
    """Return the name of an exception's class, and its message if it has one."""
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
