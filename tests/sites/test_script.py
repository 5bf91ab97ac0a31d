from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import resources
from orchestrator.config.site import BatchOptions, Site, load_site
from orchestrator.errors import ConfigError, UsageError
from orchestrator.jobs.placement import place
from orchestrator.jobs.script import ScriptRequest, render, scheduler_options, wrap_command
from orchestrator.model import Resources

ONE = Resources(gpus=1, walltime=3600)
NASTY = "a b'c\"d$(touch owned)`touch owned`;&|*"


@pytest.fixture
def own_templates() -> Path:
    """A user's own folder of templates, searched before the shipped ones."""
    own = resources.folders("templates")[0]
    own.mkdir(parents=True)
    return own


def ask(**changes: object) -> ScriptRequest:
    values: dict[str, object] = {
        "tag": "t00007-k3j9x2q8",
        "directories": ("/work/s/trials/00007/attempt-1",),
        "agent": "/work/s/lib/1f/agent.py",
        "python": "python3",
        "study": "s",
        "output_dir": "/work/s/trials/00007/attempt-1",
    }
    return ScriptRequest(**{**values, **changes})  # type: ignore[arg-type]  # each test changes one of them


def script(site: str | Site, options: BatchOptions | None = None, **changes: object) -> str:
    site = load_site(site) if isinstance(site, str) else site
    options = options or BatchOptions(group="gx01")
    return render(site, place(site, ONE, options), options, ask(**changes))


def test_a_local_script_hands_odd_paths_to_the_agent_unchanged(tmp_path: Path) -> None:
    output = tmp_path / NASTY.replace("/", "")
    output.mkdir()
    agent = output / "agent.py"
    agent.write_text(
        "import json, os, sys\njson.dump([os.getcwd(), sys.argv[1:], oct(os.umask(0))], open('said', 'w'))\n"
    )
    directories = (f"{output}/one", f"{output}/-two")
    text = script("local", agent=str(agent), python=sys.executable, directories=directories, output_dir=str(output))
    job = tmp_path / "job.sh"
    job.write_text(text)
    subprocess.run(["/bin/bash", str(job)], check=True, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([output.name, "job.sh"])
    said = (output / "said").read_text()
    assert said == json.dumps([os.path.realpath(output), ["run", *directories], "0o77"])


def test_an_element_of_an_array_job_runs_its_own_attempts(tmp_path: Path) -> None:
    agent = tmp_path / "agent.py"
    agent.write_text("import sys\nprint(*sys.argv[1:], sep='|')\n")
    site, options = load_site("gridengine"), BatchOptions(pack=2)
    text = render(
        site,
        place(site, ONE, options, attempts=2),
        options,
        ask(agent=str(agent), array=2, directories=("/a", "/b", "/c c", "/d"), output_dir=str(tmp_path)),
    )

    def element(number: int) -> subprocess.CompletedProcess[str]:
        environment = {"SGE_TASK_ID": str(number), "PATH": os.environ["PATH"]}
        return subprocess.run(["/bin/bash", "-c", text], env=environment, capture_output=True, text=True, check=False)

    assert element(2).stdout == "run|/c c|/d\n"
    lost = element(3)
    assert lost.returncode == 1
    assert "no such element" in lost.stderr


def test_attempts_that_cannot_be_dealt_out_evenly_are_refused() -> None:
    with pytest.raises(UsageError, match="3 attempts cannot be dealt out to 2"):
        script("slurm", array=2, directories=("/a", "/b", "/c"))


def test_a_site_without_array_jobs_says_so() -> None:
    with pytest.raises(UsageError, match="wisteria-aquarius takes no array jobs"):
        script("wisteria-aquarius", array=1)


@pytest.mark.parametrize("site", ["slurm", "pbs", "gridengine"])
def test_a_blank_in_a_directives_path_is_quoted(site: str) -> None:
    folder = "/work/my studies/a"
    directive = next(line for line in script(site, output_dir=folder).splitlines() if "job.log" in line)
    assert directive.endswith('"/work/my studies/a/job.log"')


@pytest.mark.parametrize(
    ("site", "folder"),
    [
        ("pjm", "/work/my studies"),
        ("slurm", "/work/100%j"),
        ("pbs", "/work/a:b"),
        ("gridengine", "/work/$HOME"),
        ("slurm", '/work/a"b'),
        ("slurm", "/work/a\\b"),
    ],
)
def test_a_path_that_a_directive_cannot_carry_is_refused_with_the_templates_line(site: str, folder: str) -> None:
    with pytest.raises(ConfigError, match=rf"{site}\.sh\.j2:\d+: a directive cannot hold the path"):
        script(site, output_dir=folder)


@pytest.mark.parametrize("name", ["tag", "study", "output_dir", "agent", "python"])
def test_a_line_break_in_any_value_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"cannot hold the {name}"):
        script("slurm", None, **{name: "a\n#SBATCH --account=other"})
    with pytest.raises(UsageError, match="cannot hold the directories"):
        script("slurm", directories=("/a\n/b",))


