"""The client rule."""

import tempfile
import unittest

from fanfare import Folder, Seen


def seen(storage=None):
    return Seen({} if storage is None else storage, "seen")


class SeenTest(unittest.TestCase):
    def test_the_position_is_the_greatest_number_of_each_stream(self):
        it = seen()
        self.assertEqual(it.position, "i0.t0")
        for id, seq in [("a", "t7"), ("b", "i3"), ("c", "t5")]:
            it.note(id, seq)
        self.assertEqual(it.position, "i3.t7")

    def test_a_message_is_new_once_and_streams_do_not_know_each_other(self):
        it = seen()
        it.note("a", "i7")
        new = [it.is_new(id, seq) for id, seq in [("a", "i7"), ("b", "i6"), ("b", "i8"), ("b", "t1")]]
        self.assertEqual(new, [False, False, True, True])

    def test_what_comes_back_under_a_greater_number_is_known_by_its_id(self):
        it = seen()
        it.note("a", "i7")
        self.assertFalse(it.is_new("a", "i9"))
        it.note("a", "i9")
        self.assertEqual(it.position, "i9.t0")

    def test_the_last_1000_ids_are_known(self):
        it = seen()
        for n in range(1_001):
            it.note(f"m{n}", f"i{n}")
        self.assertTrue(it.is_new("m0", "i5000"))
        self.assertFalse(it.is_new("m1", "i5000"))

    def test_it_outlives_its_object_in_a_folder(self):
        with tempfile.TemporaryDirectory() as path:
            seen(Folder(path)).note("a", "t7353343181303808")
            self.assertEqual(seen(Folder(path)).position, "i0.t7353343181303808")
            self.assertEqual(list(Folder(path)), ["seen"])
            Folder(path)["seen"] = "{"
            self.assertEqual(seen(Folder(path)).position, "i0.t0")

    def test_what_is_no_number_of_a_stream_is_an_error(self):
        for seq in ["", "7", "x7", "i07", "i-1"]:
            self.assertRaises(ValueError, seen().is_new, "a", seq)
