"""Program, help, example configuration, man pages and completions say the same. The
program is asked: what it takes is what the others must have, no more and no less."""

import functools
import re
import shutil
import subprocess

import pytest

import support

MAN = support.ROOT / "packaging" / "man"
EXAMPLE = support.ROOT / "packaging" / "agent.conf"
BASH = support.ROOT / "packaging" / "completions" / "bash" / "reconify-agent"
ZSH = support.ROOT / "packaging" / "completions" / "zsh" / "_reconify-agent"

COMMON = {"--config", "--spool", "--help"}
# A value that every option of this kind takes.
VALUES = {"FILE": "/nonexistent/file", "NAME": "default", "S": "s", "ID": "1", "CODE": "c",
          "TIME": "5m", "AGE": "5m", "N": "1", "SECONDS": "1"}
OTHER_VALUES = {"--before": "2026-11-23"}


def call(*arguments, **more):
    return subprocess.run([support.AGENT, *map(str, arguments)], timeout=60, capture_output=True,
                          text=True, env=support.bare_environment(), **more)


@functools.lru_cache
def help_of(*command):
    result = call(*command, "--help")
    assert result.returncode == 0
    return result.stdout


def commands():
    return dict(re.findall(r"(?m)^  ([a-z]+) +(.+)$", help_of()))


def options_in(text):
    """The options of a help, with the kind of their value ('' for none)."""
    return dict(re.findall(r"(?m)^  (--[a-z-]+) ?\[?([A-Z]*)\]?  +\S", text))


def every_option():
    """All that main.c knows, whichever command takes it."""
    source = (support.ROOT / "agent" / "main.c").read_text()
    return {f"--{name}" for name in re.findall(r'\{ "([a-z-]+)", (?:no|required|optional)_argument', source)}


COMMANDS = commands()


# ---- Commands and options ----

def test_all_options_are_found():
    assert COMMON < every_option() and len(COMMANDS) >= 13


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_the_options_that_it_takes(command):
    told = options_in(help_of(command))
    kinds = {**{name: kind for other in COMMANDS for name, kind in options_in(help_of(other)).items()},
             **told}
    for option in sorted(every_option() - {"--help"}):
        value = OTHER_VALUES.get(option) or VALUES.get(kinds.get(option), "x")
        arguments = [option] + ([value] if kinds.get(option) else [])
        taken = call(command, *arguments, "--help").returncode == 0
        assert taken == (option in told), f"{command} {option}"


def manual(name):
    return (MAN / name).read_text()


def test_the_manual_has_each_command_with_its_options():
    page = manual("reconify-agent.1")
    headings = {words[0]: re.findall(r"Fl (-[a-z-]+)", " ".join(words)) + (
        ["FILTERS"] if "filter" in words else [])
        for words in (line.split() for line in re.findall(r"(?m)^\.Ss (.*)$", page))}
    section = re.search(r"(?s)\.Sh WHICH RECORDS\n(.*?)\n\.El", page)[1]
    filters = re.findall(r"(?m)^\.It Fl (-[a-z-]+)", section)
    assert set(headings) == set(COMMANDS)
    for command, options in headings.items():
        if "FILTERS" in options:
            options = [*filters, *(option for option in options if option != "FILTERS")]
        told = {f"-{option}" for option in options}
        assert told == set(options_in(help_of(command))) - COMMON, command
    for option in every_option() | {"--version"}:
        assert re.search(rf"Fl {option[1:]}\b", page), option


# ---- Keys ----

def ask_for_keys(tmp_path):
    """{section: its keys}, as the program itself counts them up for who got one wrong."""
    file = tmp_path / "wrong.conf"

    def complaint(text):
        file.write_text(text)
        result = call("check", "--keys", "--config", file)
        assert result.returncode == 78
        return result.stderr

    wrong = "x" * 30
    sections = re.findall(r"\[([a-z]+)( NAME)?\]", complaint(f"[{wrong}]\n").split("sections are")[1])
    return {name: complaint(f"[{name}{named and ' x'}]\n{wrong} = 1\n").strip()
            .split("one of: ")[1].split(", ") for name, named in sections}


def defaults(tmp_path):
    """{(section, key): default} of all keys that have a value without being given one."""
    file = tmp_path / "empty.conf"
    file.write_text("")
    result = call("check", "--keys", "--config", file)
    assert result.returncode == 0
    rows = re.findall(r"(?m)^\[(\w+)(?: default)?\] (\w+) =(?: (.*))? \(default\)$", result.stdout)
    assert len(rows) == len(result.stdout.splitlines())
    return {(section, key): value for section, key, value in rows}