@pytest.mark.parametrize("tag", ["$(id)", "a b", "-J", "a;b", "a,b"])
def test_a_tag_that_is_no_plain_word_is_refused(tag: str) -> None:
    with pytest.raises(ConfigError, match="a directive cannot hold the name"):
        script("pbs", tag=tag)


def test_a_line_break_that_came_past_the_models_is_refused_too() -> None:
    options = BatchOptions.model_construct(
        **{**BatchOptions(group="g").model_dump(), "directives": ("-l a\n#PBS -q other",), "container": None}
    )
    with pytest.raises(ConfigError, match="control character"):
        script("pbs", options)


def test_module_names_are_quoted() -> None:
    options = BatchOptions.model_validate({"modules": ["cuda/12.4", "x; touch owned"]})
    assert "module load cuda/12.4\nmodule load 'x; touch owned'\n" in script("slurm", options)


def test_further_directives_come_with_or_without_the_prefix() -> None:
    options = BatchOptions.model_validate({"directives": ["--constraint=a100", "#SBATCH --nice=10"]})
    assert "#SBATCH --constraint=a100\n#SBATCH --nice=10\n" in script("slurm", options)


@pytest.mark.parametrize(
    ("site", "line"),
    [("slurm", "#PBS -l select=1"), ("pbs", "#SBATCH --nice"), ("pjm", "# a remark"), ("gridengine", "##$ -l a=1")],
)
def test_a_directive_of_another_scheduler_is_refused_with_the_templates_line(site: str, line: str) -> None:
    options = BatchOptions.model_validate({"directives": [line]})
    with pytest.raises(ConfigError, match=rf"{site}\.sh\.j2:\d+: this scheduler reads #.* lines, not '#"):
        script(site, options)


def test_parameters_and_commands_are_not_in_a_script() -> None:
    assert "train" not in script("slurm", BatchOptions.model_validate({"container": {"image": "train.sif"}}))


def test_the_job_is_never_started_again_by_the_scheduler_itself() -> None:
    marks = {"slurm": "--no-requeue", "pbs": "-r n", "pjm": "--norestart", "gridengine": "-r n"}
    for site, mark in marks.items():
        assert mark in script(site)


def test_a_users_template_may_replace_one_block(own_templates: Path) -> None:
    (own_templates / "slurm.sh.j2").write_text(
        '{% extends "shipped/slurm.sh.j2" %}\n{% block setup %}{{ super() }}echo {{ request.study | q }}\n{% endblock %}'
    )
    text = script("slurm", BatchOptions(setup=("true",)), study="my study")
    assert "#SBATCH --job-name=t00007-k3j9x2q8\n" in text
    assert "\ntrue\necho 'my study'\nexec python3 -I" in text


def test_a_users_template_may_stand_for_the_whole(own_templates: Path) -> None:
    (own_templates / "pbs.sh.j2").write_text("#!/bin/bash\n#PBS -q {{ placement.queue }}\n")
    assert script("pbs", BatchOptions(queue="gpu")) == "#!/bin/bash\n#PBS -q gpu\n"


def test_a_users_base_changes_the_body_under_every_scheduler(own_templates: Path) -> None:
    (own_templates / "base.sh.j2").write_text(
        '{% extends "shipped/base.sh.j2" %}\n{% block run %}date\n{{ super() }}{% endblock %}'
    )
    for site in ("slurm", "pbs", "pjm", "gridengine", "local"):
        assert "\ndate\nexec python3 -I" in script(site, python="python3")


def test_a_template_that_comes_or_changes_while_the_driver_runs_counts_from_the_next_script(
    own_templates: Path,
) -> None:
    own = own_templates / "slurm.sh.j2"
    assert "own" not in script("slurm")
    own.write_text("own 1\n")
    assert script("slurm") == "own 1\n"
    own.write_text("own 2\n")
    os.utime(own, ns=(1, own.stat().st_mtime_ns + 1))  # a clock of coarse ticks must not decide this test
    assert script("slurm") == "own 2\n"
    own.unlink()
    assert "own" not in script("slurm")


