"""The configuration files of the tests' own Slurm: two nodes with four pretended GPUs each, on one machine."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GPUS", "NODES", "Layout", "Settings", "write"]

NODES = ("n1", "n2")
GPUS = 4
CLUSTER = "survey"

# Away from Slurm's own 6817-6819.
_CONTROLLER_PORT, _DATABASE_PORT, _NODE_PORT = 26817, 26819, 26901


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What tests change.

    Attributes
    ----------
    accounting : bool
        Whether slurmdbd keeps ended jobs, so that ``sacct`` can answer.
    min_job_age : int
        Seconds for which ``squeue`` remembers an ended job (Slurm's own default: 300).
    """

    accounting: bool = True
    min_job_age: int = 300


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of the cluster lies: below one folder."""

    root: Path

    @property
    def conf(self) -> Path:
        return self.root / "conf"

    @property
    def slurm_conf(self) -> Path:
        return self.conf / "slurm.conf"

    @property
    def database_conf(self) -> Path:
        return self.conf / "mariadb.cnf"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def gpus(self) -> Path:
        return self.root / "gpu"

    @property
    def database(self) -> Path:
        return self.root / "mysql"

    @property
    def socket(self) -> Path:
        return self.run / "mysql.sock"

    def pid(self, daemon: str) -> Path:
        return self.run / f"{daemon}.pid"


def write(layout: Layout, settings: Settings) -> bool:
    """Write all files; True if any differs from what was there."""
    files = {
        layout.slurm_conf: _slurm(layout, settings),
        layout.conf / "gres.conf": _gres(layout),
        # slurmd sets its cgroup plugin up even where nothing uses it, and the autodetection ends it where
        # /sys/fs/cgroup is absent or not ours (containers). Naming a version skips the detection.
        layout.conf / "cgroup.conf": "CgroupPlugin=cgroup/v1\n",
        layout.conf / "slurmdbd.conf": _slurmdbd(layout),
        layout.database_conf: _mariadb(layout),
    }
    changed = False
    for path, text in files.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            path.chmod(0o600 if path.name == "slurmdbd.conf" else 0o644)  # slurmdbd refuses any other
            changed = True
    return changed


def host() -> str:
    """The machine's short name, by which the daemons look themselves up."""
    return socket.gethostname().partition(".")[0]


def _slurm(layout: Layout, settings: Settings) -> str:
    if settings.accounting:
        storage = f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={_DATABASE_PORT}
AccountingStorageUser=root
AccountingStorageTRES=gres/gpu
"""
    else:
        storage = "AccountingStorageType=accounting_storage/none\n"
    nodes = "".join(
        f"NodeName={name} NodeHostname={host()} NodeAddr=127.0.0.1 Port={_NODE_PORT + number} CPUs=8 Boards=1 "
        f"SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=16000 Gres=gpu:{GPUS} State=UNKNOWN\n"
        for number, name in enumerate(NODES)
    )
    # config_overrides: a node may claim more than the machine has. linuxproc, task/none: no cgroups needed.
    # The scheduler's pauses are cut, and EnforcePartLimits makes sbatch refuse what can never run.
    return f"""\
ClusterName={CLUSTER}
SlurmctldHost={host()}(127.0.0.1)
SlurmctldPort={_CONTROLLER_PORT}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
{_loopback()}\
StateSaveLocation={layout.state}
SlurmdSpoolDir={layout.spool}/%n
SlurmctldPidFile={layout.pid("slurmctld")}
SlurmdPidFile={layout.run}/%n.pid
SlurmctldLogFile={layout.log}/slurmctld.log
SlurmdLogFile={layout.log}/%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=20000,sched_interval=2,bf_interval=2,default_queue_depth=500
EpilogMsgTime=100
EnforcePartLimits=ALL
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge={settings.min_job_age}
MaxJobCount=20000
MaxArraySize=2001
SlurmctldTimeout=30
SlurmdTimeout=10
BatchStartTimeout=20
MessageTimeout=10
TCPTimeout=2
UnkillableStepTimeout=20
RebootProgram=/bin/true
PropagateResourceLimits=NONE
{storage}{nodes}\
PartitionName=main Nodes={",".join(NODES)} Default=YES DefaultTime=00:30:00 MaxTime=1-00:00:00 State=UP
PartitionName=short Nodes={NODES[0]} DefaultTime=00:01:00 MaxTime=00:02:00 State=UP
"""


def _loopback() -> str:
    """Listen on the loopback alone; the address is that of the machine's name, so it must lead there."""
    try:
        near = socket.gethostbyname(host()).startswith("127.")
    except OSError:
        near = False
    return "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\n" if near else ""


def _gres(layout: Layout) -> str:
    nodes = f"NodeName={','.join(NODES)}"
    return f"AutoDetect=off\n{nodes} Name=gpu File={layout.gpus}/nvidia[0-{GPUS - 1}]\n"


def _slurmdbd(layout: Layout) -> str:
    return f"""\
AuthType=auth/munge
DbdHost={host()}
DbdAddr=127.0.0.1
DbdPort={_DATABASE_PORT}
SlurmUser=root
LogFile={layout.log}/slurmdbd.log
PidFile={layout.pid("slurmdbd")}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


def _mariadb(layout: Layout) -> str:
    # Thrown away after the tests: nothing is synced.
    return f"""\
[client]
socket={layout.socket}
[mariadbd]
datadir={layout.database}
socket={layout.socket}
pid-file={layout.pid("mariadbd")}
log-error={layout.log}/mariadbd.log
skip-networking
user=root
innodb_buffer_pool_size=64M
innodb_log_file_size=64M
innodb_lock_wait_timeout=900
innodb_flush_log_at_trx_commit=0
innodb_flush_method=nosync
innodb_doublewrite=0
"""
