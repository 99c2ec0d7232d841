import doctest
import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dj_dagster.definition import parse_definition
from dj_dagster.errors import DefinitionError
from dj_dagster.model.heading import (
    AttributeDeclaration,
    Default,
    ForeignKeyDeclaration,
    IndexDeclaration,
    TableDefinition,
)
from dj_dagster.model.types import Family, parse_type


def only(line):
    """The one attribute of a definition without a key."""
    (attribute,) = parse_definition(f"---\n{line}").attributes
    return attribute


def refusal(text, **kwargs):
    with pytest.raises(DefinitionError) as caught:
        parse_definition(text, **kwargs)
    return str(caught.value)


# The tables of the demonstration


def test_a_lookup_table():
    definition = parse_definition("""
        # kinds of stimuli
        stimulus_type : varchar(32)
        ---
        description = '' : varchar(255)   # what the animal sees: "shown" or #heard
        """)
    assert definition == TableDefinition(
        comment="kinds of stimuli",
        key=(AttributeDeclaration("stimulus_type", parse_type("varchar(32)"), line=3),),
        secondary=(
            AttributeDeclaration(
                "description",
                parse_type("varchar(255)"),
                default=Default(""),
                comment='what the animal sees: "shown" or #heard',
                line=5,
            ),
        ),
    )


def test_a_manual_table_with_foreign_keys():
    definition = parse_definition("""
        -> Subject
        session_id : int32  # counts from 1
        ---
        session_date : date
        -> [nullable] StimulusType
        experimenter = null : varchar(64)
        """)
    subject, session_id = definition.key
    date, stimulus, experimenter = definition.secondary
    assert subject == ForeignKeyDeclaration("Subject", line=2)
    assert isinstance(session_id, AttributeDeclaration)
    assert session_id.comment == "counts from 1"
    assert date == AttributeDeclaration("session_date", parse_type("date"), line=5)
    assert stimulus == ForeignKeyDeclaration("StimulusType", nullable=True, line=6)
    assert isinstance(experimenter, AttributeDeclaration)
    assert experimenter.nullable
    assert experimenter.default is None
    assert definition.foreign_keys == (subject, stimulus)
    assert definition.deprecations == ()


def test_an_imported_table_with_blobs():
    definition = parse_definition("-> Session\n---\nfile_path : varchar(255)\ndata : longblob")
    assert [attribute.type.text for attribute in definition.attributes] == [
        "varchar(255)",
        "<blob>",
    ]
    (note,) = definition.deprecations
    assert "line 4" in note
    assert "'longblob'" in note
    assert "'<blob>'" in note


def test_a_computed_table_with_two_parents_and_a_stored_blob():
    definition = parse_definition("-> RawData\n-> FilterParams\n---\nfiltered : <blob@local>")
    assert [key.target for key in definition.foreign_keys] == ["RawData", "FilterParams"]
    (filtered,) = definition.attributes
    assert (filtered.type.codec, filtered.type.store) == ("blob", "local")


# Lines


@pytest.mark.parametrize("text", ["", "\n \n", "---", "# only a comment\n---\n"])
def test_a_definition_without_a_key_is_a_singleton(text):
    assert parse_definition(text).key == ()


def test_the_comment_is_the_first_line_and_others_are_ignored():
    definition = parse_definition("\n  # people \n# ignored: yes\na : int8\n # also\n---")
    assert definition.comment == "people"
    assert parse_definition("a : int8\n# late").comment == ""


@pytest.mark.parametrize("divider", ["---", "-----------", "---  # below: no key"])
def test_dividers(divider):
    definition = parse_definition(f"a : int8\n{divider}\nb : int8")
    assert [attribute.name for attribute in definition.secondary] == ["b"]


def test_the_divider_of_underscores_is_an_old_spelling():
    definition = parse_definition("a : int8\n___\nb : int8", table="Old", file="old.py")
    assert len(definition.secondary) == 1
    (note,) = definition.deprecations
    assert note.startswith("old.py:2, table Old: ")
    assert "write '---'" in note


