"""JSON that readers without nan take."""

import json

import numpy as np

from stlm_jax.runtime.files import json_text


def test_numbers_without_a_word_in_json_are_null_at_any_depth():
    content = {"a": [1.5, float("nan")], "b": ({"c": np.float32("inf")}, -np.inf), "d": 3, "e": "x"}

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    read = json.loads(json_text(content), parse_constant=refuse)
    assert read == {"a": [1.5, None], "b": [{"c": None}, None], "d": 3, "e": "x"}
