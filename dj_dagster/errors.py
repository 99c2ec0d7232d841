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
    └── ThreadSafetyError           the default connection was used where DJ_THREAD_SAFE forbids it

Names that DataJoint 2.3 has keep its spelling. The attribute `transient` is true if trying again
can help; the job table and the orchestrator decide by it.
"""

from __future__ import annotations

from typing import ClassVar


class DataJointError(Exception):
    """The base of all errors of dj_dagster; the message says what to do about it."""

    transient: ClassVar[bool] = False


class DefinitionError(DataJointError):
    """A table definition that does not parse, or that refers to something unknown."""


class MissingDefinitionError(DefinitionError, NotImplementedError):
    """A class without a definition, whose table is not in the database."""


class ConfigurationError(DataJointError):
    """A setting that is missing, unknown or has a value that cannot be used."""


class QueryError(DataJointError):
    """A statement that the database refused, or a query that does not make sense."""


class QuerySyntaxError(QueryError):
    """SQL that the server could not parse, most often a string restriction."""


class AccessError(QueryError):
    """The database user lacks a privilege."""


class MissingTableError(QueryError):
    """The table is not in the database (any more)."""


class DuplicateError(QueryError):
    """A row with the same primary key or unique index exists."""


class IntegrityError(QueryError):
    """A foreign key would be violated."""


class UnknownAttributeError(QueryError):
    """A name that the heading does not have."""


class UnknownFieldError(UnknownAttributeError, KeyError):
    """A row that was to be inserted has a name that the table does not have."""

    __str__ = Exception.__str__


class MissingAttributeError(QueryError):
    """A row lacks a value for an attribute without a default."""


class InvalidValueError(QueryError):
    """A value that does not fit its attribute's type."""


class ConnectionFailedError(DataJointError):
    """The database could not be reached."""

    transient = True


class LostConnectionError(ConnectionFailedError):
    """The connection broke while it was in use."""


class LostCommitError(LostConnectionError):
    """The connection broke during COMMIT: whether the transaction took effect is not known."""

    transient = False


class TransientError(DataJointError):
    """A deadlock or lock timeout: nothing was written, the same call may succeed."""

    transient = True


class ObjectError(DataJointError):
    """Something is wrong with a value kept as bytes."""


class BlobError(ObjectError):
    """Bytes that are not a valid blob, or an object that the format cannot hold."""


class MissingExternalFile(ObjectError):
    """A row refers to an object or file that its store does not have."""


class ChecksumError(ObjectError):
    """An object's content differs from the content that was written, as its row describes it."""


class PopulateError(DataJointError):
    """Populate was asked for something that it must not do."""


class ThreadSafetyError(DataJointError):
    """The default connection or its settings were used where ``DJ_THREAD_SAFE`` forbids it."""


def text_of(error: BaseException) -> str:
    """Return the message of an exception, ``""`` if its own `__str__` fails."""
    try:
        # A subclass of str might do anything when it is used.
        return str.__str__(str(error))
    except (Exception, SystemExit):
        return ""


def named_text(error: BaseException) -> str:
    """Return the name of an exception's class, and its message if it has one."""
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