@pytest.mark.parametrize(
    ("line", "default"),
    [
        ("a : int32", None),
        ("a = 3 : int32", Default("3")),
        ("a=-1.5e3:float64", Default("-1.5e3")),
        ("a = '1.5' : float64", Default("1.5")),
        ("a = 'it''s : # 1' : varchar(20)", Default("it's : # 1")),
        ('a = "say \\"x\\"" : varchar(20)', Default('say "x"')),
        ("a = plain words : varchar(20)", Default("plain words")),
        ("a = '' : varchar(20)", Default("")),
        ("a = 'null' : varchar(20)", Default("null")),
        ("a = True : bool", Default("1")),
        ("a = false : bool", Default("0")),
        ("a = 1 : bool", Default("1")),
        ("a = 'b:c' : enum('a', 'b:c')", Default("b:c")),
        ("a = 2020-01-31 : date", Default("2020-01-31")),
        ("a = CURRENT_TIMESTAMP : datetime", Default("CURRENT_TIMESTAMP", True)),
        ("a = current_timestamp(3) : datetime(3)", Default("CURRENT_TIMESTAMP(3)", True)),
        ("a = CURRENT_TIMESTAMP : timestamp(6)", Default("CURRENT_TIMESTAMP(6)", True)),
        ("a = CURRENT_TIMESTAMP(6) : datetime", Default("CURRENT_TIMESTAMP", True)),
        ("a = 'CURRENT_TIMESTAMP' : varchar(20)", Default("CURRENT_TIMESTAMP")),
    ],
)
def test_defaults(line, default):
    assert only(line).default == default
    assert not only(line).nullable


@pytest.mark.parametrize("kind", ["int32", "<blob>", "json", "bytes", "bool", "enum('null')"])
@pytest.mark.parametrize("null", ["null", "NULL"])
def test_null_makes_any_type_nullable(kind, null):
    attribute = only(f"a = {null} : {kind}")
    assert attribute.nullable
    assert attribute.default is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-> Session", ForeignKeyDeclaration("Session", line=2)),
        ("->Session.Trial # the trial", ForeignKeyDeclaration("Session.Trial", line=2)),
        ("-> master", ForeignKeyDeclaration("master", line=2)),
        ("-> lab.Subject.proj()", ForeignKeyDeclaration("lab.Subject", line=2)),
        (
            """-> [nullable, unique] self.proj(mother='subject_id', b="c",)""",
            ForeignKeyDeclaration("self", {"mother": "subject_id", "b": "c"}, True, True, 2),
        ),
        ("-> [UNIQUE] Session", ForeignKeyDeclaration("Session", unique=True, line=2)),
    ],
)
def test_foreign_keys(line, expected):
    definition = parse_definition(f"---\n{line}")
    assert definition.secondary == (expected,)
    assert definition.deprecations == ()


@pytest.mark.parametrize(
    ("line", "renames", "modern"),
    [
        ("(mother) -> Subject", {"mother": ""}, "-> Subject.proj(mother="),
        ("(mother) -> [nullable] Subject", {"mother": ""}, "-> [nullable] Subject.proj(mother="),
        ("(x, y) -> Subject(a, b)", {"x": "a", "y": "b"}, "-> Subject.proj(x='a', y='b')"),
        ("(a) -> Subject(a)", {}, "write -> Subject"),
    ],
)
def test_old_foreign_keys_are_read_with_a_note(line, renames, modern):
    definition = parse_definition(f"---\n{line}")
    (foreign_key,) = definition.foreign_keys
    assert foreign_key.target == "Subject"
    assert foreign_key.renames == renames
    assert modern in definition.deprecations[0]


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("-> (master)", "master"),
        ("-> ( lab.Subject ).proj()", "lab.Subject"),
        ("-> Subject.proj('sex')", "Subject"),
        ("-> Subject.proj('sex', ...,)  # all of it", "Subject"),
    ],
)
def test_foreign_keys_that_python_would_read_the_same(line, target):
    definition = parse_definition(line)
    assert definition.key == (ForeignKeyDeclaration(target, line=1),)
    assert definition.deprecations == ()


