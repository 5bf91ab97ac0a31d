from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator import resources
from orchestrator.config.site import BatchOptions, Site, load_site
from orchestrator.errors import ConfigError, UsageError

SHIPPED = resources.folders("sites")[-1]
CLUSTERS = ["abci3", "flow-type2", "genkai", "miyabi-g", "reedbush-h", "reedbush-l", "tsubame4", "wisteria-aquarius"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folder of sites, searched before the shipped ones."""
    own = tmp_path / "config" / "sites"
    own.mkdir(parents=True)
    monkeypatch.setattr(resources, "folders", lambda kind: (tmp_path / "config" / kind, SHIPPED.parent / kind))
    return own


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_site_is_named_as_its_file_and_has_a_template(path: Path) -> None:
    site = load_site(path.stem)
    assert site.name == path.stem
    assert resources.find("templates", site.template_name) is not None


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_value_of_a_named_cluster_says_whether_it_is_documented(name: str) -> None:
    site = load_site(name)
    prose = {"schema_version", "name", "description", "extends", "notes", "sources", "evidence"}
    about_the_cluster = site.model_fields_set - prose - {"limits"} | {"limits.queued"}
    assert {key for key in about_the_cluster if site.evidence_of(key) is None} == set()
    assert site.sources or "documented" not in site.evidence.values()


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_named_cluster_states_what_a_driver_must_know_of_it(name: str) -> None:
    site = load_site(name)
    stated = {"scheduler", "queue_flag", "group_flag", "group_required", "container", "environment_policy"}
    stated |= {"work_root_hint", "array_allowed", "limits", "poll", "kill_grace", "cpu_arch", "queues"}
    assert stated <= site.model_fields_set
    assert "queued" in site.limits.model_fields_set
    assert site.gpu_syntax is not None or all(queue.unit in ("node", "fraction") for queue in site.queues)
    for queue in site.queues:
        assert queue.cores_per_unit is not None, queue.name
        assert queue.max_walltime is not None, queue.name
        assert queue.max_units is not None, queue.name


def test_a_site_is_shown_with_the_evidence_behind_each_value() -> None:
    lines = load_site("reedbush-h").to_yaml().splitlines()
    for line in (
        "group_flag: -W group_list={group}  # assumed",
        "  runtime: singularity  # assumed",
        "  look: 5.0  # assumed",
        "commands:  # assumed",
        "- name: h-regular  # assumed",
        "  weight: 2.5  # documented",
        "  min_units: 1  # default",
        "command_timeout: 60.0  # default",
    ):
        assert line in lines


def test_what_a_user_changes_is_shown_as_the_users_own(own_folder: Path) -> None:
    write(
        own_folder,
        "mine.yaml",
        "name: mine\nscheduler: pbs\nextends: abci3\nlimits: {queued: 20}\nhistory: false\n"
        "queues: [{name: rt_HG, max_walltime: 24h}]\n",
    )
    site = load_site("mine")
    assert (site.evidence_of("history"), site.evidence_of("limits.queued")) == ("own", "own")
    assert site.evidence_of("queues.rt_HG.max_walltime") == "own"
    assert site.evidence_of("queues.rt_HG.cores_per_unit") == "documented"
    assert site.evidence_of("queues.rt_HF.max_walltime") == "documented"
    assert "  queued: 20  # own" in site.to_yaml().splitlines()


@pytest.mark.parametrize("name", CLUSTERS)
def test_evidence_names_only_queues_that_exist(name: str) -> None:
    site = load_site(name)
    named = {key.split(".")[1] for key in site.evidence if key.startswith("queues.")}
    assert named <= {queue.name for queue in site.queues}


def test_the_nearest_evidence_counts() -> None:
    site = Site(name="x", scheduler="pbs", evidence={"queues": "assumed", "queues.a.weight": "documented"})
    assert site.evidence_of("queues.a.weight") == "documented"
    assert site.evidence_of("queues.a.max_units") == "assumed"
    assert site.evidence_of("poll.look") is None


def test_the_local_site_runs_the_agent_with_the_drivers_own_python() -> None:
    assert load_site("local").interpreter == sys.executable
    assert load_site("slurm").interpreter == "python3"


def test_a_users_site_changes_single_keys_of_a_shipped_one(own_folder: Path) -> None:
    write(
        own_folder,
        "mine.yaml",
        "name: mine\nscheduler: pjm\nextends: flow-type2\ngroup: gx01\npoll: {look: 10s}\n"
        "queues:\n  - {name: cx-share, max_walltime: 24h}\n  - {name: cx-new, unit: node, gpus_per_unit: 4}\n",
    )
    mine, base = load_site("mine"), load_site("flow-type2")
    assert mine.group == "gx01"
    assert (mine.poll.look, mine.poll.query_min) == (10.0, base.poll.query_min)
    share = next(queue for queue in mine.queues if queue.name == "cx-share")
    assert (share.max_walltime, share.weight, share.unit) == (86400, base.queues[0].weight, "gpu")
    assert [queue.name for queue in mine.queues] == [*(queue.name for queue in base.queues), "cx-new"]
    assert mine.container == base.container


def test_a_users_site_of_a_shipped_name_can_extend_that_name(own_folder: Path) -> None:
    write(own_folder, "slurm.yaml", "name: slurm\nscheduler: slurm\nextends: slurm\ngroup: ours\n")
    site = load_site("slurm")
    assert site.group == "ours"
    assert site.queue_flag == "--partition={queue}"


def test_a_row_of_a_queue_with_several_rows_is_found_by_its_unit(own_folder: Path) -> None:
    write(
        own_folder,
        "mine.yaml",
        "name: mine\nscheduler: pjm\nextends: genkai\nqueues: [{name: b-batch, unit: gpu, max_units: 2}]\n",
    )
    rows = [queue for queue in load_site("mine").queues if queue.name == "b-batch"]
    assert [(row.unit, row.max_units) for row in rows] == [("gpu", 2), ("node", 1), ("node", 3), ("node", 4)]


def test_a_row_that_could_mean_several_stands_for_all_of_them(own_folder: Path) -> None:
    write(
        own_folder,
        "mine.yaml",
        "name: mine\nscheduler: pjm\nextends: genkai\n"
        "queues: [{name: b-batch, unit: node, gpus_per_unit: 4, max_units: 9}]\n",
    )
    rows = [queue for queue in load_site("mine").queues if queue.name == "b-batch"]
    assert [(row.unit, row.max_units) for row in rows] == [("node", 9)]


def test_a_mistake_in_an_overlaid_queue_is_reported_at_its_own_line(own_folder: Path) -> None:
    path = write(
        own_folder,
        "mine.yaml",
        "name: mine\nscheduler: pjm\nextends: flow-type2\nqueues:\n  - name: cx-debug\n    max_units: many\n",
    )
    with pytest.raises(ConfigError, match=f"{path}:6"):
        load_site("mine")


def test_an_unknown_key_is_reported_with_its_line_and_the_likely_one(own_folder: Path) -> None:
    path = write(own_folder, "mine.yaml", "name: mine\nscheduler: slurm\nqueue_flg: -p {queue}\n")
    with pytest.raises(ConfigError, match=rf'{path}:3.*queue_flg(?s:.*)did you mean "queue_flag"'):
        load_site(path)


def test_an_unknown_key_is_the_one_mistake_where_the_file_extends_a_site_with_evidence(own_folder: Path) -> None:
    path = write(own_folder, "mine.yaml", "name: mine\nscheduler: pbs\nextends: abci3\nqueue_flg: -p {queue}\n")
    with pytest.raises(ConfigError) as caught:
        load_site(path)
    assert str(caught.value) == f'{path}:4: queue_flg: unknown key; did you mean "queue_flag"?'


def test_an_unknown_site_comes_with_the_likely_one_and_the_list() -> None:
    with pytest.raises(UsageError, match=r'no site .flow-type3.; did you mean "flow-type2"\?(?s:.*)tsubame4'):
        load_site("flow-type3")


def test_a_site_that_extends_itself_through_another_is_refused(own_folder: Path) -> None:
    write(own_folder, "a.yaml", "name: a\nscheduler: pbs\nextends: b\n")
    write(own_folder, "b.yaml", "name: b\nscheduler: pbs\nextends: a\n")
    with pytest.raises(ConfigError, match=r"b\.yaml: extends a, which extends it again"):
        load_site("a")


def test_an_extended_file_is_found_beside_the_one_that_extends_it(own_folder: Path) -> None:
    write(own_folder, "base.yaml", "name: base\nscheduler: pbs\ngroup: ours\n")
    path = write(own_folder, "mine.yaml", "name: mine\nscheduler: pbs\nextends: ./base.yaml\n")
    assert load_site(path).group == "ours"


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
def test_a_site_written_out_is_read_back_the_same(name: str, tmp_path: Path) -> None:
    site = load_site(name)
    again = load_site(write(tmp_path, "site.yaml", site.to_yaml()))
    assert again == site.model_copy(update={"extends": None})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("group_flag", "-g", "must hold {group}"),
        ("group_flag", "-g {group} {user}", "no placeholder but"),
        ("queue_flag", "-q {queue}\n#PBS -q other", "one line"),
        ("directives", ["-l a\n#PBS -q other"], "one line"),
        ("work_root", "studies", "absolute path"),
        ("work_root", "/work/{queue}", "may hold"),
        ("status_banner", "(", "not a regular expression"),
        ("poll", {"query_min": 100, "query_max": 10}, "longer than query_max"),
        ("evidence", {"queus": "assumed"}, "no key of a site"),
        ("modules", ["cuda\nrm"], "one line"),
    ],
)
def test_a_value_that_cannot_work_is_refused_at_load(key: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Site.model_validate({"name": "x", "scheduler": "pbs", key: value})


@pytest.mark.parametrize("value", ["a\nb", "a b", "$(id)", "a;b", "-q", "", "a\x00", "a,b", "a\u2028b"])
@pytest.mark.parametrize("key", ["queue", "group"])
def test_a_queue_or_group_is_a_plain_word(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=key):
        BatchOptions.model_validate({key: value})


def test_setup_may_be_a_block_of_shell() -> None:
    batch = BatchOptions.model_validate({"setup": "if true; then\n\techo hello\nfi\n"})
    assert batch.setup == ("if true; then", "\techo hello", "fi")


def test_the_work_root_is_the_drivers_where_the_site_names_none(tmp_path: Path) -> None:
    assert load_site("slurm").resolved_work_root(tmp_path, "lungs") == str(tmp_path / "lungs")


def test_the_work_root_is_filled_with_group_and_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "u1")
    site = load_site("reedbush-h")
    assert site.resolved_work_root(Path("/ignored"), "lungs", group="gx01") == "/lustre/gx01/u1/lungs"
    with pytest.raises(UsageError, match="no group is set"):
        site.resolved_work_root(Path("/ignored"), "lungs")
