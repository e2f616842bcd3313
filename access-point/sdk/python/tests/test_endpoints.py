"""Where to connect."""

import io
import json
import unittest
from unittest.mock import patch
from urllib.error import HTTPError

from fanfare import Refused
from fanfare.endpoints import Endpoints


def platform(*answers):
    """A platform that answers with these, one after the other; the last goes on."""
    left = list(answers)

    def answer(_request, timeout):
        status, body = left.pop(0) if len(left) > 1 else left[0]
        if status != 200:
            raise HTTPError("http://platform", status, "no", {}, None)
        return io.StringIO(json.dumps(body))

    return patch("fanfare.endpoints.urlopen", side_effect=answer)


def named(ttl_s, *addresses):
    return 200, {"ttl_s": ttl_s, "endpoints": [{"address": address} for address in addresses]}


class EndpointsTest(unittest.TestCase):
    def test_the_first_address_is_kept_while_it_works_and_those_after_it_are_tried_in_turn(self):
        with platform(named(60, "a:1", "b:2")) as asked:
            endpoints = Endpoints("http://platform")
            tried = [endpoints.next("token"), endpoints.next("token")]
            self.assertEqual(asked.call_args[0][0].headers, {"Authorization": "Bearer token"})
            for _ in range(2):
                endpoints.failed()
                tried.append(endpoints.next("token"))
            self.assertEqual(tried, ["mqtt://a:1", "mqtt://a:1", "mqtt://b:2", "mqtt://a:1"])
            self.assertEqual(asked.call_count, 2)

    def test_a_newer_list_does_not_move_a_terminal_from_an_address_that_works(self):
        with platform(named(0, "a:1", "b:2"), named(0, "b:2", "a:1")):
            endpoints = Endpoints("http://platform")
            self.assertEqual([endpoints.next("token"), endpoints.next("token")], ["mqtt://a:1"] * 2)

    def test_addresses_that_are_known_are_tried_while_the_platform_does_not_answer(self):
        with platform(named(0, "a:1"), (503, {})):
            endpoints = Endpoints("http://platform")
            endpoints.next("token")
            endpoints.failed()
            self.assertEqual(endpoints.next("token"), "mqtt://a:1")

    def test_an_access_point_that_asks_to_go_elsewhere_is_followed_and_the_others_stay_known(self):
        with platform(named(60, "a:1", "b:2")):
            endpoints, tried = Endpoints("http://platform"), []
            endpoints.next("token")
            endpoints.moved(["c:3", "b:2"])
            for _ in range(3):
                tried.append(endpoints.next("token"))
                endpoints.failed()
            self.assertEqual(tried, ["mqtt://c:3", "mqtt://b:2", "mqtt://a:1"])

    def test_a_terminal_on_a_secure_address_does_not_follow_to_an_open_one(self):
        endpoints = Endpoints(["mqtts://a", "mqtts://b"])
        endpoints.next("token")
        endpoints.moved(["c:3"])
        self.assertEqual(endpoints.next("token"), "mqtts://b")
        endpoints.moved(["c:3", "mqtts://d:4"])
        self.assertEqual(endpoints.next("token"), "mqtts://d:4")

    def test_a_refused_token_is_told_apart_from_a_platform_that_is_away(self):
        with platform((401, {})):
            self.assertRaises(Refused, Endpoints("http://platform").next, "token")
        with platform((503, {})):
            self.assertRaises(OSError, Endpoints("http://platform").next, "token")

    def test_addresses_of_the_application_are_taken_in_turn(self):
        endpoints = Endpoints(["mqtts://a", "wss://b/mqtt"])
        tried = [endpoints.next("token")]
        for _ in range(2):
            endpoints.failed()
            tried.append(endpoints.next("token"))
        self.assertEqual(tried, ["mqtts://a", "wss://b/mqtt", "mqtts://a"])
