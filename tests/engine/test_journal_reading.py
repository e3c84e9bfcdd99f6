"""What is read ahead while inputs are found in the journal."""

from __future__ import annotations

import threading
import time

import abreast


def test_a_new_input_of_a_slow_source_does_not_wait_for_those_that_are_read_ahead(tmp_path):
    journal = tmp_path / "run.db"
    ran, waited = threading.Event(), []

    def upper(text):
        if text == "a":
            ran.set()
        return text.upper()

    abreast.map(upper, map(str, range(100)), journal=journal)

    def inputs():
        yield from map(str, range(100))
        for text in "abcd":
            if text == "d":
                waited.append(ran.wait(10))
            time.sleep(0.02)  # so the source is slow, which is what this is about
            yield text

    results = abreast.imap(upper, inputs(), journal=journal)
    assert list(results) == [str(n) for n in range(100)] + list("ABCD")
    assert waited == [True]
    assert results.summary().resumed == 100
