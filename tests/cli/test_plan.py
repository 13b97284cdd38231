"""`seedjax plan` refuses what does not go together, before anything compiles."""

import pytest

from seedjax.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train-8b-v5e256-2k", "train-8b-v6e64", "--search", "1"],
            "--search takes one",
        ),
        (["--config", "config.py"], "--config takes --topology"),
        (["sample-8b-h100", "--measure"], "--measure has plans of its own"),
        (["sample-8b-h100", "--over", "prefixes=1,2"], "prefix"),
    ],
)
def test_what_does_not_go_together_is_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["seedjax", "plan", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
