"""What comes for one app."""

import gzip
import json
import logging
import unittest
from types import SimpleNamespace

from fanfare.inlet import Ears, Inlet


def envelope(n):
    return {"id": f"m{n}", "seq": f"i{n}", "type": "order", "ts": "", "traceparent": "", "payload": n}


def packet(value, coding=None, **told):
    payload = json.dumps(value).encode()
    pairs = list(told.items()) + ([("content-encoding", coding)] if coding else [])
    properties = SimpleNamespace(UserProperty=pairs, ContentType="application/json")
    return SimpleNamespace(payload=gzip.compress(payload) if coding else payload, properties=properties)


class InletTest(unittest.TestCase):
    def setUp(self):
        self.given, self.published, self.reason = [], [], 0

    def inlet(self, message=None, notice=None):
        ears = Ears(message or (lambda message: self.given.append(message.payload)), lambda order: None, notice)
        inlet = Inlet("demo", "dev-1", {}, ears)
        inlet.open(self.publish)
        return inlet

    def publish(self, upward, answered):
        self.published.append(upward)
        answered(self.reason)

    def test_pages_are_asked_for_from_the_position_one_after_the_other_until_there_are_no_more(self):
        inlet = self.inlet()
        fetched = inlet.fetch()
        self.assertIs(inlet.fetch(), fetched)
        inlet.take(["page"], packet({"messages": [envelope(1), envelope(2)], "more": True}))
        self.assertFalse(fetched.done())
        inlet.take(["page"], packet({"messages": [envelope(2), envelope(3)], "more": False}, coding="gzip"))
        fetched.result(timeout=0)
        self.assertEqual(self.given, [1, 2, 3])
        asked = [(upward.topic, json.loads(upward.payload)["after"]) for upward in self.published]
        self.assertEqual(asked, [("push/demo/sync", "i0.t0"), ("push/demo/sync", "i2.t0")])
        self.assertEqual(self.published[0].response_topic, "push/demo/page")

    def test_a_notice_makes_it_fetch_unless_the_application_wants_to_decide(self):
        self.inlet().take(["notify"], packet({"latest": "i7"}))
        self.assertEqual(len(self.published), 1)
        told = []
        self.inlet(notice=told.append).take(["notify"], packet({"latest": "i7"}))
        self.assertEqual((told, len(self.published)), (["i7"], 1))

    def test_fetching_ends_with_the_link_and_with_a_no_of_the_platform(self):
        inlet = self.inlet()
        fetched = inlet.fetch()
        inlet.close()
        self.assertIsInstance(fetched.exception(timeout=0), ConnectionError)
        self.assertIsInstance(inlet.fetch().exception(timeout=0), ConnectionError)
        self.reason = 0x87
        inlet.open(self.publish)
        self.assertRegex(str(inlet.fetch().exception(timeout=0)), "0x87")

    def test_a_body_that_is_not_json_comes_as_bytes_also_in_a_page(self):
        binary = envelope(1)
        del binary["payload"]
        self.inlet().take(["page"], packet({"messages": [{**binary, "payload_base64": "AP8="}], "more": False}))
        self.assertEqual(self.given, [b"\x00\xff"])

    def test_what_an_application_raises_is_logged_and_does_not_come_again(self):
        inlet = self.inlet(message=lambda message: 1 / 0)
        with self.assertLogs("fanfare", logging.ERROR) as logged:
            for _ in range(2):
                inlet.take(["msg", "order"], packet(1, id="m1", seq="i1", type="", ts="", traceparent=""))
        self.assertEqual((len(logged.records), inlet.position), (1, "i1.t0"))