def test_what_proj_keeps_besides_its_renames_adds_nothing():
    (foreign_key,) = parse_definition("-> Subject.proj('sex', mother='subject_id')").foreign_keys
    assert foreign_key.renames == {"mother": "subject_id"}


@pytest.mark.parametrize(
    ("line", "target"), [("-> Subject()", "Subject"), ("-> self().settings", "self.settings")]
)
def test_a_called_class_is_read_with_a_note(line, target):
    definition = parse_definition(line)
    assert definition.key == (ForeignKeyDeclaration(target, line=1),)
    assert f"write '-> {target}'" in definition.deprecations[0]


def test_an_equals_sign_without_a_default_is_read_with_a_note():
    definition = parse_definition("---\nremark = : varchar(64)")
    (remark,) = definition.attributes
    assert (remark.default, remark.nullable) == (None, False)
    assert "no default" in definition.deprecations[0]


@pytest.mark.parametrize(
    ("first", "comment"),
    [("lab.Subject (manual)  # who it is", "who it is"), ("`lab`.Rig (Lookup)", "")],
)
def test_a_first_line_that_names_table_and_tier(first, comment):
    definition = parse_definition(f"{first}\nid : int32")
    assert definition.comment == comment
    assert [attribute.name for attribute in definition.attributes] == ["id"]
    assert "'# comment'" in definition.deprecations[0]


def test_indexes():
    definition = parse_definition("""
        id : int64
        index : int32
        ---
        index(a)
        UNIQUE INDEX (a, b(10), (concat(a, ',)')))   # no twins
        index(config.path[0].x:decimal(5,2))
        """)
    assert [attribute.name for attribute in definition.key] == ["id", "index"]
    assert definition.indexes == (
        IndexDeclaration(("a",), line=5),
        IndexDeclaration(("a", "b(10)", "(concat(a, ',)'))"), unique=True, line=6),
        IndexDeclaration(("config.path[0].x:decimal(5,2)",), line=7),
    )


def test_a_repeated_attribute_that_is_the_same_keeps_its_first_line():
    definition = parse_definition("a : int8 # first\n---\na : int8 # second")
    assert [attribute.comment for attribute in definition.attributes] == ["first"]


# Refusals


def test_a_refusal_shows_file_line_table_caret_and_what_to_write():
    text = "\n    id : int32\n\t---\n    name : string  # in full\n"
    assert refusal(text, table="Subject", file="lab.py", first_line=40) == (
        "lab.py:43, table Subject: there is no type 'string'\n"
        "    name : string  # in full\n"
        "           ^\n"
        "write varchar(255)"
    )


