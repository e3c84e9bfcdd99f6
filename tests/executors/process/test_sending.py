"""What crosses the pipes of a process pool, as pickles: executors/process/sending.py and what it imports.

Where it matters who is the main script, one interpreter is the parent, a script as a user would write it, and another one the worker.
"""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import decimal
import functools
import gc
import itertools
import logging
import mmap
import operator
import os
import pickle
import socket
import subprocess
import sys
import textwrap
import threading
import traceback
import warnings
import weakref

import abreast
import cloudpickle
import pytest
from abreast.core.errors import TaskError
from abreast.core.process_errors import ResultDecodeError, TaskDecodeError, TaskPickleError, WorkerCrashed
from abreast.executors.process import by_value, culprit, sending
from abreast.executors.process.sending import (
    ERROR,
    OK,
    OUT_OF_BAND,
    Encoded,
    Functions,
    Payload,
    decode_args,
    decode_context,
    decode_function,
    encode_args,
    encode_context,
    encode_error,
    encode_result,
)
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from hypothesis import given, settings, strategies as st

from tests.helpers import in_threads, run_python

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
KEYS = st.text() | st.integers() | st.binary()
DATA = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner) | st.frozensets(KEYS),
    max_leaves=20,
)


def arrived(payload: Payload) -> Payload:
    """As it is after the pipe: bytes read into buffers of the other side's own."""
    return Payload(memoryview(bytes(payload.data)), tuple(bytearray(buffer) for buffer in payload.buffers))


def there_and_back(value):
    return Encoded(OK, arrived(encode_result(value))).decode()


def error_arrives(error):
    return Encoded(ERROR, arrived(encode_error(error))).decode()


def raised(function, *args):
    try:
        function(*args)
    except BaseException as error:
        return error
    pytest.fail("raised nothing")


# ---- a second interpreter

WORKER = """
import pickle, struct, sys
from abreast.executors.process import sending

out, sys.stdout = sys.stdout.buffer, sys.stderr

def main():
    functions = {}
    while head := sys.stdin.buffer.read(8):
        number, definition, data, buffers, context = pickle.loads(sys.stdin.buffer.read(*struct.unpack("<Q", head)))
        try:
            if number not in functions:
                functions[number] = sending.decode_function(definition)
            args, kwargs = sending.decode_args(sending.Payload(data, buffers))
            run = functions[number] if context is None else (
                lambda *args, **kwargs: sending.decode_context(sending.Payload(context)).run(functions[number], *args, **kwargs)
            )
            reply = (sending.OK, sending.encode_result(run(*args, **kwargs)))
        except BaseException as error:
            reply = (sending.ERROR, sending.encode_error(error))
        status, (data, buffers) = reply
        told = pickle.dumps((status, bytes(data), tuple(bytearray(buffer) for buffer in buffers)))
        out.write(struct.pack("<Q", len(told)) + told)
        out.flush()

main()
"""

# `outcome(fn, …)` and `call(fn, …)`: run it in the worker; the second raises what it raises.
PARENT = f"""
import contextvars, pickle, struct, subprocess, sys
from abreast.executors.process import sending

_worker = subprocess.Popen([sys.executable, "-c", {WORKER!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
_functions = sending.Functions()

def send(fn, *args, **kwargs):
    number, definition = _functions.encode(fn)
    data, buffers = sending.encode_args(args, kwargs, fn.__name__)
    context = sending.encode_context(contextvars.copy_context())
    told = pickle.dumps((number, definition, data, tuple(bytearray(b) for b in buffers), None if context is None else context.data))
    _worker.stdin.write(struct.pack("<Q", len(told)) + told)
    _worker.stdin.flush()

def receive():
    status, data, buffers = pickle.loads(_worker.stdout.read(*struct.unpack("<Q", _worker.stdout.read(8))))
    return sending.Encoded(status, sending.Payload(data, buffers))

def outcome(fn, *args, **kwargs):
    send(fn, *args, **kwargs)
    encoded = receive()
    return encoded.status, encoded.decode()

def call(fn, *args, **kwargs):
    status, value = outcome(fn, *args, **kwargs)
    if status:
        raise value
    return value
"""


def run_main(script: str) -> str:
    done = run_python(PARENT + textwrap.dedent(script) + "\n_worker.stdin.close(); _worker.wait(); _worker.stdout.close()\n")
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- arguments


@settings(deadline=None)
@given(st.lists(DATA).map(tuple), st.dictionaries(st.text(), DATA))
def test_arguments_arrive_as_they_were(args, kwargs):
    assert decode_args(arrived(encode_args(args, kwargs, "f"))) == (args, kwargs)


def test_no_keyword_arguments_are_an_empty_dict():
    assert decode_args(encode_args((1,), None, "f")) == ((1,), {})


@pytest.mark.parametrize("text", ["__main__", "__mp_main__", "a __main__ b", "_main_", "__main__.C"])
def test_a_text_with_the_name_of_the_main_script_is_a_text(text):
    value = [text, {text: text.encode()}]
    assert decode_args(encode_args((value,), {text: 1}, "f")) == ((value,), {text: 1})
    assert there_and_back(value) == value


def test_only_the_very_name_costs_cloudpickle(monkeypatch):
    used = []
    monkeypatch.setattr(by_value, "dumps", lambda value, keep, back, common: used.append(value) or pickle.dumps(value))
    encode_result(["see __main__.py", b"__main__"])
    assert not used
    encode_result(["__main__"])
    assert used == [["__main__"]]


class Holder:
    def __init__(self, **more):
        vars(self).update(more)


class Slotted:
    __slots__ = ("conn",)


class Pair(tuple):
    pass


class Careful:
    """Pickles; but not by what it holds."""

    def __init__(self):
        self.lock = threading.Lock()

    def __reduce__(self):
        return Careful, ()


class HalfCareful(Careful):
    def __reduce__(self):
        return HalfCareful, (), {"other": generator()}


def generator():
    yield


def slotted(conn):
    made = Slotted()
    made.conn = conn
    return made


LOCK = threading.Lock()
TOLD = "cannot pickle '_thread.lock' object"


