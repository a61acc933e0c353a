from __future__ import annotations

from pathlib import Path

import pytest

from more_r1.formats.check import check_more
from more_r1.formats.more import read_more
from more_r1.formats.oracle import read_oracle
from more_r1.reasoning.trace import parse_trace
from more_r1.schema import Schema
from more_r1.synthetic.benchmark import sizes, write_benchmark
from more_r1.synthetic.drawing import SIZE

DOCUMENTS = 14


def _write(folder: Path, seed: int) -> dict[str, bytes]:
    for _ in write_benchmark(folder, DOCUMENTS, seed):
        pass
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("benchmark") / "seed3"
    return folder, _write(folder, 3)


def test_one_seed_gives_the_same_bytes_another_gives_others(written: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    _, files = written
    assert _write(tmp_path / "again", 3) == files
    other = _write(tmp_path / "other", 4)
    assert other.keys() == files.keys()
    assert [name for name in files if files[name] == other[name]] == ["rel2id.json"]


def test_the_files_are_those_of_the_layout(written: tuple[Path, dict[str, bytes]]) -> None:
    splits = sizes(DOCUMENTS)
    expected = {"rel2id.json"}
    for split, count in splits.items():
        expected |= {f"txt/{split}.txt", f"ent_{split}_dict.pth", f"oracle/{split}.jsonl"}
        expected |= {f"img_org/{split}/{split}_{number:05d}.png" for number in range(count)}
    assert set(written[1]) == expected


def test_a_strict_check_finds_nothing(written: tuple[Path, dict[str, bytes]]) -> None:
    report = check_more(written[0], Schema.more())
    assert report.sound, report.faults
    assert {counts.split: counts.documents for counts in report.splits} == sizes(DOCUMENTS)


def test_documents_as_they_are_read(written: tuple[Path, dict[str, bytes]]) -> None:
    folder, _ = written
    for split in sizes(DOCUMENTS):
        documents = read_more(folder, split)
        assert all(1 <= len(document.objects) <= 8 for document in documents)
        assert all(document.open_image().size == (SIZE, SIZE) for document in documents)
        assert all(o.box.fault(tolerance=0) is None for document in documents for o in document.objects)
        asked = [len(document.objects) * len(document.entities) for document in documents]
        assert asked == [len(document.pairs) for document in documents]


def test_the_sidecar_knows_every_pair(written: tuple[Path, dict[str, bytes]]) -> None:
    folder, _ = written
    for split in sizes(DOCUMENTS):
        documents = {document.id: document for document in read_more(folder, split)}
        facts = read_oracle(folder / "oracle" / f"{split}.jsonl")
        assert len(facts) == sum(len(document.pairs) for document in documents.values())
        for fact in facts:
            document = documents[fact.img_id]
            entity = next(e for e in document.entities if (e.span.start, e.span.end) == fact.span)
            pair = next(p for p in document.pairs if (p.object, p.entity) == (fact.object, entity.id))
            assert (pair.label, pair.hops) == (fact.label, fact.hops)
            assert (document.object(pair.object).type, entity.type) == (fact.object_type, fact.entity_type)
            assert (fact.hops is None) == (fact.label == "none")
            assert parse_trace(fact.completion or "", Schema.more()).answer == fact.label


def test_a_folder_is_complete_or_absent(tmp_path: Path) -> None:
    folder = tmp_path / "benchmark"
    writing = write_benchmark(folder, DOCUMENTS, 0)
    for _ in range(sum(sizes(DOCUMENTS).values())):  # all is drawn, the files of the layout are still to come
        next(writing)
        assert not folder.exists()
    writing.close()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken_a_full_one_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "benchmark"
    folder.mkdir()
    files = _write(folder, 1)
    with pytest.raises(FileExistsError, match="not empty"):
        next(write_benchmark(folder, DOCUMENTS, 2))
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
