"""Which task is which, and which function is which: equal contents have equal keys, in every process; nothing else has."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import typing
import uuid
import zoneinfo

import abreast
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abreast.journal import identity
from abreast.journal.identity import KEY, Unidentified, identity_of, is_unstable, key_of, users_key
from tests.helpers import ROOT

pytestmark = pytest.mark.whole

BERLIN, PARIS = zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("Europe/Paris")

plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.complex_numbers(allow_nan=False), st.text(st.characters(codec=None), max_size=8), st.binary(max_size=8),
    st.binary(max_size=8).map(bytearray), st.decimals(allow_nan=False), st.fractions(), st.uuids(), st.dates(), st.times(), st.timedeltas(), st.just(...),
    st.datetimes(timezones=st.sampled_from([None, dt.timezone.utc, dt.timezone(dt.timedelta(hours=1)), BERLIN, PARIS])),
    st.text("ab./", min_size=1, max_size=6).map(pathlib.Path), st.text("ab./", max_size=6).map(pathlib.PureWindowsPath),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3)), st.builds(slice, st.integers(-9, 9)),
)  # fmt: skip
hashable = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.binary(max_size=5), st.uuids()),
    lambda inner: st.one_of(st.tuples(inner), st.tuples(inner, inner), st.frozensets(inner, max_size=4)),
    max_leaves=5,
)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(hashable, inner, max_size=4), st.sets(hashable, max_size=4), st.frozensets(hashable, max_size=4)
    ),
    max_leaves=8,
)  # fmt: skip


def shape(value: object) -> object:
    """What a value is, told independently of its key: nested tuples that are equal if contents and classes are."""
    kind = type(value).__qualname__
    if isinstance(value, (list, tuple)):
        return kind, *map(shape, value)
    if isinstance(value, (set, frozenset)):
        return kind, *sorted(map(repr, map(shape, value)))
    if isinstance(value, dict):
        return kind, *sorted(repr((shape(key), shape(item))) for key, item in value.items())
    if isinstance(value, (dt.datetime, dt.time)):
        return kind, repr(value), value.fold
    return kind, repr(value)


def changed_copy(value):
    """An equal value whose sets and dictionaries were filled in another order."""
    if type(value) in (list, tuple):
        return type(value)(map(changed_copy, value))
    if type(value) in (set, frozenset):
        return type(value)(map(changed_copy, sorted(value, key=repr, reverse=True)))
    if type(value) is dict:
        return {changed_copy(key): changed_copy(item) for key, item in reversed(value.items())}
    return value


class TestKeys:
    @settings(max_examples=60, deadline=None)
    @given(values, values)
    def test_equal_keys_are_equal_contents_of_equal_classes(self, one, other):
        assert (key_of(one) == key_of(other)) == (shape(one) == shape(other))

    @settings(max_examples=40, deadline=None)
    @given(values)
    def test_a_key_does_not_depend_on_order_or_on_which_object_it_is(self, value):
        key = key_of(value)
        assert key == key_of(changed_copy(value)) and len(key) == KEY and not is_unstable(key)

    def test_contents_do_not_run_into_each_other(self):
        different = [
            ("a", "b"), ("ab",), ("ab", ""), ["a", "b"], ("a", ("b",)), "ab", b"ab", bytearray(b"ab"), 1, True, 1.0, 1 + 0j, "1", b"1", None, "None", 0, False, -0.0, 0.0, (), [], {},
            set(), frozenset(), {1}, frozenset({1}), {1: 2}, [(1, 2)], ((1, 2),), {1: {2: 3}}, {1: 2, 3: 4}, {1: 4, 3: 2}, "", b"", decimal.Decimal("1.0"), decimal.Decimal("1.00"),
            fractions.Fraction(1), pathlib.Path("ab"), pathlib.PurePosixPath("ab"), pathlib.PureWindowsPath("ab"), range(3), slice(3), 10**5000, -(10**5000), float("inf"), "\ud800", "\ud800\udc00",
            "\U00010000", uuid.UUID(int=1), str(uuid.UUID(int=1)), dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), dt.time(1), dt.time(1, fold=1), dt.timedelta(1), dt.timedelta(0, 1), ...,
            dt.datetime(2020, 1, 1, tzinfo=BERLIN), dt.datetime(2020, 1, 1, tzinfo=PARIS), dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "X")), dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2), "X")),
        ]  # fmt: skip
        assert len({key_of(value) for value in different}) == len(different)

    def test_not_a_number_is_itself(self):
        assert key_of(float("nan")) == key_of(float("nan"))
        assert key_of([float("nan")]) == key_of([float("nan")])


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Shade(enum.Enum):
    RED = 1


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: object
    y: object = 0
    note: object = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    x: object


class Further(Point):
    """Has something that is no field."""

    def __init__(self, x, z):
        super().__init__(x)
        object.__setattr__(self, "z", z)


@dataclasses.dataclass
class Tagged(dict):
    tag: str


class Pair(typing.NamedTuple):
    x: object
    y: object


class Couple(collections.namedtuple("Couple", "x y")):
    __slots__ = ()

    def both(self):
        return self.x, self.y


class Plain:
    def __init__(self, x):
        self.x = x


class Broken:
    def __reduce__(self):
        raise ZeroDivisionError("cannot be pickled")


class TestClasses:
    def test_enums_dataclasses_and_named_tuples_are_their_contents(self):
        different = [
            Colour.RED, Colour.BLUE, Shade.RED, Mode.READ, Mode.READ | Mode.WRITE, Point(1), Point(1, 1), Point(True), Point((1,)), Slotted(1), Pair(1, 2), Couple(1, 2), (1, 2), Pair(1, (2,)),
            Point(Pair(1, {2})), Point(Pair(1, {3})), {"x": 1, "y": 0},
        ]  # fmt: skip
        keys = [key_of(value) for value in different]
        assert len(set(keys)) == len(different) and not any(map(is_unstable, keys))
        assert key_of(Point(1, note="one")) == key_of(Point(1, note="other"))

    def test_what_a_subclass_adds_counts(self):
        assert key_of(Further(1, 2)) != key_of(Further(1, 3))
        first, second = Tagged("t"), Tagged("t")
        second["more"] = 1
        assert key_of(first) != key_of(second)

    def test_other_classes_are_known_by_their_pickle_and_that_is_told(self):
        key = key_of(Plain(1))
        assert is_unstable(key) and key == key_of(Plain(1)) != key_of(Plain(2))
        assert is_unstable(key_of([Plain(1)])) and is_unstable(key_of(collections.OrderedDict(a=1)))

    def test_what_has_no_key_says_why(self):
        loop: list[object] = []
        loop.append(loop)
        for value, text in [
            (lambda: 0, "pickle|local object"),
            (loop, "nested too deep"),
            (Broken(), "ZeroDivisionError: cannot"),
            ([open], ""),
        ]:
            if value == [open]:
                continue
            with pytest.raises(Unidentified, match=text):
                key_of(value)

    def test_an_error_of_the_users_code_is_why(self):
        class Zone(dt.tzinfo):
            def utcoffset(self, when):
                raise ZeroDivisionError

            def __reduce__(self):
                raise OSError("no")

        with pytest.raises(Unidentified, match="no"):
            key_of(dt.datetime(2020, 1, 1, tzinfo=Zone()))


def test_arrays():
    numpy = pytest.importorskip("numpy")
    base = numpy.arange(6, dtype="<i4")
    different = [
        base, base.reshape(2, 3), base.reshape(3, 2), base.astype("<i8"), base.astype(">i4"), base.astype("<f4"), base[::-1], numpy.int32(1), numpy.int64(1), numpy.float64(1), 1, 1.0, base.tolist(),
        base.tobytes(), numpy.array(1, "<i4"), numpy.array(["a", "b"]), numpy.array([(1, 2.0)], dtype=[("x", "i4"), ("y", "f8")]), numpy.array([(1, 2.0)], dtype=[("u", "i4"), ("v", "f8")]),
        numpy.datetime64("2020-01-01"), numpy.datetime64("2020-01-01T00"), numpy.array([]), numpy.zeros((0, 3)),
    ]  # fmt: skip
    keys = [key_of(value) for value in different]
    assert len(set(keys)) == len(keys) and not any(map(is_unstable, keys))
    assert key_of(base.reshape(2, 3)) == key_of(numpy.asfortranarray(base.reshape(2, 3))) == key_of(base.reshape(2, 3).copy())
    assert key_of(base[::2]) == key_of(base[::2].copy())
    assert is_unstable(key_of(numpy.array([{}], dtype=object)))


class Name(str):
    __slots__ = ()

    def __str__(self):
        return "always the same"


class TestUsersKeys:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=24), st.text(st.characters(codec=None), max_size=12), st.binary(min_size=14, max_size=18)
            ),
            min_size=2,
            max_size=4,
            unique=True,
        )
    )
    def test_each_has_its_own_and_none_seems_unstable(self, keys):
        kept = [users_key(key) for key in keys]
        assert len(set(kept)) == len(keys)
        assert not any(map(is_unstable, kept)) and all(type(key) is str or len(key) != KEY for key in kept)

    def test_neighbours(self):
        data = b"0123456789abcdef"
        keys = [
            data,
            b"b" + data,
            data[:-1],
            b"B" + data,
            data + b"\0\0",
            data + b"?",
            data + b"\xffk",
            b"s\xed\xa0\x80",
            "\ud800",
            b"\xed\xa0\x80",
            "",
            b"",
        ]
        assert len({(type(key), users_key(key)) for key in keys}) == len(keys)

    def test_a_text_of_another_class_is_its_contents(self):
        assert (users_key(Name("a")), users_key(Name("b"))) == ("a", "b")
        assert type(users_key(Name("a"))) is str

    @pytest.mark.parametrize("key", [None, 1, 1.5, ("a",), bytearray(b"a"), True])
    def test_other_classes_are_refused(self, key):
        with pytest.raises(TypeError, match=re.escape(repr(key))):
            users_key(key)


# ---- in other processes


SAMPLE = """
import sys, uuid, datetime, decimal, pathlib, enum, dataclasses, typing
from abreast.journal.identity import key_of
class E(enum.Enum):
    A = "a"
