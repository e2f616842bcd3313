"""What a terminal sends up."""

import unittest
from unittest.mock import patch

from fanfare.outbox import NotTaken, Outbox, Upward


def message(payload):
    return Upward("push/demo/up/gps", "text/plain", payload)


class OutboxTest(unittest.TestCase):
    def test_messages_go_out_one_after_the_other_in_order(self):
        outbox, published = Outbox({}, "outbox"), []
        sent = [outbox.put(message("1")), outbox.put(message("2"))]
        outbox.open(lambda *sending: published.append(sending))
        self.assertEqual([upward for upward, _ in published], [message("1")])
        published[0][1](0)
        self.assertTrue(sent[0].done())
        self.assertEqual([upward for upward, _ in published], [message("1"), message("2")])
        published[1][1](0)
        self.assertTrue(sent[1].done())

    def test_what_a_broken_link_leaves_open_goes_out_over_the_next_also_in_another_process(self):
        storage, published = {}, []
        before = Outbox(storage, "outbox")
        before.put(message("1"))
        before.open(lambda *_: None)
        before.close()
        before.open(lambda upward, _: published.append(upward))
        Outbox(storage, "outbox").open(lambda upward, _: published.append(upward))
        self.assertEqual(published, [message("1")] * 2)
        self.assertEqual(published[0].id, published[1].id)
        self.assertNotEqual(published[0].id, message("1").id)

    def test_an_answer_that_a_repetition_would_not_change_ends_a_message(self):
        outbox, published = Outbox({}, "outbox"), []
        bad = outbox.put(message("bad"))
        outbox.put(message("good"))
        outbox.open(lambda *sending: published.append(sending))
        published[0][1](0x99)
        self.assertIsInstance(bad.exception(), NotTaken)
        self.assertEqual(published[-1][0], message("good"))

    def test_a_quota_that_is_used_up_is_waited_for(self):
        outbox, published = Outbox({}, "outbox"), []
        taken = outbox.put(message("1"))

        def publish(upward, answered):
            published.append(upward)
            answered(0x97 if len(published) == 1 else 0)

        with patch("fanfare.outbox.backoff", return_value=0.01):
            outbox.open(publish)
            taken.result(timeout=5)
        self.assertEqual(len(published), 2)

    def test_it_is_bounded_in_messages_and_in_bytes(self):
        outbox = Outbox({}, "outbox")
        kept = [outbox.put(message(str(n))) for n in range(100)]
        self.assertFalse(any(future.done() for future in kept))
        self.assertIsInstance(outbox.put(message("one too many")).exception(), NotTaken)
        self.assertIsInstance(Outbox({}, "o").put(message("x" * 40_000)).exception(), NotTaken)