@pytest.mark.parametrize(
    ("line", "under", "problem", "advice"),
    [
        ("a = null : int32", "null", "primary key cannot be null", "below ---"),
        ("-> [nullable] Subject", "nullable", "cannot be nullable", "below ---"),
        ("a : longblob", "longblob", "<blob> cannot be in the primary key", "below ---"),
        ("a : json", "json", "json cannot be in the primary key", "below ---"),
        ("a : <npy@raw>", "<npy", "cannot be in the primary key", "below ---"),
        ("subjectId : int32", "subjectId", "not an attribute name", "write 'subjectid'"),
        ("_hidden : int32", "_hidden", "not an attribute name", "write 'hidden'"),
        ("2p : int32", "2p", "not an attribute name", "write lower-case"),
        ("my name : int32", "my name", "not an attribute name", "write 'my_name'"),
        (": int32", ": int32", "'' is not an attribute name", "write lower-case"),
        ("a" * 65 + " : int32", "a", "has 65 characters", "at most 64"),
        ("a : uint32", "uint32", "no type 'uint32'", "'int unsigned'"),
        ("a : int32 = 3", "int32 = 3", "no type", "default before the ':'"),
        ("a : ", "", "type is missing", "int64"),
        ("a : int32  # :x", ":x", "may not begin with ':'", "another character"),
        ("subject", "", "no ':'", "name : type"),
        ("subject # a: b", "# a", "no ':'", "name : type"),
        ("a = 'b : int32", "'b", "never closed", "close it"),
        ("a = O'Brien : varchar(9)", "'Brien", "never closed", "close it"),
        ("a = b 'c' : varchar(9)", "b 'c'", "not one value", "in quotes"),
        ("a = x : int32", "x", "'x' is not a number", "number"),
        ("a = maybe : bool", "maybe", "not a bool", "True or False"),
        ("a = 'c' : enum('a', 'b')", "'c'", "not in enum('a', 'b')", "its values"),
        ("--", "--", "three dashes", "write ---"),
        ("---> Subject", "> Subject", "not expected", "line of its own"),
        ("->", "", "names no table", "-> Table"),
        ("-> Subject & 'a=1'", "& 'a=1'", "not expected", "cannot be restricted"),
        ("-> Subject(1)", "(1)", "not expected", "-> Table"),
        ("-> (Subject", "(Subject", "names no table", "-> Table"),
        ("b -> A", "", "no ':'", "-> Table"),
        ("-> [nulable] Subject", "nulable", "not an option", "write [nullable]"),
        ("-> [primary] Subject", "primary", "not an option", "[unique]"),
        ("-> Subject.proj(a=b)", "a=b", "not a rename", "new='old'"),
        ("-> Subject.proj(a='b+1')", "a='b+1'", "not an attribute name", "lower-case"),
        ("-> Subject.proj(a='b', a='c')", "a='c'", "given twice", "once"),
        ("-> Subject.proj(a='b'", "(a='b'", "never closed", ")"),
        ("(a, b) -> Subject(c)", "(a, b)", "2 new names for 1", ".proj("),
        ("index()", "()", "no attribute", "index(a, b)"),
        ("index(A)", "A)", "cannot be indexed", "index(a, b)"),
        ("unique index(a", "(a", "never closed", ")"),
        ("index(a) b", "b", "not expected", "index(a, b)"),
    ],
)
def test_refusals(line, under, problem, advice):
    where, shown, caret, instead = refusal(line).split("\n")
    assert where.startswith("line 1: ")
    assert problem in where
    assert shown.strip() == line.strip()
    assert shown[caret.index("^") :].startswith(under)
    assert advice in instead


@pytest.mark.parametrize("kind", ["<blob>", "longblob", "<npy@raw>", "bytes", "json"])
def test_blobs_have_no_default_but_null(kind):
    message = refusal(f"---\na = 'x' : {kind}")
    assert "line 2" in message
    assert "no default but null" in message


@pytest.mark.parametrize("codec", ["hash", "npy", "object", "filepath"])
def test_codecs_that_need_a_store(codec):
    message = refusal(f"---\na : <{codec}>")
    assert "names none" in message
    assert f"<{codec}@>" in message


def test_a_table_comment_may_not_look_like_a_type():
    assert "may not begin with ':'" in refusal("# :int8: people")


@pytest.mark.parametrize("again", ["a : int16", "a = 1 : int8", "a = null : int8"])
def test_a_repeated_attribute_has_to_be_the_same(again):
    assert "already declared, as int8 on line 1" in refusal(f"a : int8\n---\n{again}")
    definition = parse_definition(f"a : int8\n---\n{again}", repeats=True)
    assert [attribute.type.text for attribute in definition.attributes] == ["int8"]
    (note,) = definition.deprecations
    assert note.startswith("line 3: 'a' is already declared, as int8 on line 1")


# Any text, and any definition


