import pytest
from hypothesis import given
from hypothesis import strategies as st

from dj_dagster.errors import DefinitionError
from dj_dagster.model.names import (
    ParsedName,
    TableName,
    Tier,
    camel_case,
    check_table_name,
    class_names,
    parse_table_name,
    snake_case,
    sql_table_name,
)

CLASS_NAMES = st.from_regex(r"[A-Z][A-Za-z0-9]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("class_name", "snake"),
    [
        ("Session", "session"),
        ("SpikeSort", "spike_sort"),
        ("LFPBand", "l_f_p_band"),
        ("Scan2Photon", "scan2_photon"),
        ("Raw_Data", "raw_data"),
    ],
)
def test_snake_case(class_name, snake):
    assert snake_case(class_name) == snake


@pytest.mark.parametrize("class_name", ["session", "", "_", "2Photon", "Größe", "Two Words"])
def test_a_class_that_cannot_name_a_table(class_name):
    with pytest.raises(DefinitionError, match="camel case"):
        snake_case(class_name)


@pytest.mark.parametrize(
    ("tier", "name"),
    [
        (Tier.MANUAL, "spike_sort"),
        (Tier.LOOKUP, "#spike_sort"),
        (Tier.IMPORTED, "_spike_sort"),
        (Tier.COMPUTED, "__spike_sort"),
    ],
)
def test_tiers_have_prefixes(tier, name):
    assert sql_table_name("SpikeSort", tier) == name
    assert parse_table_name(name) == ParsedName(tier, "SpikeSort")


@pytest.mark.parametrize("master", ["session", "#session", "_session", "__session"])
def test_a_part_keeps_its_masters_prefix(master):
    name = sql_table_name("SpikeUnit", Tier.PART, master=master)
    assert name == f"{master}__spike_unit"
    assert parse_table_name(name) == ParsedName(Tier.PART, "SpikeUnit", master)


@pytest.mark.parametrize(
    "name",
    ["~lineage", "~~spikes", "~log", "Session", "a__b__c", "___a", "a_", "a_1", "_2p", "", "a b"],
)
def test_hidden_and_unknown_tables_are_none(name):
    assert parse_table_name(name) is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Subject", "Subject"),
        ("LOG", "Log"),
        ("Weird Table", "WeirdTable"),
        ("ünï", "Uni"),
        ("1abc", "T1abc"),
        ("_", "T"),
        ("脳", "T"),
    ],
)
def test_tables_of_other_programs_have_class_names(name, found):
    assert class_names(TableName("lab", name)) == [found]
    assert camel_case(snake_case(found)) == found


def test_a_name_of_64_characters_is_the_longest():
    assert check_table_name("a" * 64) == "a" * 64
    with pytest.raises(DefinitionError, match=r"(?s)has 66 characters.*allows 64.*shorten.*by 2"):
        sql_table_name("A" + "b" * 63, Tier.COMPUTED)


def test_parts_and_only_parts_have_a_master():
    with pytest.raises(DefinitionError, match="Unit: a part"):
        sql_table_name("Unit", Tier.PART)
    with pytest.raises(DefinitionError, match="Unit: a part"):
        sql_table_name("Unit", Tier.MANUAL, master="session")


@given(CLASS_NAMES, st.sampled_from([tier for tier in Tier if tier is not Tier.PART]))
def test_class_names_survive_the_way_to_the_database_and_back(class_name, tier):
    assert camel_case(snake_case(class_name)) == class_name
    assert parse_table_name(sql_table_name(class_name, tier)) == ParsedName(tier, class_name)


@given(st.text())
def test_any_table_name_is_parsed_or_none(name):
    parsed = parse_table_name(name)
    if parsed is not None and len(name) <= 64:
        assert sql_table_name(parsed.class_name, parsed.tier, parsed.master) == name
