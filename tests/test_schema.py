import pickle
import re
from pathlib import Path

import pytest

from more_r1.schema import TYPES, Relation, Schema, SchemaError

# METHOD.md's table, the ids of the benchmark's rel2id.json.
MORE = """
none /per/per/opponent /per/per/partner /per/per/relatives /per/per/alternate_names /per/org/opposed_to /per/org/leader_of
/per/org/member_of /per/loc/place_of_birth /per/loc/place_of_residence /per/loc/place_of_governance /per/misc/present_in
/per/misc/awarded /per/misc/party /per/misc/nationality /per/misc/president /org/org/alternate_names /org/org/subsidiary
/org/loc/locate_at /org/misc/present_in /loc/loc/contain
""".split()  # noqa: SIM905 - as the table stands there


def test_the_labels_of_more_with_their_ids() -> None:
    assert list(Schema.more().labels) == MORE
    assert all(relation.meaning for relation in Schema.more().relations)


def test_candidates_are_those_of_the_type_pair_and_none() -> None:
    schema = Schema.more()
    assert schema.candidates("per", "org") == ("/per/org/opposed_to", "/per/org/leader_of", "/per/org/member_of", "none")
    assert schema.candidates("misc", "per") == ("none",)
    found = [label for a in TYPES for b in TYPES for label in schema.candidates(a, b) if label != "none"]
    assert sorted(found) == sorted(MORE[1:])
    with pytest.raises(SchemaError, match="unknown type 'person'; the types are per, org, loc, misc"):
        schema.candidates("per", "person")


def test_a_relation_knows_its_types() -> None:
    relation = Relation(label="/org/loc/locate_at", meaning="is there")
    assert (relation.object_type, relation.entity_type) == ("org", "loc")


def test_an_own_schema_is_read_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("relations:\n  /org/org/rival: ' competes with '\n  /per/org/fan2_of: cheers\n", encoding="utf-8")
    schema = Schema.load(file)
    assert schema.labels == ("none", "/org/org/rival", "/per/org/fan2_of")
    assert schema.relations[0].meaning == "competes with"
    assert pickle.loads(pickle.dumps(schema)) == schema == Schema.model_validate_json(schema.model_dump_json())


def test_rules_are_read_and_an_inverse_holds_both_ways() -> None:
    schema = Schema.parse(
        """
relations:
  /per/org/heads: {meaning: ' leads ', inverse: /org/per/headed_by, at_most_one: true}
  /org/per/headed_by: is led by
  /per/per/alternate_names: {meaning: is, symmetric: yes}
  /per/per/knows: knows
"""
    )
    heads, headed, same, knows = schema.relations
    assert heads == Relation(label="/per/org/heads", meaning="leads", inverse="/org/per/headed_by", at_most_one=True)
    assert headed == Relation(label="/org/per/headed_by", meaning="is led by", inverse="/per/org/heads")
    assert same == Relation(label="/per/per/alternate_names", meaning="is", symmetric=True) and same.same and not knows.same
    assert Schema.model_validate_json(schema.model_dump_json()) == schema


def test_the_rules_of_more_are_those_that_its_meanings_have() -> None:
    relations = Schema.more().relations
    names = ("opponent", "partner", "relatives", "alternate_names")
    both_ways = [*(f"/per/per/{name}" for name in names), "/org/org/alternate_names", "/loc/loc/contain"]
    assert [relation.label for relation in relations if relation.symmetric] == both_ways
    assert [relation.label for relation in relations if relation.at_most_one] == ["/per/per/alternate_names"]
    assert all(relation.inverse is None for relation in relations)