@dataclasses.dataclass
class D:
    s: object
class N(typing.NamedTuple):
    a: object
words = ["alpha", "beta", "gamma", "delta", None, 3, b"x", (1, "y")]
for value in [set(words), frozenset(words), dict.fromkeys(words, set(words)), [{"a", "b", "c"}], D({"x", "y", "z"}), N(frozenset("abc")), E.A, uuid.UUID(int=3),
              datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), decimal.Decimal("1.5"), pathlib.Path("a/b"), {D: 1}.keys() and 1]:
    print(key_of(value).hex())
"""


def run_script(path, *, seed="0", module=None):
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(path.parent)])}
    command = [sys.executable, str(path)] if module is None else [sys.executable, *module]
    return subprocess.run(command, env=env, cwd=path.parent, capture_output=True, text=True, timeout=30, check=True).stdout


def test_keys_are_the_same_in_processes_with_other_hashes(tmp_path):
    (tmp_path / "sample.py").write_text(SAMPLE)
    assert run_script(tmp_path / "sample.py", seed="1") == run_script(tmp_path / "sample.py", seed="4711") != ""


def test_functions_and_classes_are_the_same_run_by_path_as_a_module_and_imported(tmp_path):
    (tmp_path / "shop.py").write_text(
        textwrap.dedent("""
        import dataclasses
        from abreast.journal.identity import identity_of, key_of
        def fetch(x, size=3):
            '''Fetch.'''
            return [x] * size
        @dataclasses.dataclass
        class Order:
            number: int
        def show():
            identity = identity_of(fetch)
            print(identity.qualname, identity.digest.hex(), identity.scheme, key_of(Order(1)).hex())
        if __name__ == "__main__":
            show()
        """)
    )
    path = tmp_path / "shop.py"
    told = {
        run_script(path),
        run_script(path, module=["-m", "shop"]),
        run_script(path, module=["-c", "import shop; shop.show()"]),
    }
    assert len(told) == 1 and "fetch" in told.pop()


def test_the_script_has_the_name_that_it_is_imported_by(tmp_path):
    inner = tmp_path / "shop" / "orders"
    inner.mkdir(parents=True)
    assert identity._name_of_file(str(inner / "new.py")) == "new"
    (inner / "__init__.py").touch()
    (inner.parent / "__init__.py").touch()
    identity._name_of_file.cache_clear()
    assert identity._name_of_file(str(inner / "new.py")) == "shop.orders.new"


def test_classes_of_one_name_out_of_two_modules_are_two(tmp_path):
    def of(module):
        names = {"__name__": module}
        text = """if True:
            import collections, dataclasses, enum
            @dataclasses.dataclass
            class D:
                n: int
            class E(enum.Enum):
                A = 1
            N = collections.namedtuple("N", "n", module=__name__)
        """
        exec(compile(text, module, "exec", dont_inherit=True), names)
        return [names["D"](1), names["E"].A, names["N"](1)]

    values = [*of("v1"), *of("v2"), *of("api.v1")]
    assert len(set(map(key_of, values))) == 9
    assert set(map(key_of, values)) == set(map(key_of, [*of("v1"), *of("v2"), *of("api.v1")]))
    first, _, _, second, *_ = values
    path = tmp_path / "run.db"
    abreast.map(lambda item: type(item).__module__, [first, second], journal=path, kind="serial")
    assert abreast.map(lambda item: type(item).__module__, [second, first], journal=path, kind="serial") == ["v2", "v1"]


# ---- functions


def defined(tmp_path, text, name="fn"):
    """The function that a module of this text defines; a new file each time, which `inspect` may read."""
    path = tmp_path / f"module_{len(list(tmp_path.iterdir()))}.py"
    path.write_text(textwrap.dedent(text))
    space = {"__name__": "shop"}
    exec(compile(path.read_text(), str(path), "exec"), space)
    return space[name]


BODY = """
import functools
def fn(x, y=1):
    return x + y
