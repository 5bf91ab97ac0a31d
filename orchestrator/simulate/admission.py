"""Which submits a cluster takes, and which of those can never run."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.simulate.batchjob import Partition, Refusal, Refused, Rules, Wait, Wish
from orchestrator.simulate.queue_model import Room

__all__ = ["Admission"]


class Admission:
    """The checks of one cluster.

    Parameters
    ----------
    room : Room
        The nodes; only what they have in all is looked at.
    """

    def __init__(self, rules: Rules, room: Room) -> None:
        self._rules = rules
        self._room = room
        self.partitions: Mapping[str, Partition] = {partition.name: partition for partition in rules.partitions}
        self._able: dict[tuple[object, ...], int] = {}

    def queue(self, name: str | None) -> Partition:
        """The queue of that name, or the first one.

        Raises
        ------
        Refusal
            If there is none of that name.
        """
        if name is None:
            return self._rules.partitions[0]
        if name not in self.partitions:
            raise Refusal(Refused.NO_QUEUE, name)
        return self.partitions[name]

    def check(self, wish: Wish, partition: Partition, *, queued: int, count: int) -> None:
        """Take a submit of ``count`` jobs by a user who has ``queued`` in that queue, or say why not.

        Raises
        ------
        Refusal
            If the cluster does not take it.
        """
        rules = self._rules
        if not partition.enabled:
            raise Refusal(Refused.QUEUE_DISABLED, partition.name)
        if rules.group_required and wish.group is None:
            raise Refusal(Refused.NO_GROUP, "")
        if wish.group is not None and rules.groups is not None and wish.group not in rules.groups:
            raise Refusal(Refused.NO_GROUP, wish.group)
        if wish.array is not None and not rules.array_size:
            raise Refusal(Refused.NO_ARRAYS, partition.name)
        if wish.array is not None and count > rules.array_size:
            raise Refusal(Refused.ARRAY_SIZE, str(count))
        if rules.refuse_over_limit and self._takes_too_long(wish, partition):
            raise Refusal(Refused.WALLTIME, partition.name)
        able = self._nodes_for(wish, partition)
        if rules.refuse_impossible and (not able or (rules.refuse_over_limit and able < wish.nodes)):
            raise Refusal(Refused.IMPOSSIBLE, partition.name)
        if partition.queued is not None and queued + count > partition.queued:
            raise Refusal(Refused.USER_LIMIT, partition.name)

    def bar(self, wish: Wish, partition: Partition) -> Wait | None:
        """Why a job that was taken does not even compete for nodes; None if it does."""
        if self._nodes_for(wish, partition) < wish.nodes:
            return Wait.NEVER
        if self._takes_too_long(wish, partition):
            return Wait.TIME_LIMIT
        return None if partition.started else Wait.QUEUE_STOPPED

    def _takes_too_long(self, wish: Wish, partition: Partition) -> bool:
        longest = partition.max_walltime
        return longest is not None and wish.walltime is not None and wish.walltime > longest

    def _nodes_for(self, wish: Wish, partition: Partition) -> int:
        """How many nodes have what the wish needs of each, be they free or not."""
        key = (wish.gpus, wish.cpus, wish.memory, wish.whole, partition.nodes)
        if key not in self._able:
            self._able[key] = self._room.able(wish, partition.nodes)
        return self._able[key]
