from gensync_core.progress import Tick, line_sink, parse_line, progress, use_sink


def test_lines_round_trip(capsys):
    line_sink(Tick("joint", 3, 10, 4.5, "loss 0.1"))
    assert parse_line(capsys.readouterr().out) == Tick("joint", 3, 10, 4.5, "loss 0.1")


def test_ordinary_and_damaged_lines_are_not_ticks():
    assert parse_line("Running stage 'a'") is None
    assert parse_line('@progress {"job": 1') is None


def test_last_step_is_always_reported():
    ticks = []
    use_sink(ticks.append)
    try:
        with progress("track", 50) as bar:
            for _ in range(50):
                bar.advance()
    finally:
        use_sink(None)
    assert ticks[-1].done == ticks[-1].total == 50
    assert len(ticks) < 10
