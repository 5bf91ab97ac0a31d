"""What the tests' own Grid Engine is made of: one host with eight slots, quick to act."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["bootstrap", "changed", "files"]

# What makes a scheduler for people one for tests; root's jobs are let in.
_CLUSTER = {
    "min_uid": "0",
    "min_gid": "0",
    "load_report_time": "00:00:05",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00",
    "mailer": "/bin/true",
}
_SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
}

_HOST = """\
hostname localhost
load_scaling NONE
complex_values slots=8
user_lists NONE
xuser_lists NONE
projects NONE
xprojects NONE
usage_scaling NONE
report_variables NONE
"""

_PARALLEL = """\
pe_name smp
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $pe_slots
control_slaves FALSE
job_is_first_task TRUE
urgency_slots min
accounting_summary TRUE
qsort_args NONE
"""

_NONE = (
    "load_thresholds suspend_thresholds ckpt_list prolog epilog starter_method suspend_method resume_method "
    "terminate_method owner_list user_lists xuser_lists subordinate_list complex_values projects xprojects calendar"
)
_LIMITS = "rt cpu fsize data stack core rss vmem"
_QUEUE = {
    "qname": "all.q",
    "hostlist": "localhost",
    "seq_no": "0",
    **dict.fromkeys(_NONE.split(), "NONE"),
    "nsuspend": "1",
    "suspend_interval": "00:05:00",
    "priority": "0",
    "min_cpu_interval": "00:05:00",
    "processors": "UNDEFINED",
    "qtype": "BATCH",
    "pe_list": "smp",
    "rerun": "FALSE",
    "slots": "8",
    "tmpdir": "/tmp",
    "shell": "/bin/bash",
    "shell_start_mode": "posix_compliant",
    "notify": "00:00:60",
    "initial_state": "default",
    **{f"{hardness}_{limit}": "INFINITY" for hardness in "sh" for limit in _LIMITS.split()},
}


def bootstrap(root: Path) -> str:
    """Where a cell has its things; Grid Engine reads it before all else."""
    return f"""\
admin_user              sgeadmin
default_domain          none
ignore_fqdn             false
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         {root}/spool/db
binary_path             /usr/sbin
qmaster_spool_dir       {root}/spool/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
"""


def changed(shown: str, what: str, root: Path) -> str:
    """What ``qconf`` shows of the ``cluster`` or the ``scheduler``, as the tests want it."""
    shown = "".join(f"{line}\n" for line in shown.splitlines() if not line.startswith("#"))
    values = _SCHEDULER if what == "scheduler" else {**_CLUSTER, "execd_spool_dir": f"{root}/spool/execd"}
    for name, value in values.items():
        shown = re.sub(rf"^{name}\s.*$", f"{name} {value}", shown, flags=re.MULTILINE)
    return shown


def files() -> dict[str, str]:
    """What is added with ``qconf``, by the option that adds it."""
    queue = "".join(f"{name} {value}\n" for name, value in _QUEUE.items())
    return {"-Ae": _HOST, "-Ap": _PARALLEL, "-Aq": queue}
