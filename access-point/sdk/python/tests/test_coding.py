"""Bodies that come packed."""

import gzip
import unittest

from fanfare.coding import OFFERED, WHOLE_MAX_BYTES, unpack

WHOLE = b"again " * 1_000
ZSTD = bytes.fromhex("28b52ffd60701675000030616761696e2001006797be1401")
HUGE = bytes.fromhex("28b52ffda0ffffff7f010000")
"""A frame that says it is 2 GiB."""


class CodingTest(unittest.TestCase):
    def test_what_is_not_packed_stays_as_it_is_what_is_packed_becomes_whole(self):
        self.assertIs(unpack(None, WHOLE), WHOLE)
        self.assertEqual(unpack("gzip", gzip.compress(WHOLE)), WHOLE)

    @unittest.skipUnless("zstd" in OFFERED, "neither Python 3.14 nor the package zstandard")
    def test_zstd_is_offered_first_where_there_is_something_that_undoes_it(self):
        self.assertEqual(OFFERED, "zstd,gzip")
        self.assertEqual(unpack("zstd", ZSTD), WHOLE)
        for bad in (ZSTD[:-1], HUGE, b"nothing"):
            with self.assertRaises(Exception):
                unpack("zstd", bad)

    def test_what_is_no_packed_body_or_a_far_too_large_one_or_was_not_offered_is_an_error(self):
        packed = gzip.compress(WHOLE)
        for coding, bad in (
            ("gzip", WHOLE),
            ("gzip", packed[:-1]),
            ("gzip", gzip.compress(bytes(WHOLE_MAX_BYTES + 1))),
            ("br", packed),
        ):
            with self.assertRaises(Exception):
                unpack(coding, bad)
