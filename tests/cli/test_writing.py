"""The commands that help with writing specs."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from netspec.cli import app

UGLY = "name:'a' # net\nlayer{name:'x' type:'ReLU'\n}\n"
FINE = 'name: "a" # net\nlayer {\n  name: "x" type: "ReLU"\n}\n'


def test_fmt_writes_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "nets" / ".old").mkdir(parents=True)
    for name in ("nets/a.prototxt", "nets/.old/b.prototxt", "c.prototxt"):
        (tmp_path / name).write_text(UGLY)
    (tmp_path / "nets" / "d.prototmp").write_text("{{ x }}")
    (tmp_path / "nets" / "a.prototxt").chmod(0o640)
    given = [str(tmp_path / "nets"), str(tmp_path / "c.prototxt")]
    for flag, said in (("--check", "would change"), ("--diff", '+name: "a" # net')):
        result = CliRunner().invoke(app, ["fmt", *given, flag])
        assert result.exit_code == 1
        assert said in result.output
        assert (tmp_path / "c.prototxt").read_text() == UGLY
    result = CliRunner().invoke(app, ["fmt", *given])
    assert result.exit_code == 0
    assert "2 of 2 files formatted" in result.output
    assert (tmp_path / "nets" / "a.prototxt").read_text() == FINE
    assert (tmp_path / "nets" / "a.prototxt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "nets" / ".old" / "b.prototxt").read_text() == UGLY
    assert CliRunner().invoke(app, ["fmt", *given, "--check"]).exit_code == 0


def test_fmt_goes_on_past_what_it_cannot_read(tmp_path: Path) -> None:
    for name, text in (("a.prototmp", "{{ x }}"), ("b.prototxt", "layer {"), ("c.prototxt", UGLY)):
        (tmp_path / name).write_text(text)
    names = [str(tmp_path / name) for name in ("a.prototmp", "b.prototxt", "none.prototxt", "c.prototxt")]
    result = CliRunner().invoke(app, ["fmt", *names])
    assert result.exit_code == 2
    for said in ("a.prototmp: is a template", "b.prototxt:1:8: expected '}'", "none.prototxt: no such file"):
        assert said in result.output
    assert (tmp_path / "c.prototxt").read_text() == FINE
    assert (tmp_path / "b.prototxt").read_text() == "layer {"


def test_fmt_of_standard_input() -> None:
    assert CliRunner().invoke(app, ["fmt", "-"], input=UGLY).output == FINE
    assert CliRunner().invoke(app, ["fmt", "--check", "-"], input=UGLY).exit_code == 1
    assert CliRunner().invoke(app, ["fmt", "--check", "-"], input=FINE).exit_code == 0
    shown = CliRunner().invoke(app, ["fmt", "--diff", "-"], input=UGLY)
    assert shown.exit_code == 1
    assert "<standard input> (canonical)" in shown.output


def test_fmt_ends_lines_with_one_sign(tmp_path: Path) -> None:
    path = tmp_path / "a.prototxt"
    path.write_bytes(b'\xef\xbb\xbfname: "a"\r\n')
    assert CliRunner().invoke(app, ["fmt", str(path)]).exit_code == 0
    assert path.read_bytes() == b'name: "a"\n'


def test_a_value_that_a_template_does_not_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.prototmp").write_text('name: "{{ title }}"\n')
    run = lambda *values: CliRunner().invoke(app, ["render", str(tmp_path / "t.prototmp"), *values])  # noqa: E731
    assert run("--set", "title=x").exit_code == 0
    refused = run("--set", "title=x", "--set", "titel=y")
    assert "--set titel" in str(refused.exception)
    assert "did you mean 'title'?" in str(refused.exception)