DIALECT = st.lists(
    st.sampled_from(
        [
            *(" ", "\n", ":", "#", "=", "'", '"', "(", ")", ",", "[", "]", "<", ">", "@", "-> "),
            *(
                "---",
                "a",
                "b2",
                "Subject",
                ".proj",
                "nullable",
                "index",
                "unique ",
                "int32",
                "null",
            ),
            *("longblob", "enum", "varchar(3)", "\\", "CURRENT_TIMESTAMP", "1", "."),
        ]
    )
).map("".join)


@given(st.text() | DIALECT)
def test_any_text_parses_or_is_refused(text):
    try:
        definition, message = parse_definition(text, table="T", file="t.py"), ""
    except DefinitionError as error:
        definition, message = TableDefinition(), str(error)
    assert message == "" or message.startswith("t.py:")
    assert all(item.line for item in (*definition.key, *definition.secondary))


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=10)
NAMES = st.from_regex("[a-z][a-z0-9_]{0,12}", fullmatch=True)
COMMENTS = WORDS.filter(lambda word: not word.startswith(":"))
KINDS = st.sampled_from(
    ["int64", "float32", "varchar(80)", "date", "datetime(3)", "uuid", "bool", "int unsigned"]
).map(parse_type)


def literal(value):
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


@st.composite
def attributes(draw, name, *, in_key):
    kind = draw(KINDS)
    nullable = not in_key and draw(st.booleans())
    default = None
    if not nullable and kind.family is Family.STRING and draw(st.booleans()):
        default = Default(draw(WORDS))
    return AttributeDeclaration(name, kind, default, nullable, draw(st.just("") | COMMENTS))


@st.composite
def foreign_keys(draw, *, in_key):
    return ForeignKeyDeclaration(
        draw(st.sampled_from(["Subject", "lab.Subject", "Session.Trial", "master", "self"])),
        draw(st.dictionaries(NAMES, NAMES, max_size=2)),
        not in_key and draw(st.booleans()),
        draw(st.booleans()),
    )


@st.composite
def definitions(draw):
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    cut = draw(st.integers(0, len(names)))
    sections = []
    for part, in_key in ((names[:cut], True), (names[cut:], False)):
        items = [draw(attributes(name, in_key=in_key)) for name in part]
        references = draw(st.lists(foreign_keys(in_key=in_key), max_size=2))
        sections.append(tuple(draw(st.permutations([*items, *references]))))
    return TableDefinition(draw(st.just("") | COMMENTS), *sections)


def spell(item):
    if isinstance(item, ForeignKeyDeclaration):
        words = [word for word in ("nullable", "unique") if getattr(item, word)]
        options = f"[{', '.join(words)}] " if words else ""
        renames = ", ".join(f"{new}='{old}'" for new, old in item.renames.items())
        return f"-> {options}{item.target}" + (f".proj({renames})" if renames else "")
    default = " = null" if item.nullable else ""
    if item.default is not None:
        default = f" = {literal(item.default.value)}"
    return f"{item.name}{default} : {item.type.text}" + f"  # {item.comment}" * bool(item.comment)


@given(definitions())
def test_what_is_written_is_what_is_read(definition):
    text = "\n".join(
        [
            f"# {definition.comment}",
            *map(spell, definition.key),
            "---",
            *map(spell, definition.secondary),
        ]
    )
    read = parse_definition(text)
    assert read.comment == definition.comment
    assert list(map(spell, read.key)) == list(map(spell, definition.key))
    assert list(map(spell, read.secondary)) == list(map(spell, definition.secondary))
    assert read.attributes == tuple(
        AttributeDeclaration(a.name, a.type, a.default, a.nullable, a.comment, line.line)
        for a, line in zip(definition.attributes, read.attributes, strict=True)
    )


@pytest.mark.parametrize(
    "module",
    [
        "dj_dagster.definition",
        *(f"dj_dagster.model.{name}" for name in ("types", "names", "graph")),
    ],
)
def test_the_examples_in_docstrings(module):
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted
    assert not results.failed