def expected(tmp_path):
    known = defaults(tmp_path)
    return {(section, key): known.get((section, key), "")
            for section, keys in ask_for_keys(tmp_path).items() for key in keys}


def test_every_key_of_the_program_is_shown_by_check(tmp_path):
    assert set(defaults(tmp_path)) == set(expected(tmp_path)) - {
        ("app", "app_key"), ("app", "api_key"), ("format", "version")}


def test_the_manual_has_every_key_with_its_default(tmp_path):
    told, section = {}, None
    for line in manual("reconify-agent.conf.5").splitlines():
        if match := re.fullmatch(r"\.Ss \[([a-z]+).*\]\\&", line):
            section = match[1]
        elif match := re.fullmatch(r"\.It Ic (\w+) =(?: (.*))?", line):
            assert (section, match[1]) not in told
            told[section, match[1]] = match[2] or ""
    assert told == expected(tmp_path)


def test_the_example_has_every_key_with_its_default(tmp_path):
    told, section = {}, None
    text = EXAMPLE.read_text()
    for line in text.splitlines():
        if match := re.fullmatch(r"#?\[(.+)\]", line):
            section = match[1]
        elif match := re.fullmatch(r"#(\w+) =(?: (.*))?", line):
            if section != "app sales":  # an example of a further one
                told[section.split()[0], match[1]] = match[2] or ""
    assert told.pop(("endpoint", "url")).startswith("https://api.example.com/")  # has no default
    assert told.pop(("format", "version")) == "1.0.0"  # nor has this
    for key in ("app_key", "api_key"):  # stand for the files, and in words
        assert f'"{key} = KEY"' in text
    own = expected(tmp_path)
    for gone in (("endpoint", "url"), ("format", "version"), ("app", "app_key"), ("app", "api_key")):
        del own[gone]
    assert told == own


# ---- What the documents show as printed ----

README = support.ROOT / "README.md"


def shown(document):
    """The document's text as it is read, each of its lines without what indents it."""
    text = document.read_text().replace("\\(aq", "'")
    return [line.lstrip() for line in text.splitlines()]


def without_particulars(text):
    """On one line, with no number, time or place."""
    for particular, name in ((r"/\S*agent\.conf", "CONFIG"), (r"/\S*spool\.db", "SPOOL"),
                             (r"\d[\d.:-]*", "N")):
        text = re.sub(particular, name, text)
    return " ".join(text.split())


@pytest.mark.parametrize("document", [README, MAN / "reconify-agent.1"], ids=lambda path: path.name)
def test_the_lists_that_are_shown_have_the_programs_headings(document, agent):
    headings = [agent.command("list", *more).stdout.strip() for more in ((), ("--dead",))]
    told = [line for line in shown(document) if re.match(r"ID +AGE", line)]
    assert told and set(told) <= set(headings)


@pytest.mark.parametrize("document", [README, MAN / "reconify-agent.1"], ids=lambda path: path.name)
def test_the_check_that_is_shown_sums_up_as_the_program_does(document, agent):
    text = " ".join(shown(document))
    example = without_particulars(text[text.index("# reconify-agent check WRONG") + 23:])
    finding = example[len("WRONG "):example.index(" ok configuration: CONFIG ok app default: ")]
    assert f"N wrong, N to be looked at: {finding}" in example
    agent.point_to("https://api.example.invalid/")
    real = without_particulars(agent.command("check").stdout)
    assert finding.replace("example.com", "example.invalid") in real


def test_the_status_that_is_shown_is_the_programs(agent, spool, sink):
    page = manual("reconify-agent.1")
    example = re.search(r"(?s)# reconify-agent status\n(.*?)\n\.Ed", page)[1]
    sink.restart(script="401")
    agent.configure("")
    spool.add_many([{}, {}])
    agent.run()
    real = support.eventually(lambda: (text := agent.command("status").stdout)
                              and "app held" in text and "in flight" not in text
                              and "under way" not in text and text)
    # What to do is different under systemd.
    told, printed = (re.sub(r" do: .*? agent running ", " agent running ", without_particulars(text))
                     for text in (example, real))
    assert told == printed


# ---- The spool's manual ----