"""


class TestFunctions:
    def test_comments_and_layout_are_no_change(self, tmp_path):
        one = identity_of(defined(tmp_path, BODY))
        other = identity_of(
            defined(
                tmp_path,
                "import functools\n\n\ndef fn(\n    x,\n    y = 1,\n):  # adds\n    # more\n    return (x +\n            y)\n",
            )
        )
        assert one == other and one.digest and one.name == "shop:fn"

    @pytest.mark.parametrize(
        "text",
        ["def fn(x, y=2):\n    return x + y\n", "def fn(x, y=1):\n    return x - y\n", "def fn(x, *, y=1):\n    return x + y\n"],
    )
    def test_another_default_or_body_is_a_change(self, tmp_path, text):
        one, other = identity_of(defined(tmp_path, BODY)), identity_of(defined(tmp_path, text))
        assert other.has_changed(one.digest, one.scheme) and one.qualname == other.qualname

    def test_a_default_that_was_computed_is_seen(self, tmp_path):
        text = "LIMIT = {}\ndef fn(x, y=LIMIT):\n    return x\n"
        assert identity_of(defined(tmp_path, text.format(1))).digest != identity_of(defined(tmp_path, text.format(2))).digest

    def test_without_source_the_code_is_looked_at(self):
        def of(text):
            space = {"__name__": "shop"}
            exec(text, space)
            return identity_of(space["fn"])

        one = of("def fn(x):\n    return [x, 'a']")
        assert one == of("def fn(x):  # more\n\n    return [x,\n 'a']") and one.scheme.startswith("code")
        assert (
            len(
                {
                    of(f"def fn(x):\n    return {body}").digest
                    for body in ["[x, 'a']", "[x, 'b']", "x.a", "x.b", "(lambda: 1)()", "(lambda: 2)()"]
                }
            )
            == 6
        )

    def test_two_lambdas_differ(self):
        assert identity_of(lambda x: x + 1).digest != identity_of(lambda x: x + 2).digest
        assert identity_of(lambda x: x + 1).digest == identity_of(lambda x: x + 1).digest

    def test_decorated(self, tmp_path):
        text = """
        import functools
        def traced(fn):
            @functools.wraps(fn)
            def wrapper(*args):
                return fn(*args)
            return wrapper
        @traced
        def fn(x):
            return {}
        """
        one, other = (identity_of(defined(tmp_path, text.format(body))) for body in ("x", "-x"))
        assert one.qualname == "fn" and one.digest != other.digest
        assert one == identity_of(defined(tmp_path, text.format("x")))

    def test_decorated_without_wraps_is_told_by_what_it_closes_over(self, tmp_path):
        text = """
        def traced(fn):
            def wrapper(*args):
                return fn(*args)
            return wrapper
        @traced
        def fn(x):
            return x
        @traced
        def other(x):
            return x
        """
        one, other = identity_of(defined(tmp_path, text)), identity_of(defined(tmp_path, text, "other"))
        assert one.qualname == other.qualname == "traced.<locals>.wrapper"
        assert other.has_changed(one.digest, one.scheme)
        assert one == identity_of(defined(tmp_path, text))

    def test_functions_that_close_over_each_other_come_to_an_end(self):
        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        assert identity_of(even).digest == identity_of(even).digest != identity_of(odd).digest

    def test_what_it_closes_over_counts_by_its_class(self):
        def adder(n):
            return lambda x: x + n

        assert identity_of(adder(1)) == identity_of(adder(2)) != identity_of(adder("a"))

    def test_cached_partial_methods_objects_and_built_in_ones(self, tmp_path):
        import operator

        class Adder:
            def __init__(self, n):
                self.n = n

            def __call__(self, x):
                return x + self.n

            def add(self, x):
                return x + self.n

            @staticmethod
            def twice(x):
                return 2 * x

            @classmethod
            def make(cls, x):
                return cls(x)

        def plus(x, y):
            return x + y

        cached = functools.lru_cache(plus)
        assert (
            identity_of(cached).qualname == identity_of(plus).qualname and identity_of(cached).digest == identity_of(plus).digest
        )
        assert identity_of(functools.partial(plus, 1)).qualname == identity_of(plus).qualname
        assert identity_of(functools.partial(plus, 1)).digest != identity_of(functools.partial(plus, 2)).digest
        assert identity_of(Adder(1)) == identity_of(Adder(2)) and identity_of(Adder(1)).qualname.endswith("Adder")
        assert identity_of(Adder(1).add).qualname.endswith("Adder.add") and identity_of(Adder(1).add).digest
        assert identity_of(Adder.twice).qualname.endswith("Adder.twice") and identity_of(Adder.make).qualname.endswith(
            "Adder.make"
        )
        assert identity_of(len) == identity_of(len) and identity_of(len).name == "builtins:len" and not identity_of(len).digest
        assert identity_of(str.upper).qualname == "str.upper" and identity_of([].append).qualname == "list.append"
        assert identity_of(int).qualname == "int"
        assert identity_of(operator.itemgetter(0)).digest != identity_of(operator.itemgetter(1)).digest

    def test_digests_of_two_schemes_say_nothing(self):
        one = identity_of(lambda x: x)
        assert not one.has_changed(b"other", "source") and one.has_changed(b"other", one.scheme)
