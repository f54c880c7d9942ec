"""One fit by several processes: each gathers its shard of the photos, the first puts them together.

Where every photo's features are kept, the first process receives those of the others in the order
of the paths and leaves out copies of what an earlier shard had: it then holds what it would have
gathered alone. Where they are sketched, it merges the states (see `fre_edge.state`); three things
are then only seen within a shard, and warned of: exact copies, the groups of a table, and without
one the near-copies of a scene. Matching scenes afterwards would not help: each has gone into the
sketch of a fold, and cannot be taken out of it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fre_edge.checkpoint import clear, reader_tensors, restore_reader
from fre_edge.extraction import gather, trunk_for
from fre_edge.gathering import Gatherer, Keep
from fre_edge.job import Job, prepare
from fre_edge.options import FitOptions
from fre_edge.state import State, merge_states
from fre_edge.strategies.base import BATCH, Rank
from fre_edge.strategies.choose import Plan
from fre_edge.team import Team
from fre_runtime.errors import DataError
from fre_runtime.groups import GroupTable
from fre_runtime.photos import PhotoReader

log = logging.getLogger(__name__)


class Gathered(NamedTuple):
    """What all processes gathered, in the order of the paths."""

    rows: list[Path]
    """The photo of each row of features: tiles of one photo follow each other."""
    reader: PhotoReader
    """What was found about all of them."""
    state: State


def gather_all(job: Job, plan: Plan, team: Team) -> Gathered:
    """Gather the photos of a job, with the others where there are any; for rank 0.

    Raises
    ------
    TeamError
        When another process fails, is killed, or says nothing for `fre_edge.team.SILENCE` seconds.
    DataError, OutputError
        As `fre_edge.fit`.
    """
    team.agree(job.facts(), plan.method)
    if plan.streams and team.size > 1 and job.options.groups == "auto":
        log.warning(
            "scenes are told apart within the shard of each of the %d processes: a part with "
            "photos in two shards counts as two scenes, which may land in different folds and make "
            "thresholds too low. Name the files so that a part's photos stand together; --groups "
            "FILE tells which do not",
            team.size,
        )
    gatherer = job.gatherer(plan, job.reader(job.paths).expected, plan.scratch)
    reader, rows = _gather_shard(job, plan, team, gatherer)
    reader.paths = job.paths
    sketched = []
    shard_of = dict.fromkeys(rows, 0)
    for rank in team.others:
        team.call(rank)
        theirs = job.reader(team.shard(job.paths, rank))
        more = restore_reader(theirs, team.receive(rank))
        copies = reader.absorb(theirs, leave_out=not plan.streams)
        if isinstance(gatherer, Keep):
            _receive_rows(team, rank, gatherer, more, copies)
            more = [path for path in more if path not in copies]
        else:
            _refuse_copies(copies, strict=job.options.strict)
            if more:
                sketched.append(_receive_state(team, rank, job, len(rows)))
        rows += more
        shard_of |= dict.fromkeys(more, rank)
    team.alone()
    states = [gatherer.state(), *sketched]
    if plan.streams and team.size > 1:
        _warn_of_spread_groups(job.options, shard_of)
        states = [state for state in states if state.count] or states[:1]
    rank_wanted = Rank(job.options.variance, job.options.components)
    return Gathered(rows, reader, merge_states(states, rank_wanted))


def contribute(
    images: str | Path | Sequence[Path] | None, options: FitOptions | None, team: Team
) -> None:
    """The part of every rank but 0 in a fit: gather a shard, hand it over, wait for the end.

    Parameters
    ----------
    images, options
        As rank 0 gives them to `fre_edge.fit` or `fre_edge.update`.
    team
        What `fre_edge.team.join` returned.

    Raises
    ------
    DataError
        When photos or options differ from those of rank 0, naming the field.
    TeamError
        When another process fails.
    """
    job = prepare(images, options or FitOptions())
    if not job.paths:
        team.wait_for_end()
        return
    method = team.agree(job.facts())
    scratch = job.options.scratch and Path(job.options.scratch) / f"rank_{team.rank}"
    plan = Plan(method, Path(scratch) if scratch else None, "as rank 0 chose")
    if plan.scratch is not None:
        plan.scratch.mkdir(parents=True, exist_ok=True)
    shard = team.shard(job.paths, team.rank)
    gatherer = job.gatherer(plan, job.reader(shard).expected, plan.scratch)
    reader, rows = _gather_shard(job, plan, team, gatherer)
    team.wait_for_call()
    team.send(reader_tensors(reader, rows, len(shard)))
    _send_state(team, gatherer)
    del gatherer  # rank 0 needs the memory
    team.wait_for_end()
    if plan.scratch is not None:
        for folder in (plan.scratch, plan.scratch.parent):
            clear(folder)


def _gather_shard(
    job: Job, plan: Plan, team: Team, gatherer: Gatherer
) -> tuple[PhotoReader, list[Path]]:
    shard = team.shard(job.paths, team.rank)
    team.work()
    reader = job.reader(shard)
    if not shard:
        return reader, []
    # By the number of all photos, so that features are the same bits as in one process.
    trunk = trunk_for(job.extractor, job.size, len(job.paths))
    checkpoint = job.checkpoint(plan, shard, team.size)
    return reader, gather(trunk, reader, gatherer, checkpoint, team.note)


def _names(layers: int) -> list[str]:
    return [str(i) for i in range(layers)]


def _send_state(team: Team, gatherer: Gatherer) -> None:
    state = gatherer.state()
    if isinstance(gatherer, Keep):
        for start in range(0, state.count, BATCH):
            for layer in state.kept:
                team.send_array(layer[start : start + BATCH])
    elif state.count:
        tensors = state.tensors(_names(len(state.kept)))
        team.send(tensors | {"photos": state.photos})


def _receive_rows(
    team: Team, rank: int, keep: Keep, rows: list[Path], copies: dict[Path, Path]
) -> None:
    """Take the features that `_send_state` sends of kept photos, all but those of copies."""
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        layers = [
            team.receive_array(rank, (len(batch), dimension), "<f4")
            for dimension in keep.dimensions
        ]
        for i, photo in enumerate(batch):
            if photo not in copies:
                keep.add(photo, [layer[i] for layer in layers])


def _receive_state(team: Team, rank: int, job: Job, offset: int) -> State:
    tensors = team.receive(rank)
    state = State.from_tensors(tensors, _names(len(job.shapes)))
    return replace(state, photos=tensors["photos"] + offset)


def _refuse_copies(copies: dict[Path, Path], *, strict: bool) -> None:
    if not copies:
        return
    path, first = next(iter(copies.items()))
    said = f"{len(copies)} photos are copies of some in another process's shard, such as {path} of "
    if strict:
        raise DataError(f"{said}{first}, and strict allows none; remove them")
    log.warning("%s%s; they count twice, since sketches cannot forget them", said, first)


def _warn_of_spread_groups(options: FitOptions, shard_of: dict[Path, int]) -> None:
    if options.groups in ("auto", "none"):
        return
    table = GroupTable.read(Path(options.groups))
    shards: dict[str, set[int]] = {}
    for photo, shard in shard_of.items():
        shards.setdefault(table.label(photo), set()).add(shard)
    spread = [label for label, found in shards.items() if len(found) > 1]
    if spread:
        log.warning(
            "%d groups of %s have photos in the shards of several processes, such as %s: these may "
            "land in different folds. Name the files so that a group's photos stand together",
            len(spread),
            options.groups,
            spread[0],
        )