@pytest.mark.parametrize(
    ("yaml", "fault"),
    [
        ("", "expected `relations:`"),
        ("- /per/per/friend", "expected `relations:`"),
        ("labels: {/per/per/friend: x}", "expected `relations:`"),
        ("relations:", "expected `relations:`"),
        ("relations: {}", "expected `relations:`"),
        ("relations: [/per/per/friend]", "expected `relations:`"),
        ("relations: {per/per/friend: x}", "malformed label 'per/per/friend'; write /object_type/entity_type/name"),
        ("relations: {/per/friend: x}", "malformed label '/per/friend'"),
        ("relations: {/per/per/Friend: x}", "malformed label '/per/per/Friend'"),
        ("relations: {/per/per/: x}", "malformed label '/per/per/'"),
        ('relations: {"/per/per/friend\\n": x}', "malformed label '/per/per/friend\\n'"),
        ("relations: {7: x}", "malformed label 7"),
        ("relations: {none: nothing}", "malformed label 'none'; `none` is part of every schema; leave it out"),
        ("relations: {/person/per/friend: x}", "/person/per/friend: unknown type 'person'; the types are per, org, loc, misc"),
        ("relations: {/per/event/visits: x}", "/per/event/visits: unknown type 'event'"),
        ("relations:\n  /per/per/friend: x\n  /per/per/friend: y\n", "'/per/per/friend' is there twice; keep one of them"),
        ("relations: {/per/per/friend: x}\nrelations: {/per/per/foe: x}", "'relations' is there twice"),
        ("relations: {/per/per/friend: }", "/per/per/friend: give its meaning in one line of text"),
        ("relations: {/per/per/friend: '  '}", "/per/per/friend: give its meaning"),
        ("relations: {/per/per/friend: 3}", "/per/per/friend: give its meaning"),
        ('relations: {/per/per/friend: "a\\nb"}', "/per/per/friend: give its meaning"),
        ('relations: {/per/per/friend: "a\\rb"}', "/per/per/friend: give its meaning"),
        ('relations: {/per/per/friend: "a\\Lb"}', "/per/per/friend: give its meaning"),
        ("relations: {/per/per/friend: [x]}", "/per/per/friend: give its meaning"),
        ("relations: {/per/per/friend: 2024-13-45}", "month must be in 1..12"),
        ("relations: {/per/per/friend: {}}", "/per/per/friend: give its meaning"),
        ("relations: {/per/per/friend: {symmetric: true}}", "/per/per/friend: give its meaning"),
        (
            "relations: {/per/per/friend: {meaning: x, meanings: y}}",
            "/per/per/friend: unknown key 'meanings'; the keys are meaning",
        ),
        ("relations: {/per/per/friend: {meaning: x, '': y}}", "/per/per/friend: unknown key ''"),
        ("relations: {/per/per/friend: {meaning: x, meaning: y}}", "'meaning' is there twice"),
        ("relations: {/per/per/friend: {meaning: x, symmetric: 1}}", "/per/per/friend: symmetric is 1; give true or false"),
        ("relations: {/per/per/friend: {meaning: x, at_most_one: often}}", "at_most_one is 'often'; give true or false"),
        ("relations: {/per/org/fan: {meaning: x, symmetric: true}}", "/per/org/fan: symmetric, but its two types differ"),
        ("relations: {/per/per/parent: {meaning: x, inverse: 3}}", "/per/per/parent: inverse is 3; give a label"),
        ("relations: {/per/per/parent: {meaning: x, inverse: /per/per/child}}", "'/per/per/child' is no label of this schema"),
        ("relations: {/per/per/friend: {meaning: x, inverse: /per/per/friend}}", "write `symmetric: true` alone"),
        (
            "relations: {/per/per/a: {meaning: x, inverse: /per/per/b, symmetric: true}, /per/per/b: y}",
            "`symmetric: true` alone",
        ),
        (
            "relations: {/per/per/a: {meaning: x, inverse: /per/per/b}, /per/per/b: {meaning: y, symmetric: true}}",
            "own inverse",
        ),
        ("relations: {/per/org/a: {meaning: x, inverse: /per/org/b}, /per/org/b: y}", "its inverse /per/org/b do not mirror"),
        (
            "relations: {/per/per/a: &x {meaning: x, inverse: /per/per/c}, /per/per/b: *x, /per/per/c: z}",
            "/per/per/c: both /per/per/a and /per/per/b are its inverse; keep one of them",
        ),
        ("relations: {[a, b]: x}", "unhashable key"),
        ("relations: !!map [a]", "expected a mapping node"),
        ("relations: !!map text", "expected a mapping node"),
        ("relations: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("relations: {", "while parsing"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("\x00", "special characters are not allowed"),
        ("[" * 5000, "recursion"),
    ],
)
def test_a_schema_that_cannot_be_used_is_named(tmp_path: Path, yaml: str, fault: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml, encoding="utf-8", newline="")
    with pytest.raises(SchemaError, match=re.escape(fault)) as caught:
        Schema.load(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"relations: {/per/per/friend: caf\xe9}")
    for name in ("gone.yaml", "latin.yaml", "."):
        with pytest.raises(SchemaError, match="cannot be read"):
            Schema.load(tmp_path / name)


def test_a_schema_that_is_written_reads_back(tmp_path: Path) -> None:
    own = Schema.parse(
        """
relations:
  /per/org/heads: {meaning: "leads: é, #1 'so'", inverse: /org/per/headed_by, at_most_one: true}
  /org/per/headed_by: "yes"
  /per/per/knows: {meaning: knows, symmetric: true}
"""
    )
    for schema in (own, Schema.more()):
        (tmp_path / "own.yaml").write_text(schema.render(), encoding="utf-8")
        assert Schema.load(tmp_path / "own.yaml") == schema == Schema.of(schema.plain, "plain")


@pytest.mark.parametrize(
    ("yaml", "fault"),
    [
        ("relations: &a {/per/per/friend: x, <<: *a}", "`<<` is not read here; write each label out"),
        ("relations: {/per/per/friend: {meaning: x, symmetric: *9}}", "symmetric is a list; give true or false"),
        ("relations: {/per/per/friend: {meaning: x, inverse: *9}}", "inverse is a list; give a label"),
        ("relations: {? *9 : x, ? *9 : y}", "unhashable key"),
    ],
)
def test_a_small_file_that_means_a_large_one_costs_one_short_line(yaml: str, fault: str) -> None:
    """A model folder of a stranger may have a schema: ten to the tenth of what the file says once."""
    tens = "\n".join(f"- &{n} [{', '.join([f'*{n - 1}' if n else 'x'] * 10)}]" for n in range(10))
    with pytest.raises(SchemaError, match=re.escape(fault)) as caught:
        Schema.parse(f"tens:\n{tens}\n{yaml}")
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
