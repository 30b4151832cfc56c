from .mutation import READ, REFUSED, mutations, read_it

MUTATIONS = 700


def test_broken_files_are_read_or_refused_and_nothing_else(tmp_path):
    found = [
        (number, name, *read_it(name, content, tmp_path))
        for number, name, content in mutations(MUTATIONS, seed=1)
    ]
    assert not [row for row in found if row[2] not in (READ, REFUSED)]
    assert max(seconds for *_, seconds in found) < 10
    assert {outcome for _, _, outcome, _ in found} == {READ, REFUSED}
    assert not list(tmp_path.iterdir())