def test_a_script_costs_one_look_at_each_place_where_a_template_may_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    script("slurm")
    looked: list[str] = []
    stat = os.stat

    def counted(path: Any, **options: Any) -> os.stat_result:
        looked.append(str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", counted)
    text = script("slurm")
    monkeypatch.undo()
    assert "#SBATCH" in text
    ours = [path for path in looked if path.endswith(".sh.j2")]
    assert sorted(ours) == sorted(set(ours))
    assert len(ours) <= len(resources.folders("templates")) * 2


def test_a_study_may_bring_a_template_of_its_own_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.sh"
    path.write_text("#!/bin/sh\n{{ request.agent | q }} {{ placement.gpus }} {{ ask.walltime }}\n")
    assert script("slurm", BatchOptions(template=str(path))) == "#!/bin/sh\n/work/s/lib/1f/agent.py 1 01:00:00\n"


@pytest.mark.parametrize(
    ("body", "place_in_file", "words"),
    [
        ("#!/bin/sh\n\n{{ jobname }}\n", 3, "'jobname' is undefined(?s:.*)A template sees ask, batch"),
        ("#!/bin/sh\n{{ request.job_name }}\n", 2, "job_name"),
        ("#!/bin/sh\n{% if x %}\n", 2, "endif"),
        ("a\nb\nc\n{{ 1 / 0 }}\n", 4, "ZeroDivisionError"),
        ("{{ request.tag | quote }}\n", 1, "quote"),
    ],
)
def test_a_mistake_in_a_template_is_reported_with_its_line(
    tmp_path: Path, body: str, place_in_file: int, words: str
) -> None:
    path = tmp_path / "mine.sh.j2"
    path.write_text(body)
    with pytest.raises(ConfigError, match=rf"{path}:{place_in_file}: .*{words}"):
        script("slurm", BatchOptions(template=str(path)))


def test_a_missing_template_comes_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no template lsf\.sh\.j2(?s:.*)base, gridengine, local"):
        script("slurm", BatchOptions(template="lsf.sh.j2"))
    path = tmp_path / "mine.sh.j2"
    path.write_text('{% extends "nowhere.sh.j2" %}')
    with pytest.raises(ConfigError, match=r"no template nowhere\.sh\.j2, which .*mine\.sh\.j2 extends"):
        script("slurm", BatchOptions(template=str(path)))


def test_a_group_on_the_command_line_is_not_in_the_script() -> None:
    site, options = load_site("tsubame4"), BatchOptions(group="tga-x")
    assert "tga-x" not in script(site, options)
    assert scheduler_options(site, options).submit_options == ("-g", "tga-x")


def test_the_adaptor_hears_what_the_site_says() -> None:
    site = Site(
        name="x", scheduler="pbs", commands={"qstat": "/a/rbstat"}, submit_options=("-f",), adaptor={"a": "1", "b": "1"},
        command_timeout=9.0, history=False,
    )  # fmt: skip
    options = scheduler_options(site, BatchOptions(), extra={"b": "2"})
    assert options.commands == {"qstat": "/a/rbstat"}
    assert (options.submit_options, options.timeout, options.history) == (("-f",), 9.0, False)
    assert options.extra == {"a": "1", "b": "2"}


COMMAND = ("python", "train.py", "--name", "a b")


def test_a_command_without_container_and_launcher_stays_as_it_is() -> None:
    site = load_site("slurm")
    assert wrap_command(BatchOptions(), site, COMMAND, ONE) == COMMAND
    assert wrap_command(BatchOptions(), site, "a | b", ONE) == "a | b"
    assert wrap_command(BatchOptions(launcher="none"), site, COMMAND, Resources(nodes=2)) == COMMAND


def test_a_container_goes_around_the_command_and_sees_the_folders_it_needs() -> None:
    options = BatchOptions.model_validate({"container": {"image": "/i/a b.sif", "binds": ["/data:/data:ro", "/work"]}})
    wrapped = wrap_command(options, load_site("flow-type2"), COMMAND, binds=("/work", "/code"))
    assert wrapped == (
        *("singularity", "exec", "--nv", "--bind", "/work", "--bind", "/code", "--bind", "/data:/data:ro"),
        *("/i/a b.sif", *COMMAND),
    )


def test_a_shell_line_runs_in_the_containers_shell() -> None:
    options = BatchOptions.model_validate({"container": {"image": "a.sif", "nv": False, "runtime": "apptainer"}})
    assert wrap_command(options, load_site("slurm"), "a | b") == (
        "apptainer",
        "exec",
        "a.sif",
        "/bin/sh",
        "-c",
        "a | b",
    )


def test_the_sites_launcher_starts_a_command_of_several_nodes() -> None:
    two = Resources(nodes=2, cpus=4, gpus=1)
    line = wrap_command(BatchOptions(), load_site("slurm"), COMMAND, two)
    assert isinstance(line, str)
    assert line.startswith("srun --ntasks=2 --ntasks-per-node=1 --cpus-per-task=4 ")
    assert line.endswith("python train.py --name 'a b'")
    assert "-machinefile $PJM_O_NODEINF -np 2 " in str(wrap_command(BatchOptions(), load_site("pjm"), COMMAND, two))


def test_a_launcher_may_be_any_line_and_goes_around_the_container() -> None:
    options = BatchOptions.model_validate({"launcher": "mpiexec -n {gpus} -x A=${B}", "container": {"image": "a.sif"}})
    line = wrap_command(options, load_site("pbs"), COMMAND, Resources(gpus=4))
    sourced = """/bin/sh -c '. "$0" && exec "$@"' "$SURVEY_DIR"/environment.sh"""
    assert line == f"mpiexec -n 4 -x A=${{B}} {sourced} apptainer exec --nv a.sif python train.py --name 'a b'"
