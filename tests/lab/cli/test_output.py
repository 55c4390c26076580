from __future__ import annotations

import pytest

from lab.cli.output import emit
from lab.jobs.contract import Result, Table


class Compared(Result):
    """A result of one table."""

    name: str

    def tables(self) -> list[Table]:
        return [Table(rows=[{"contrast": self.name, "subjects": 1, "two_way": 0.0795, "pixcorr": 0.1676}])]


@pytest.mark.parametrize(
    "name",
    [
        "new subject, 15 min, 188 trials: shipped network, adapted above shared prior, Bayes",
        "a" * 90,
    ],
)
def test_a_long_sentence_leaves_room_for_its_numbers_and_a_name_stays_whole(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    emit(Compared(name=name), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    if " " in name:
        assert "0.0795" in lines[1] and "0.1676" in lines[1] and max(map(len, lines)) <= 100
    else:
        assert name in lines[1] and "two_way" in lines[-1]