@pytest.mark.parametrize(
    ("args", "kwargs", "place"),
    [
        ((LOCK,), None, "args[0] (lock)"),
        ((1, 2, LOCK), None, "args[2] (lock)"),
        ((), {"conn": LOCK}, "kwargs['conn'] (lock)"),
        (([1, [2, 3, LOCK]],), None, "args[0][1][2] (lock)"),
        (({"a": {"b": (LOCK,)}},), None, "args[0]['a']['b'][0] (lock)"),
        ((Holder(a=1, conn=LOCK, b=2),), None, "args[0].conn (lock)"),
        ((Holder(inner=Holder(conn=LOCK)),), {"x": 1}, "args[0].inner.conn (lock)"),
        ((slotted(LOCK),), None, "args[0].conn (lock)"),
        ((Pair((1, LOCK)),), None, "args[0][1] (lock)"),
        ((ValueError("a", LOCK),), None, "args[0].args[1] (lock)"),
        ((collections.OrderedDict(a=LOCK),), None, "args[0]['a'] (lock)"),
        ((collections.defaultdict(list, {1: [LOCK]}),), None, "args[0][1][0] (lock)"),
        ((collections.deque([0, LOCK]),), None, "args[0][1] (lock)"),
        (({LOCK},), None, "an element of args[0], <unlocked"),
        (({LOCK: 1},), None, "a key of args[0], <unlocked"),
        ((functools.partial(print, 1, end=LOCK),), None, "args[0].keywords['end'] (lock)"),
        ((functools.partial(LOCK.acquire, 1),), None, "args[0].func"),
        ((Holder(conn=LOCK).__init__,), None, "args[0].__self__.conn (lock)"),
        ((Careful(), HalfCareful()), None, "args[1].other (generator)"),
    ],
)
def test_the_error_names_the_smallest_part_that_does_not_pickle(args, kwargs, place):
    error = raised(encode_args, args, kwargs, "fetch")
    assert type(error) is TaskPickleError
    assert isinstance(error, pickle.PicklingError)
    assert error.place.startswith(place)
    assert error.what == "the arguments of fetch"
    assert error.why in ("cannot pickle 'generator' object", TOLD)
    assert isinstance(error.__cause__, TypeError)


def test_the_text_of_the_error():
    with socket.socket() as conn:
        error = raised(encode_args, (Holder(conn=conn),), None, "fetch('a.txt')")
    assert str(error) == (
        "the arguments of fetch('a.txt') cannot be pickled, because of args[0].conn (socket): cannot pickle 'socket' object"
    )


def test_a_part_in_a_function_is_named_too():
    conn = threading.Lock()

    def closure():
        return conn

    def uses_a_global():
        return [LOCK for _ in range(3)]

    def has_a_default(*, a=conn):
        return a

    places = [raised(encode_args, (fn,), None, "f").place for fn in (closure, uses_a_global, has_a_default)]
    assert places == [
        "the variable 'conn' of args[0] (lock)",
        "the global 'LOCK' of args[0] (lock)",
        "args[0].__kwdefaults__['a'] (lock)",
    ]


def test_a_circle_of_objects_does_not_hide_the_part():
    parent = Holder(name="p")
    parent.children = [Holder(parent=parent, number=n) for n in range(3)]
    parent.conn = LOCK
    assert raised(encode_args, (parent,), None, "f").place == "args[0].conn (lock)"


def test_one_bad_item_among_many_is_found_without_pickling_each(monkeypatch):
    monkeypatch.setattr(culprit, "TIME", 20)
    items = [[n] for n in range(200_000)]
    items[123_456] = [LOCK]
    calls = []
    dumps = by_value.dumps
    monkeypatch.setattr(by_value, "dumps", lambda *args, **more: calls.append(1) or dumps(*args, **more))
    assert raised(encode_args, (items,), None, "f").place == "args[0][123456][0] (lock)"
    assert len(calls) < 100


def test_the_search_ends_when_its_time_is_up(monkeypatch):
    monkeypatch.setattr(culprit, "TIME", 0.0)
    error = raised(encode_args, ([LOCK],), None, "f")
    assert error.place == ""
    assert str(error) == f"the arguments of f cannot be pickled: {TOLD}"


def test_nesting_too_deep_blames_no_part():
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    error = raised(encode_args, (nested,), None, "f")
    assert type(error) is TaskPickleError
    assert error.place == ""
    assert "recursion" in error.why
    while nested:  # by hand: the interpreter would do it recursively
        nested = nested.pop()


class Raises:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@pytest.mark.parametrize("encode", [lambda value: encode_args((value,), None, "f"), encode_result])
def test_what_a_reduce_raises(encode):
    for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError()):
        assert raised(encode, [Raises(error)]) is error
    error = raised(encode, [Raises(pickle.PicklingError("Error in pickle"))])
    assert type(error) is TaskPickleError
    assert error.why == "Error in pickle"
    assert "[0] (Raises)" in error.place
    assert raised(encode, [Raises(ZeroDivisionError("by 0"))]).why == "ZeroDivisionError: by 0"
    assert raised(encode, [Raises(ZeroDivisionError())]).why == "ZeroDivisionError"


class Strange:
    """Nothing about it works."""

    def __reduce__(self):
        raise TypeError("no")

    def __repr__(self):
        raise RuntimeError("no repr")

    def __eq__(self, other):
        raise RuntimeError("no eq")

    def __hash__(self):
        return 1


def test_strange_objects_do_not_disturb_the_search():
    assert raised(encode_args, ({"a": Strange()},), None, "f").place == "args[0]['a'] (Strange)"
    assert "args[0]" in raised(encode_args, ({Strange(): 1},), None, "f").place


def test_an_unpicklable_argument_tells_its_call_only_when_it_has_to():
    class Name:
        def __str__(self):
            told.append(1)
            return "fetch(…)"

    told: list[int] = []
    encode_args((1,), None, Name())
    assert not told
    assert "fetch(…)" in str(raised(encode_args, (LOCK,), None, Name()))


# ---- large buffers


class Array:
    """Exports its memory as arrays do."""

    def __init__(self, memory, view=None):
        self.memory = memory
        self.view = view

    def __reduce_ex__(self, protocol):
        if protocol >= 5:
            return Array, (pickle.PickleBuffer(self.memory if self.view is None else self.view),)
        return Array, (bytes(self.memory),)


