"""Tests of the stores: one conformance suite that every store runs, and what each store promises besides."""

import pytest

pytest.register_assert_rewrite("tests.stores.conformance")
