"""Conformance suites for authors of codecs, stores and backends, run by pytest or by hand.

::

    from dj_dagster.testing import CodecConformance

    class TestPolynomial(CodecConformance):
        codec = PolynomialCodec
        values = [Polynomial([1, 2]), Polynomial([0.5])]
        wrong = ["no polynomial"]

Each check fails with an `AssertionError` that says what must be done instead.
"""

from dj_dagster.conformance.backends import BackendConformance
from dj_dagster.conformance.codecs import CodecConformance
from dj_dagster.conformance.stores import StoreConformance

__all__ = ["BackendConformance", "CodecConformance", "StoreConformance"]