def test_a_large_buffer_stays_out_of_the_pickle():
    memory = bytearray(os.urandom(OUT_OF_BAND))
    for payload in (encode_result(Array(memory)), encode_args((Array(memory),), None, "f")):
        assert len(payload.data) < 200
        (buffer,) = payload.buffers
        assert len(buffer) == OUT_OF_BAND
        assert payload.size == len(payload.data) + OUT_OF_BAND
        memory[0] ^= 1
        assert buffer[0] == memory[0], "not a copy"


def test_a_large_buffer_arrives_writable_and_private():
    memory = bytearray(os.urandom(OUT_OF_BAND))
    back = there_and_back([Array(memory)])[0]
    assert back.memory == memory
    assert type(back.memory) is bytearray
    back.memory[0] ^= 1
    assert back.memory != memory


def test_small_buffers_and_plain_bytes_travel_in_the_pickle():
    for value in (Array(bytearray(OUT_OF_BAND - 1)), b"x" * OUT_OF_BAND * 2, bytearray(OUT_OF_BAND * 2)):
        assert encode_result(value).buffers == ()
    assert there_and_back(bytearray(OUT_OF_BAND * 2)) == bytearray(OUT_OF_BAND * 2)


def test_a_buffer_of_more_than_one_dimension_goes_as_its_bytes():
    view = memoryview(bytearray(OUT_OF_BAND * 2)).cast("d", (4, OUT_OF_BAND // 16))
    (buffer,) = encode_result(Array(None, view)).buffers
    assert (buffer.format, buffer.ndim, buffer.contiguous, len(buffer)) == ("B", 1, True, OUT_OF_BAND * 2)


# Kept: the garbage collector of CPython 3.11 crashes on a PickleBuffer of a memoryview in a circle of references (gh-77894).
IN_PIECES = memoryview(bytearray(OUT_OF_BAND * 4))[::2]


def test_a_buffer_in_pieces_is_what_pickle_says_it_is():
    error = raised(encode_result, Array(None, IN_PIECES))
    assert type(error) is TaskPickleError
    assert "contiguous" in str(error)


def test_more_than_a_thousand_buffers_are_too_many():
    memory = bytearray(OUT_OF_BAND)
    payload = encode_result([Array(memory[:]) for _ in range(sending.MOST_BUFFERS + 2)])
    assert len(payload.buffers) == sending.MOST_BUFFERS
    assert len(payload.data) > 2 * OUT_OF_BAND


def test_on_request_nothing_is_kept_out():
    payload = encode_args((Array(bytearray(OUT_OF_BAND)),), None, "f", in_band=True)
    assert payload.buffers == ()
    assert len(decode_args(payload)[0][0].memory) == OUT_OF_BAND


def test_cloudpickle_keeps_large_buffers_out_too_and_none_twice():
    memory = bytearray(OUT_OF_BAND)
    payload = encode_result([Array(memory), lambda: 5])  # plain pickle has seen the array before it fails
    assert len(payload.buffers) == 1
    array, function = Encoded(OK, arrived(payload)).decode()
    assert (len(array.memory), function()) == (OUT_OF_BAND, 5)


def test_more_than_two_gigabytes():
    memory = mmap.mmap(-1, 2**31 + 10)  # pages that nobody touches: the kernel gives no memory for them
    payload = encode_result(Array(memory))
    assert payload.size > 2**31
    assert len(payload.buffers[0]) == 2**31 + 10


def test_arrays_of_numpy():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(OUT_OF_BAND, dtype="f8").reshape(-1, 64)
    payload = encode_result({"a": array, "f": numpy.asfortranarray(array), "small": numpy.zeros(3)})
    assert [len(buffer) for buffer in payload.buffers] == [array.nbytes] * 2
    back = Encoded(OK, arrived(payload)).decode()
    assert (back["a"] == array).all()
    assert (back["f"] == array).all()
    for value in back.values():
        value[0] = 7  # writable
    in_pieces = encode_result(array[:, ::2])
    assert in_pieces.buffers == ()
    assert (Encoded(OK, arrived(in_pieces)).decode() == array[:, ::2]).all()


# ---- functions


class Methods:
    def method(self):
        return "method"

    @classmethod
    def of_class(cls):
        return cls

    @staticmethod
    def static():
        return "static"

    def __call__(self):
        return "called"


def named():
    return "named"


@pytest.mark.parametrize(
    ("function", "gives"),
    [
        (named, "named"),
        (Methods().method, "method"),
        (Methods.of_class, Methods),
        (Methods.static, "static"),
        (Methods(), "called"),
        (functools.partial(max, 1, 2), 2),
        (functools.partial(lambda x: x + 1, 2), 3),
        (lambda: "lambda", "lambda"),
        (dict, {}),
        (os.getpid, os.getpid()),
        ("abc".upper, "ABC"),
        ([3].pop, 3),
        (operator.itemgetter, None),
    ],
    ids=lambda value: getattr(value, "__qualname__", type(value).__name__),  # the same in each process of xdist
)
def test_functions_of_every_kind(function, gives):
    number, data = Functions().encode(function)
    assert number == 1
    there = decode_function(data)
    if gives is None:
        assert there is function
    else:
        assert there() == gives


def test_what_a_module_has_goes_by_name_and_is_pickled_once(monkeypatch):
    functions = Functions()
    first = functions.encode(named)
    monkeypatch.setattr(sending, "_encode", None)
    assert functions.encode(named) is first
    assert decode_function(first[1]) is named


def test_equal_bytes_have_equal_numbers():
    functions = Functions()
    numbers = [functions.encode(fn)[0] for fn in (named, Methods().method, named, Methods().method, os.getpid, named)]
    assert numbers == [1, 2, 1, 2, 3, 1]

    def make(n):
        return lambda: n

    one = make(1)
    assert functions.encode(one)[0] == functions.encode(one)[0] == functions.encode(make(1))[0]
    assert functions.encode(make(1))[0] != functions.encode(make(2))[0]


def test_methods_of_equal_objects_are_not_taken_for_each_other():
    functions = Functions()
    assert decode_function(functions.encode([1].copy)[1])() == [1]
    assert decode_function(functions.encode([2].copy)[1])() == [2]


def test_a_function_that_was_replaced_in_its_module_goes_by_value(monkeypatch):
    functions = Functions()
    original, (by_name, _) = named, functions.encode(named)
    monkeypatch.setattr(sys.modules[__name__], "named", lambda: "another")
    number, data = functions.encode(original)
    assert number != by_name
    assert decode_function(data)() == "named"


def test_what_a_function_uses_is_looked_at_every_time():
    box = [1]

    def function():
        return box[0]

    functions = Functions()
    first = functions.encode(function)
    box[0] = 2
    second = functions.encode(function)
    assert first[0] != second[0]
    assert (decode_function(first[1])(), decode_function(second[1])()) == (1, 2)


def test_numbers_are_forgotten_in_the_end_and_never_used_again():
    functions = Functions()

    def make(n):
        return functools.partial(max, n, 0)

    first = functions.encode(make(1))[0]
    numbers = [functions.encode(make(n))[0] for n in range(2, 2 * Functions.KEPT + 10)]
    assert len({first, *numbers}) == len(numbers) + 1
    assert len(functions._younger) + len(functions._older) <= 2 * Functions.KEPT
    assert functions.encode(make(1))[0] > max(numbers)


def test_a_number_in_use_is_not_forgotten():
    functions = Functions()
    kept = functions.encode(Methods().method)
    for n in range(3 * Functions.KEPT):
        functions.encode(functools.partial(max, n))
        assert functions.encode(Methods().method) == kept


def test_threads_get_numbers_that_stand_for_one_thing(busy_switching):
    functions = Functions()
    made = [functools.partial(max, n) for n in range(50)]

    def encode():
        return [functions.encode(fn) for fn in made]

    stands_for = {}
    for number, data in itertools.chain(*in_threads(*[encode] * 4)):
        assert stands_for.setdefault(number, data) == data


@pytest.mark.parametrize("what", ["a global", "a variable", "both by a partial"])
def test_a_function_that_cannot_be_pickled_says_why(what):
    conn = threading.Lock()

    def closure():
        return conn

    function, place = {
        "a global": (lambda: LOCK, "the global 'LOCK' of "),
        "a variable": (closure, "the variable 'conn' of "),
        "both by a partial": (functools.partial(closure, LOCK), "the variable 'conn' of "),
    }[what]
    error = raised(Functions().encode, function)
    assert type(error) is TaskPickleError
    assert error.what.startswith("the function test_a_function_that_cannot_be_pickled_says_why.<locals>.")
    assert place in error.place
    assert error.why == TOLD


def test_system_exit_while_a_function_is_pickled():
    error = SystemExit(3)
    assert raised(Functions().encode, functools.partial(max, Raises(error))) is error


def test_one_warning_of_a_function_that_drags_much_along():
    table, small = bytes(3 << 20), 5

    def look_up():
        return table, small

    functions = Functions()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        functions.encode(look_up)
        functions.encode(look_up)
    (warning,) = caught
    assert warning.category is RuntimeWarning
    assert warning.filename == __file__
    text = str(warning.message)
    assert "look_up takes 3.0 MiB along to every worker, most of it for the variable 'table' of " in text
    assert "(bytes)" in text


def test_a_traceback_shows_the_lines_of_the_script(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent("""
            import abreast

            def work(x):
                return (lambda y: 1 / y)(x)

            if __name__ == "__main__":
                abreast.map(work, [0], kind="process", max_workers=1)
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert f'File "{script}", line 5, in work\n    return (lambda y: 1 / y)(x)' in done.stderr
    assert f'File "{script}", line 5, in <lambda>' in done.stderr


@pytest.mark.parametrize("mode", ["r", "w", "rb"])
def test_an_open_file_is_refused(tmp_path, mode):
    path = tmp_path / "file.txt"
    path.write_text("a line")
    with abreast.ProcessPoolExecutor(1) as executor, path.open(mode) as file:
        with pytest.raises(
            TaskPickleError,
            match="BufferedReader" if mode == "rb" else r"an open file cannot be sent: open '.*file\.txt' in the task",
        ):
            executor.submit(len, file).result(30)
        with pytest.raises(TaskPickleError):
            executor.submit(lambda: file.readline()).result(30)


def test_modules_that_cloudpickle_was_told_to_send_by_value(tmp_path, monkeypatch):
    (tmp_path / "shop_by_value.py").write_text("class C: pass\ndef f(): return C()\n")
    monkeypatch.syspath_prepend(tmp_path)
    import shop_by_value

    functions = Functions()
    by_name = functions.encode(shop_by_value.f)
    assert b"_make_function" not in by_name[1]
    assert b"_make_skeleton_class" not in encode_args((shop_by_value.C(),), None, "f").data
    cloudpickle.register_pickle_by_value(shop_by_value)
    try:
        assert b"_make_function" in Functions().encode(shop_by_value.f)[1]
        assert b"_make_skeleton_class" in encode_args((shop_by_value.C(),), None, "f").data
    finally:
        cloudpickle.unregister_pickle_by_value(shop_by_value)


# ---- the main script


def test_lambdas_closures_and_recursive_functions_of_the_main_script():
    out = run_main("""
        OFFSET = 10

        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        def make(n):
            def inner(x):
                return x + n + OFFSET
            return inner

        print(call(lambda x: x + OFFSET, 1), call(fib, 10), call(make(1), 1), call(make(2), 1))
        OFFSET = 20
        print(call(lambda x: x + OFFSET, 1), call(make(1), 1))
        def fib(n):
            return "another"
        print(call(fib, 10))
    """)
    assert out == "11 55 12 13\n21 22\nanother\n"


def test_objects_of_the_main_script_come_back_as_objects_of_the_same_class():
    out = run_main("""
        import collections, dataclasses, enum, typing

        class Plain:
            def __init__(self, n): self.n = n
        class Slots:
            __slots__ = ("n",)
            def __init__(self, n): self.n = n
        class PrivateSlot:
            __slots__ = ("__n", "other")
            def __init__(self, n): self.__n = n
            @property
            def n(self): return self.__n
        class OneSlot:
            __slots__ = "n"
            def __init__(self, n): self.n = n
        class SlotsChild(Slots): __slots__ = ("more", "__dict__")
        @dataclasses.dataclass(slots=True)
        class DataSlots:
            n: int
        class NoSlots: __slots__ = ()
        class NoSlotsChild(NoSlots):
            __slots__ = ("n",)
            def __init__(self, n): self.n = n
        class Child(Plain): pass
        @dataclasses.dataclass(frozen=True)
        class Data:
            n: int
        class Color(enum.Enum):
            RED = 1
            BLUE = 2
        Named = collections.namedtuple("Named", "n")
        class Typed(typing.NamedTuple):
            n: int
        class Items(list): pass
        class Outer:
            class Inner:
                def __init__(self, n): self.n = n
        class Meta(type): pass
        class WithMeta(metaclass=Meta):
            def __init__(self, n): self.n = n

        def echo(x): return x
        def make(n): return [Plain(n), {"a": (Slots(n), Child(n))}, Data(n), Named(n), Typed(n), Outer.Inner(n), WithMeta(n)]

        for cls in (Plain, Slots, PrivateSlot, OneSlot, SlotsChild, DataSlots, NoSlotsChild, Child, Data, Named, Typed, Outer.Inner, WithMeta):
            for _ in range(2):
                back = call(echo, cls(7))
                assert type(back) is cls and back.n == 7, cls
                assert type(call(lambda: [{"x": cls(7)}])[0]["x"]) is cls
            assert call(echo, cls) is cls
        assert type(call(echo, Items([1]))) is Items
        assert call(echo, Color.RED) is Color.RED and call(lambda: [Color.BLUE])[0] is Color.BLUE
        plain, tree, data, *others = call(make, 3)
        slots, child = tree["a"]
        assert [type(value) for value in (plain, slots, child, data, *others)] == [
            Plain, Slots, Child, Data, Named, Typed, Outer.Inner, WithMeta]
        assert data == Data(3) and others[0] == Named(3)
        assert isinstance(child, Plain)
        print("all")
    """)
    assert out == "all\n"


def test_a_result_does_not_change_the_classes_of_the_main_script():
    """As cloudpickle alone would: it sets all attributes of the class again, to the worker's copies."""
    out = run_main("""
        LEVEL = 1

        class Base:
            made = []
            def level(self): return LEVEL

        class Child(Base):
            count = 0
            def __init__(self):
                Child.count += 1
                self.made.append(1)

        before, level, made = dict(vars(Child)), Base.level, Base.made

        def local():
            class Grandchild(Child): pass
            return Grandchild()

        for _ in range(3):
            assert type(call(lambda: Child())) is Child
        back = call(local)
        again = call(local)
        assert isinstance(back, Child) and type(back).__name__ == "Grandchild"
        assert dict(vars(Child)) == before and Base.level is level and Base.made is made == []
        LEVEL = 2
        print(back.level(), Child.count)
    """)
    assert out == "2 0\n"


def test_a_class_that_the_main_script_has_dropped_comes_back_defined():
    out = run_main("""
        import gc

        class C:
            def __init__(self, n): self.n = n
            def double(self): return 2 * self.n
            def again(self): return C(self.n)

        send(lambda: [C(4), C(5)])
        first = C
        del C
        number = id(first)
        del first
        gc.collect()
        four, five = receive().decode()
        print(four.double(), five.again().double(), type(four) is type(five) is type(five.again()))
    """)
    assert out == "8 10 True\n"


def test_a_large_class_does_not_travel_back():
    out = run_main("""
        TABLE = b"x" * 1_000_000

        class C:
            def look_up(self): return len(TABLE)

        import warnings
        warnings.simplefilter("ignore")
        send(lambda: C())
        encoded = receive()
        assert encoded.payload.size < 1000, encoded.payload.size
        assert type(encoded.decode()) is C
        print(encoded.decode().look_up())
    """)
    assert out == "1000000\n"


def test_an_error_of_a_class_of_the_main_script_keeps_its_type():
    out = run_main("""
        class ShopError(Exception):
            pass
        class Odd(Exception):
            def __init__(self, a, b): super().__init__(f"{a}-{b}")

        def fail(kind, *args):
            raise kind(*args)

        status, error = outcome(fail, ShopError, "no pears")
        print(status, type(error) is ShopError, error.args, "raise kind(*args)" in str(error.__cause__) or "fail" in str(error.__cause__))
        status, error = outcome(fail, Odd, 1, 2)
        print(status, type(error).__name__, error)
        try:
            call(fail, ShopError)
        except ShopError as error:
            print(type(error.__cause__))
    """)
    assert out == (
        "1 True ('no pears',) True\n1 TaskError __main__.Odd: 1-2\n<class 'concurrent.futures.process._RemoteTraceback'>\n"
    )


def test_what_cannot_be_sent_back_is_told():
    out = run_main("""
        def results():
            return {"rows": [1, (n for n in range(3))]}
        status, error = outcome(results)
        print(status, type(error).__name__, error)
        def leave():
            raise SystemExit(3)
        status, error = outcome(leave)
        print(status, repr(error))
    """)
    assert out == (
        "1 TaskPickleError the result cannot be pickled, because of result['rows'][1] (generator): cannot pickle 'generator' object\n"
        "1 SystemExit(3)\n"
    )


def test_context_variables_of_the_main_script():
    out = run_main("""
        user = contextvars.ContextVar("user", default="nobody")
        unset = contextvars.ContextVar("unset")

        def who():
            try:
                unset.get()
            except LookupError:
                return user.get(), "unset"

        def echo(x): return x

        print(call(who))
        user.set("anna")
        print(call(who))
        user.set("bert")
        print(call(who))
        def set_there():
            user.set("eve")
            return user.get()
        print(call(set_there), call(who), call(echo, user) is user)

        def local():
            var = contextvars.ContextVar("var")
            var.set([1, 2])
            return call(lambda: var.get())
        print(local())
    """)
    assert out == "('nobody', 'unset')\n('anna', 'unset')\n('bert', 'unset')\neve ('bert', 'unset') True\n[1, 2]\n"


def test_context_variables_of_modules(tmp_path):
    (tmp_path / "settings_of_test.py").write_text(
        "from contextvars import ContextVar\nlevel = ContextVar('level', default=0)\ndef get(): return level.get()\n"
    )
    out = run_main(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        def extend(path):
            import sys
            sys.path.insert(0, path)
        call(extend, {str(tmp_path)!r})
        import settings_of_test
        print(call(settings_of_test.get))
        settings_of_test.level.set(5)
        print(call(settings_of_test.get))
        def look():
            import settings_of_test
            return settings_of_test.level.get()
        print(call(look))
        import decimal
        decimal.getcontext().prec = 5
        def third():
            import decimal
            return decimal.Decimal(1) / 3
        print(call(third))
    """)
    assert out == "0\n5\n5\n0.33333\n"


def test_a_child_of_multiprocessing_as_parent(tmp_path):
    """There the main script is called __mp_main__."""
    script = tmp_path / "script.py"
    script.write_text(
        PARENT.replace("_worker = ", "_start = lambda: ")
        + textwrap.dedent("""
            import multiprocessing
            class C:
                pass
            def make():
                return [C()]
            def main():
                global _worker
                _worker = _start()
                assert __name__ == "__mp_main__"
                print(type(call(make)[0]) is C, type(call(lambda x: x, C())) is C, flush=True)
                _worker.stdin.close(), _worker.wait()
            if __name__ == "__main__":
                process = multiprocessing.get_context("spawn").Process(target=main)
                process.start()
                process.join()
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.returncode) == ("True True\n", 0), done.stderr


def test_what_of_cloudpickle_we_rely_on_is_there():
    for name in (
        "_get_or_create_tracker_id", "_DYNAMIC_CLASS_TRACKER_BY_ID", "_DYNAMIC_CLASS_TRACKER_BY_CLASS", "_make_skeleton_class",
        "_make_skeleton_enum", "_class_setstate", "_PICKLE_BY_VALUE_MODULES",
    ):  # fmt: skip
        assert hasattr(by_value.inner, name), name
    local = type("Local", (), {})
    local.__module__ = "__main__"
    with open(os.devnull, "wb") as file:
        reduced = by_value._Pickler(file, protocol=5).reducer_override(local)
    assert len(reduced) == 6
    assert reduced[5] is by_value.inner._class_setstate
    assert reduced[1][-2] == by_value.inner._get_or_create_tracker_id(local)


# ---- contexts

level: contextvars.ContextVar[object] = contextvars.ContextVar("level")
also_level = level


def context_with(*pairs):
    context = contextvars.Context()
    for var, value in pairs:
        context.run(var.set, value)
    return context


def test_an_empty_context_is_nothing():
    assert encode_context(contextvars.Context()) is None


@pytest.mark.parametrize("value", [5, "text", None, [1, {"a": 2}], Holder])
def test_a_variable_of_a_module_arrives(value):
    payload = encode_context(context_with((level, value)))
    assert decode_context(payload)[level] == value


def test_what_a_value_holds_is_looked_at_every_time():
    context = context_with((level, []))
    first = encode_context(context)
    context[level].append(1)
    second = encode_context(context)
    assert decode_context(first)[level] == []
    assert decode_context(second)[level] == [1]


def test_the_same_plain_values_are_pickled_once():
    assert encode_context(context_with((level, "a"))) is encode_context(context_with((level, "a")))
    assert encode_context(context_with((level, "b"))) != encode_context(context_with((level, "a")))


def test_what_cannot_go_is_told_of_once_and_the_rest_goes(caplog):
    caplog.set_level(logging.DEBUG, "abreast")
    hidden = contextvars.ContextVar("hidden")
    conn = contextvars.ContextVar("conn")
    setattr(sys.modules[__name__], "conn_of_test", conn)
    try:
        for _ in range(3):
            context = context_with((level, [5]), (hidden, 1), (conn, LOCK))
            assert dict(decode_context(encode_context(context)).items()) == {level: [5]}
    finally:
        delattr(sys.modules[__name__], "conn_of_test")
    assert sorted(record.message for record in caplog.records) == [
        f"the context variable 'conn' does not go to worker processes: TypeError: {TOLD}",
        "the context variable 'hidden' does not go to worker processes: LookupError: no module has it as an attribute",
    ]
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert encode_context(context_with((hidden, 1))) is None


def test_a_variable_that_cannot_be_set_there_is_left_out(caplog):
    caplog.set_level(logging.DEBUG, "abreast")
    told = [
        (("no_such_module_here", "var"), pickle.dumps(1)),
        ((__name__, "LOCK"), pickle.dumps(1)),
        ((__name__, "level"), pickle.dumps(2)),
    ]
    context = decode_context(Payload(pickle.dumps(told)))
    assert dict(context.items()) == {level: 2}
    assert "ModuleNotFoundError" in caplog.messages[0]
    assert "is no context variable here" in caplog.messages[1]


def test_what_our_own_scopes_live_in_stays_here():
    with abreast.TaskGroup():
        context = contextvars.copy_context()
    assert any(var.name.startswith("abreast.") for var in context)
    sent = encode_context(context)
    assert sent is None or b"abreast" not in sent.data


def test_a_value_that_cannot_go_is_tried_once_and_not_kept(monkeypatch):
    tries = []
    encode = sending._encode
    monkeypatch.setattr(sending, "_encode", lambda value, *more: tries.append(type(value)) or encode(value, *more))
    holder = Holder(conn=LOCK)
    gone = weakref.ref(holder)
    context = context_with((level, holder))
    for _ in range(3):
        assert encode_context(context) is None
    assert tries == [Holder]
    del context, holder
    gc.collect()
    assert gone() is None
    assert encode_context(context_with((level, Holder(n=1)))) is not None


def test_decimals_are_computed_there_as_they_are_here():
    def default():
        decimal.setcontext(decimal.Context())  # makes the variable, changes nothing
        return contextvars.copy_context()

    def special():
        decimal.getcontext().prec = 4
        return contextvars.copy_context()

    ordinary = contextvars.Context().run(default)
    assert encode_context(ordinary) is None
    assert encode_context(ordinary) is None
    ordinary.run(lambda: setattr(decimal.getcontext(), "prec", 3))  # in place
    assert decode_context(encode_context(ordinary)).run(lambda: decimal.Decimal(1) / 3) == decimal.Decimal("0.333")
    arrived_context = decode_context(encode_context(contextvars.Context().run(special)))
    assert arrived_context.run(lambda: decimal.Decimal(1) / 3) == decimal.Decimal("0.3333")


def test_functions_that_use_context_variables_of_modules_use_the_same_ones():
    def function():
        return level

    assert decode_function(Functions().encode(function)[1])() is level


# ---- results and errors


@settings(deadline=None)
@given(DATA)
def test_results_arrive_as_they_were(value):
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)


def test_an_exception_that_is_returned_is_a_result():
    back = there_and_back(ValueError("x"))
    assert type(back) is ValueError
    assert back.__cause__ is None


class Arrives:
    """Raises when it is unpickled."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return _raise, (self.error,)


def _raise(error):
    raise error


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), GeneratorExit(), MemoryError("no")])
def test_a_result_that_cannot_be_unpickled(error):
    told = raised(Encoded(OK, encode_result(Arrives(error))).decode)
    assert type(told) is ResultDecodeError
    assert isinstance(told, BrokenProcessPool)
    assert type(told.__cause__) is type(error)
    assert type(error).__name__ in str(told)


interrupts: list[int] = []


class Interrupted:
    def __reduce__(self):
        return _interrupt, ()


def _interrupt():
    if not interrupts:
        interrupts.append(1)
        raise KeyboardInterrupt
    return "there"


@pytest.mark.parametrize("status", [OK, ERROR])
def test_ctrl_c_while_a_result_is_unpickled_leaves_the_bytes(status):
    interrupts[:] = []
    value = Interrupted()
    encoded = Encoded(OK, encode_result(value))
    if status == ERROR:
        interrupts[:] = [1]  # for the try in the worker
        encoded = Encoded(ERROR, encode_error(RaisedWith(value)))
        interrupts[:] = []
    assert type(raised(encoded.decode)) is KeyboardInterrupt
    assert "there" in str(encoded.decode())


class RaisedWith(Exception):
    def __init__(self, value):
        super().__init__(value)


def failing():
    raise ValueError("a b c")  # the source line


def failing_within():
    try:
        failing()
    except ValueError as error:
        error.add_note("first note")
        raise KeyError("outer") from error


def test_an_error_arrives_with_its_traceback_as_its_cause():
    error = error_arrives(raised(failing))
    assert type(error) is ValueError
    assert error.args == ("a b c",)
    assert type(error.__cause__) is _RemoteTraceback
    assert error.__traceback__ is None
    text = str(error.__cause__)
    assert text.startswith('\n"""\nTraceback (most recent call last):\n')
    assert 'raise ValueError("a b c")  # the source line' in text
    assert text.endswith('ValueError: a b c\n"""')
    shown = "".join(traceback.format_exception(error))
    assert "direct cause" in shown
    assert shown.count("# the source line") == 1


def test_causes_contexts_and_notes_survive_in_the_text_and_notes_on_the_object():
    error = raised(failing_within)
    error.add_note("second note")
    back = error_arrives(error)
    assert type(back) is KeyError
    assert back.__notes__ == ["second note"]
    text = str(back.__cause__)
    assert "first note" in text
    assert "second note" in text
    assert "# the source line" in text
    assert "The above exception was the direct cause" in text


class DropsNotes(Exception):
    def __reduce__(self):
        return DropsNotes, self.args


def test_notes_survive_a_reduce_that_drops_them():
    error = DropsNotes("x")
    error.add_note("kept")
    assert error_arrives(error).__notes__ == ["kept"]


def test_the_text_begins_in_the_code_of_the_user():
    """Without the frames of the worker that has called it."""
    error = raised(decode_args, Payload(pickle.dumps(((Arrives(ValueError("deep")),), None))))
    error.__traceback__ = error.__traceback__.tb_next  # the frame of this test: now the first is of sending.py
    assert error.__traceback__.tb_frame.f_code.co_filename == sending.__file__
    outer = raised(_raise_from, error)
    frames = [line for line in str(error_arrives(outer).__cause__).splitlines() if line.startswith("  File ")]
    assert [line.rpartition(" ")[2] for line in frames] == ["_raise", "raised", "_raise_from"]


def _raise_from(error):
    raise KeyError("outer") from error


BUILT_IN = [
    ValueError("x"),
    ValueError(),
    KeyError(("a", 1)),
    OSError(2, "No such file", "a.txt"),
    FileNotFoundError(2, "No such file", "a.txt", None, "b.txt"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    SystemExit(3),
    KeyboardInterrupt(),
    StopIteration(5),
    ImportError("no", name="x", path="y"),
    ExceptionGroup("many", [ValueError(1), OSError(2, "x")]),
    BaseExceptionGroup("many", [KeyboardInterrupt()]),
    ValueError([1, {"a": 2}]),
    Warning("w"),
    TimeoutError("late"),
]


@pytest.mark.parametrize("error", BUILT_IN, ids=repr)
def test_built_in_errors_keep_type_and_arguments(error):
    back = error_arrives(error)
    assert type(back) is type(error)
    assert repr(back) == repr(error)
    assert str(back) == str(error)
    if isinstance(error, OSError):
        assert (back.filename, back.filename2, back.errno) == (error.filename, error.filename2, error.errno)
    if isinstance(error, ImportError):
        assert (back.name, back.path) == (error.name, error.path)


@dataclasses.dataclass(frozen=True)
class FrozenAndTold(Exception):
    code: int

    def __reduce__(self):
        return FrozenAndTold, (self.code,)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class NeedsTwo(Exception):
    def __init__(self, path, line):
        super().__init__(f"{path}:{line}")


class Holds(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.conn = LOCK


class GivesAnother(Exception):
    def __reduce__(self):
        return str, ("not an exception",)


class LeavesAtPickling(Exception):
    def __reduce__(self):
        raise SystemExit(3)


class LeavesAtUnpickling(Exception):
    def __reduce__(self):
        return sys.exit, (3,)


class CannotSay(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    def __reduce__(self):
        raise TypeError("nor this")


def test_an_exception_that_lets_no_attribute_be_set_arrives():
    error = FrozenAndTold(5)
    BaseException.__setattr__(error, "__notes__", ["a note"])
    back = error_arrives(error)
    assert type(back) is FrozenAndTold
    assert back.__notes__ == ["a note"]
    assert back.code == 5
    assert type(back.__cause__) is _RemoteTraceback


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (NeedsTwo("a.txt", 5), "missing 1 required positional argument"),
        (Holds("x"), TOLD),
        (GivesAnother("x"), "its pickle gives 'not an exception'"),
        (LeavesAtPickling("x"), "SystemExit: 3"),
        (LeavesAtUnpickling("x"), "SystemExit: 3"),
        (CannotSay("x"), "nor this"),
        (Frozen(5), "FrozenInstanceError: cannot assign to field 'code'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_that_cannot_be_sent_becomes_a_task_error(error, why):
    name, said = f"{__name__}.{type(error).__qualname__}", "<its str() failed>" if type(error) is CannotSay else str(error)
    BaseException.__setattr__(error, "__notes__", ["a note of the user's"])
    raised(_raise, error)
    back = error_arrives(error)
    assert type(back) is TaskError
    assert (back.type_name, back.text) == (name, said)
    assert str(back) == f"{name}: {said}"
    assert "in _raise" in back.traceback
    assert str(back.__cause__) == f'\n"""\n{back.traceback}"""'
    user, ours = back.__notes__
    assert user == "a note of the user's"
    assert ours.startswith("the exception itself cannot be sent to another process: ")
    assert why in ours


def test_a_built_in_error_with_an_attribute_that_cannot_be_unpickled():
    error = ValueError("x")
    error.more = Arrives(KeyError("no"))
    back = error_arrives(error)
    assert (type(back), back.type_name) == (TaskError, "ValueError")
    assert "cannot be sent to another process: KeyError" in back.__notes__[0]


def test_an_error_that_cannot_be_unpickled_here_is_a_task_error_too():
    interrupts[:] = []
    error = RaisedWith(1)
    payload = encode_error(error)
    sys.modules[__name__].RaisedWith = NeedsTwo  # another version of the module in this process, say
    try:
        back = Encoded(ERROR, payload).decode()
    finally:
        sys.modules[__name__].RaisedWith = type(error)
    assert type(back) is TaskError
    assert "cannot be unpickled in this process" in back.__notes__[-1]
    assert type(back.__cause__) is _RemoteTraceback


def test_a_large_array_in_an_error_stays_out_of_the_pickle():
    payload = encode_error(RaisedWith(Array(bytearray(OUT_OF_BAND))))
    assert len(payload.buffers) == 1
    assert len(Encoded(ERROR, arrived(payload)).decode().args[0].memory) == OUT_OF_BAND


def test_a_local_class_of_errors_and_a_result_of_a_local_class():
    class Local(Exception):
        pass

    assert type(error_arrives(Local("x"))) is Local

    class Thing:
        pass

    assert type(there_and_back([Thing()])[0]) is Thing


def test_nothing_keeps_what_was_encoded():
    thing = Holder()
    function = functools.partial(print, thing)
    gone = weakref.ref(thing)
    functions = Functions()
    payloads = encode_args((thing,), None, "f"), encode_result(thing), functions.encode(function)
    error = raised(_raise, RaisedWith(thing))
    payloads += (encode_error(error),)
    with pytest.raises(TaskPickleError):
        encode_args((thing, LOCK), None, "f")
    del thing, function, error
    gc.collect()
    assert gone() is None
    assert payloads


# ---- the errors themselves


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            TaskPickleError("the result", "result[0] (lock)", "no"),
            "the result cannot be pickled, because of result[0] (lock): no",
        ),
        (TaskDecodeError("ValueError: no"), "a task could not be unpickled in its worker: ValueError: no"),
        (TaskDecodeError("ValueError: no", "f(1)"), "f(1) could not be unpickled in its worker: ValueError: no"),
        (ResultDecodeError("SystemExit: 3"), "the result cannot be unpickled in this process: SystemExit: 3"),
        (TaskError("shop.Error", "no pears", "Traceback …"), "shop.Error: no pears"),
        (TaskError("shop.Error"), "shop.Error"),
        (
            WorkerCrashed(
                "resize('a.png')",
                17,
                "worker 3",
                912,
                -9,
                "SIGKILL",
                "while running",
                41.2,
                "",
                "kernel OOM killer; peak RSS 7.9 GB",
            ),
            "task #17 resize('a.png') — worker 3 (pid 912) died of SIGKILL after 41.2 s while running (kernel OOM killer; peak RSS 7.9 GB)",
        ),
        (
            WorkerCrashed("f(1)", None, "worker 1", 5, 3, "", "while running", 0.00312, "File a.py, line 3\n"),
            "f(1) — worker 1 (pid 5) ended with exit code 3 after 3.1 ms while running; it was here:\nFile a.py, line 3",
        ),
        (WorkerCrashed("f(1)", pid=5, exitcode=-35), "f(1) — its worker (pid 5) died of signal 35 after 0 ms"),
        (WorkerCrashed(pid=5), "a task — its worker (pid 5) died, nobody knows how, after 0 ms"),
    ],
)
def test_errors_have_texts_and_pickle(error, text):
    assert str(error) == text
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, vars(copy), str(copy)) == (type(error), error.args, vars(error), text)
    assert isinstance(error, abreast.AbreastError)


# ---- a worker starts fast


def test_importing_it_brings_nothing_large():
    done = run_python("""
        import sys
        import abreast.executors.process.sending as sending
        large = {"cloudpickle", "rich", "click", "asyncio", "multiprocessing", "concurrent.futures.process", "hashlib", "decimal", "traceback_"}
        print(sorted(large & set(sys.modules)))
        args, kwargs = sending.decode_args(sending.encode_args((5,), None, "f"))
        sending.encode_result(25), sending.encode_error(ValueError("x")), sending.Functions().encode(len)
        print(sorted(large & set(sys.modules)))
    """)
    assert done.stdout == "[]\n[]\n", done