def test_the_manual_has_every_column(spool):
    page = manual("reconify-spool.5")
    columns = {table: [row[0] for row in spool.sql(f"SELECT name FROM pragma_table_info('{table}')")]
               for table in ("interactions", "dead_letters")}
    for table, others in (("interactions", ()), ("dead_letters", columns["interactions"])):
        section = re.search(rf"(?s)\.Ss {table}\n(.*?)\n\.El", page)[1]
        told = [name for line in re.findall(r"(?m)^\.It Cm (.*)$", section)
                for name in line.split(" , ")]
        assert told == [name for name in columns[table] if name not in others]


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="needs mandoc")
@pytest.mark.parametrize("page", sorted(path.name for path in MAN.iterdir()))
def test_the_manual_is_clean(page):
    result = subprocess.run(["mandoc", "-T", "lint", MAN / page], capture_output=True, text=True,
                            timeout=60)
    # Whether other manuals are installed here is not the page's doing.
    complaints = [line for line in result.stdout.splitlines()
                  if "referenced manual not found" not in line and "mandoc.db" not in line]
    assert complaints == []


def test_the_manuals_refer_to_manuals_that_there_are():
    ours = {path.name for path in MAN.iterdir()}
    for page in ours:
        for name, number in re.findall(r"(?m)^\.Xr (reconify\S*) (\d)", manual(page)):
            assert f"{name}.{number}" in ours


def test_what_is_installed_is_all_of_it(tmp_path):
    result = subprocess.run(["make", "-n", "install", "DESTDIR=/D", "PREFIX=/usr", "SAN="],
                            cwd=support.ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    packaged = "".join((support.ROOT / "packaging" / "debian" / name).read_text()
                       for name in ("reconify-agent.manpages", "reconify-sink.manpages",
                                    "reconify-agent.install"))
    for path in [*MAN.iterdir(), BASH, ZSH]:
        name = str(path.relative_to(support.ROOT))
        assert name in packaged
        assert name in result.stdout or f"{path.parent.relative_to(support.ROOT)}/*." in result.stdout


# ---- Completions ----

@pytest.fixture
def complete(tmp_path, spool):
    """What bash offers for these words, the last one being typed."""
    def offer(*words):
        script = (f'source "{BASH}"\n'
                  'complete -p reconify-agent | grep -q " -F _reconify_agent " || exit 3\n'
                  'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _reconify_agent\n'
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        result = subprocess.run(["bash", "--norc", "-c", script, "bash", str(support.AGENT), *words],
                                capture_output=True, text=True, timeout=60, cwd=tmp_path,
                                env=support.bare_environment())
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.split("\n")[:-1] if result.stdout != "\n" else []
    return offer


def test_bash_completes_commands(complete):
    assert set(complete("")) == {*COMMANDS, "--help", "--version"}
    assert complete("sch") == ["schema"]
    assert complete("nothing") == []


@pytest.mark.parametrize("command", COMMANDS)
def test_bash_completes_the_options_of_each_command(complete, command):
    assert set(complete(command, "--")) == {*options_in(help_of(command)), "--help"}


def test_bash_completes_ids_of_what_waits_and_what_is_dead(complete, spool, sink, agent):
    sink.restart(script="422,422,503")
    for session in ("a", "b", "c"):
        spool.add(session=session)
    agent.drain()
    spool.add()
    dead = {str(row[0]) for row in spool.sql("SELECT id FROM dead_letters")}
    waiting = {str(row[0]) for row in spool.sql("SELECT id FROM interactions")}
    assert len(dead) == 2 and len(waiting) == 2
    common = ("--spool", str(spool.path))
    assert set(complete("retry", *common, "")) == dead
    assert set(complete("discard", *common, "")) == set(complete("show", *common, "")) == dead | waiting
    assert complete("show", *common, "4") == ["4"]
    assert complete("list", *common, "--dead", "--reason", "") == ["unprocessable"]
    assert complete("list", *common, "--limit", "") == complete("list", *common, "") == []


def test_bash_completes_apps_and_files(complete, tmp_path):
    (tmp_path / "my.conf").write_text("[app sales]\napp_key = k\n[app spare parts]\napi_key = k\n")
    common = ("--config", "my.conf")
    assert complete("list", *common, "--app", "") == ["default", "sales", "spare\\ parts"]
    assert complete("check", *common, "--app", "=", "sa") == ["sales"]
    assert complete("status", "--config", "my") == ["my.conf"]
    assert complete("import", "my") == ["my.conf"]


def test_bash_completion_does_nothing_that_was_typed(complete, tmp_path):
    for hostile in ("--x/e touch made;s/y", "$(touch made)", "--`touch made`", "--app;touch made"):
        complete("list", hostile, "")
        complete("list", hostile)
        complete("list", "--spool", hostile, "--app", "")
    assert not (tmp_path / "made").exists()


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_understands_its_completion():
    assert subprocess.run(["zsh", "-n", ZSH], timeout=60).returncode == 0
